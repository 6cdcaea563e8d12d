"""opencode, headless: one message, its doings as lines of JSON. It answers a tool call by reading its own folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from .client import Client, Command, Said, last_line

if TYPE_CHECKING:
    from .client import Output, Place


def _start(place: Place) -> Command:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": place.url, "apiKey": "x"},
        "models": {place.case: {"tool_call": True}, "title": {}},
    }
    configuration = {
        "$schema": "https://opencode.ai/config.json",
        "provider": {"evenflow": provider},
        "small_model": "evenflow/title",
        "autoupdate": False,
        "share": "disabled",
    }
    (place.home / "opencode.json").write_text(json.dumps(configuration), "utf-8")
    opencode = str(place.installed / "node_modules" / ".bin" / "opencode")
    return Command((opencode, "run", "--format", "json", "--model", f"evenflow/{place.case}", "Tell me about the river."))


def _read(output: Output) -> Said:
    events: list[dict[str, Any]] = [json.loads(line) for line in output.stdout.splitlines() if line.startswith("{")]
    parts = [event["part"] for event in events if "part" in event]
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    calls = tuple((part["tool"], json.dumps(part["state"]["input"])) for part in parts if part["type"] == "tool")
    errors = [event["error"]["data"]["message"] for event in events if event["type"] == "error"]
    if not events:
        errors = [f"exit code {output.code}: {last_line(output.stderr)}"]
    return Said(text, errors[0] if errors else "", calls)


OPENCODE: Final = Client(
    "opencode",
    ("opencode-ai@1.18.33",),
    _start,
    _read,
    npm=True,
    interactive=True,
    call=("read", '{"filePath":"{home}/opencode.json"}'),
    carries_on=True,
    own={"error": "the text is not kept"},  # headless it prints a text when it is complete, and none that is not
)
