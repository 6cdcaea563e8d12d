"""The clients that are libraries: a script in sdk/ uses each as its documentation shows, and prints what came as a line of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from .client import Client, Command, said_in_json

if TYPE_CHECKING:
    from .client import Start

_HERE: Final = Path(__file__).resolve().parent / "sdk"


def _python(script: str, **variables: str) -> Start:
    # -P: the scripts are named for what they drive, and must not be what `import litellm` finds.
    return lambda place: Command((str(place.bin / "python"), "-P", str(_HERE / script), place.case, place.url), variables)


def _node(script: str) -> Start:
    return lambda place: Command((str(place.bin / "node"), str(_HERE / script), place.case, place.url, str(place.installed)))


OPENAI_PYTHON: Final = Client("openai-python", ("openai==3.54.0",), _python("openai_python.py"), said_in_json)
OPENAI_NODE: Final = Client("openai-node", ("openai@7.57.0",), _node("openai_node.mjs"), said_in_json, npm=True)
VERCEL_AI_SDK: Final = Client(
    "vercel-ai-sdk", ("ai@7.0.173", "@ai-sdk/openai-compatible@3.0.92", "zod@4"), _node("vercel_ai_sdk.mjs"), said_in_json, npm=True
)
LANGCHAIN: Final = Client("langchain", ("langchain-openai==1.7.3",), _python("langchain.py"), said_in_json)
LITELLM: Final = Client(
    "litellm",
    ("litellm==1.106.2", "mcp"),
    # mcp: without it completion() with `tools` fails before it asks anything.
    _python("litellm.py", LITELLM_LOCAL_MODEL_COST_MAP="True"),  # else it asks GitHub for prices when imported
    said_in_json,
)
