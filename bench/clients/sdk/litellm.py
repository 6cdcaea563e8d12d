"""The LiteLLM SDK, driven for one case: python -P litellm.py CASE URL. Prints one line of JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import litellm

case, url = sys.argv[1:]
weather = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
told: dict[str, Any] = {"text": "", "error": "", "calls": []}
calls: dict[int, list[str]] = {}
try:
    stream: Any = litellm.completion(
        model=f"openai/{case}",
        api_base=url,
        api_key="x",
        stream=True,
        stream_options={"include_usage": True},
        messages=[{"role": "user", "content": "Tell me about the river."}],
        **({"tools": [weather]} if case == "tools" else {}),
    )
    for chunk in stream:
        for choice in chunk.choices:
            told["text"] += choice.delta.content or ""
            for call in choice.delta.tool_calls or ():
                parts = calls.setdefault(call.index, ["", ""])
                parts[0] += call.function.name or ""
                parts[1] += call.function.arguments or ""
        if case == "disconnect" and len(told["text"]) > 200:
            told["left_ns"] = time.monotonic_ns()
            stream.completion_stream.close()  # the wrapper itself has no close()
            break
except Exception as exc:
    told["error"] = f"{type(exc).__name__} {getattr(exc, 'code', '')}: {exc}"
told["calls"] = list(calls.values())
print(json.dumps(told), flush=True)
sys.stdin.read()  # stays until the runner has seen the close, which must not be this process's end
