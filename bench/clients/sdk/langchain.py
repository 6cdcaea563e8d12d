"""LangChain's ChatOpenAI, driven for one case: python -P langchain.py CASE URL. Prints one line of JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from langchain_openai import ChatOpenAI

case, url = sys.argv[1:]
weather = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
told: dict[str, Any] = {"text": "", "error": "", "calls": []}
whole: Any = None
try:
    model: Any = ChatOpenAI(model=case, base_url=url, api_key="x", stream_usage=True)
    stream = (model.bind_tools([weather]) if case == "tools" else model).stream("Tell me about the river.")
    for chunk in stream:
        told["text"] += chunk.text
        whole = chunk if whole is None else whole + chunk
        if case == "disconnect" and len(told["text"]) > 200:
            told["left_ns"] = time.monotonic_ns()
            stream.close()
            break
except Exception as exc:
    told["error"] = f"{type(exc).__name__} {getattr(exc, 'code', '')}: {exc}"
if whole is not None:
    told["calls"] = [[call["name"], json.dumps(call["args"])] for call in whole.tool_calls]
print(json.dumps(told), flush=True)
sys.stdin.read()  # stays until the runner has seen the close, which must not be this process's end
