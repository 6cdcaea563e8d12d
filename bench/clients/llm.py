"""`llm`, Simon Willison's command line: a model of one's own in extra-openai-models.yaml, a tool as a Python function."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Final

from .client import Client, Command, Said, last_line

if TYPE_CHECKING:
    from .client import Output, Place

_TOOL: Final = "def get_weather(city: str, unit: str, days: list) -> str:\n    return 'rain'"


def _start(place: Place) -> Command:
    model = f"- model_id: {place.case}\n  model_name: {place.case}\n  api_base: {place.url}\n  supports_tools: true\n"
    (place.home / "extra-openai-models.yaml").write_text(model, "utf-8")
    tool = ("--functions", _TOOL, "--tools-debug") if place.case == "tools" else ()
    arguments = (str(place.bin / "llm"), "-m", place.case, *tool, "Tell me about the river.")
    return Command(arguments, {"LLM_USER_PATH": str(place.home), "OPENAI_API_KEY": "x"})


def _read(output: Output) -> Said:
    # --tools-debug says on standard error: Tool call: get_weather({'city': ...})
    calls = [line.removeprefix("Tool call: ") for line in output.stderr.splitlines() if line.startswith("Tool call: ")]
    halves = (call.removesuffix(")").partition("(") for call in calls)
    said = tuple((name, json.dumps(ast.literal_eval(arguments))) for name, _, arguments in halves)
    return Said(output.stdout.removesuffix("\n"), last_line(output.stderr) if output.code else "", said)


LLM: Final = Client("llm", ("llm==0.36",), _start, _read, interactive=True, carries_on=True)
