"""openai-python, driven for one case: python -P openai_python.py CASE URL. Prints one line of JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import openai

case, url = sys.argv[1:]
weather: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
told: dict[str, Any] = {"text": "", "error": "", "calls": []}
calls: dict[int, list[str]] = {}
try:
    client = openai.OpenAI(base_url=url, api_key="x")
    with client.chat.completions.create(
        model=case,
        stream=True,
        messages=[{"role": "user", "content": "Tell me about the river."}],
        stream_options={"include_usage": True},
        tools=[weather] if case == "tools" else openai.omit,
    ) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                told["text"] += choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    parts = calls.setdefault(call.index, ["", ""])
                    parts[0] += (call.function and call.function.name) or ""
                    parts[1] += (call.function and call.function.arguments) or ""
            if case == "disconnect" and len(told["text"]) > 200:
                told["left_ns"] = time.monotonic_ns()
                break  # leaving the block closes the stream
except openai.APIError as exc:
    told["error"] = f"{type(exc).__name__} {exc.code}: {exc.message}"
told["calls"] = list(calls.values())
print(json.dumps(told), flush=True)
sys.stdin.read()  # stays until the runner has seen the close, which must not be this process's end
