"""qwen-code, headless: one prompt, its doings as lines of JSON. It answers a tool call by reading its own folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from .client import Client, Command, Said, last_line

if TYPE_CHECKING:
    from .client import Output, Place


def _start(place: Place) -> Command:
    qwen = str(place.installed / "node_modules" / ".bin" / "qwen")
    variables = {"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": place.url, "OPENAI_MODEL": place.case}
    return Command((qwen, "--auth-type", "openai", "--output-format", "stream-json", "-p", "Tell me about the river."), variables)


def _read(output: Output) -> Said:
    events: list[dict[str, Any]] = [json.loads(line) for line in output.stdout.splitlines() if line.startswith("{")]
    blocks = [block for event in events if event["type"] == "assistant" for block in event["message"]["content"]]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = tuple((block["name"], json.dumps(block["input"])) for block in blocks if block["type"] == "tool_use")
    result = next((event for event in events if event["type"] == "result"), None)
    if result is None:
        return Said(text, f"exit code {output.code}: {last_line(output.stderr)}", calls)
    error = result["error"]["message"] if result["is_error"] else ""
    return Said(text.removesuffix(error), error, calls)  # it puts the error at the end of the text as well


QWEN_CODE: Final = Client(
    "qwen-code",
    ("@qwen-code/qwen-code@0.24.4",),
    _start,
    _read,
    npm=True,
    interactive=True,
    call=("glob", '{"pattern":"*.md","path":"{home}"}'),
    carries_on=True,
)
