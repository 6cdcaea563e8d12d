"""Draws docs/img/repaired-stream.svg: a stuttering stream, chunk by chunk, straight and through evenflow. Run: python docs/make_stream_picture.py

What is drawn is what the pipeline makes of the chunks: they are run through `server.replay`.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

#: A server that tells everything so far in every chunk, as DashScope's Coding Plan was seen to (qwen-code PR 3896).
TEXTS: Final = (
    "The river",
    "The river bends",
    "The river bends and",
    "The river bends and the mill",
    "The river bends and the mill turns.",
)
_LINE: Final = 26
_STYLE: Final = """
  .ground { fill: #10201d } .head { fill: #9fd8cb; font-weight: 600 } .text { fill: #e6f2ef } .twice { fill: #e38a8a } .faint { fill: #7fa39b }
  text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre }
"""


def recording() -> bytes:
    """The stream as its server sends it."""

    def event(**choice: object) -> bytes:
        return (
            b"data: " + json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, **choice}]}).encode() + b"\n\n"
        )

    return b"".join([*(event(delta={"content": text}) for text in TEXTS), event(delta={}, finish_reason="stop"), b"data: [DONE]\n\n"])


def told(body: bytes) -> list[str]:
    """The texts of a body, one per chunk."""
    events = [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: {")]
    return [event["choices"][0]["delta"].get("content", "") for event in events if event["choices"][0]["delta"]]


def picture() -> str:
    """The SVG."""
    from server.replay import replay

    straight, repaired = told(recording()), told(replay(recording()).body)
    rows = [
        ("head", "straight from the upstream", "through evenflow"),
        *(("text", f'delta "{one}"', f'delta "{other}"') for one, other in zip(straight, repaired, strict=True)),
        ("faint", "", ""),
    ]
    lines = []
    for place, (kind, left, right) in enumerate(rows):
        y = 34 + place * _LINE
        lines.append(f'<text x="24" y="{y}" class="{"twice" if kind == "text" and place > 1 else kind}">{escape(left)}</text>')
        lines.append(f'<text x="520" y="{y}" class="{kind}">{escape(right)}</text>')
    y = 34 + len(rows) * _LINE - 10
    lines.append(f'<text x="24" y="{y}" class="faint">your user reads</text>')
    lines.append(f'<text x="24" y="{y + _LINE}" class="twice">{escape("".join(straight)[:50])}...</text>')
    lines.append(f'<text x="520" y="{y}" class="faint">your user reads</text>')
    lines.append(f'<text x="520" y="{y + _LINE}" class="text">{escape("".join(repaired))}</text>')
    height = y + _LINE + 24
    title = "A server that repeats everything so far in every chunk, and what a client gets through evenflow"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {height}" role="img" aria-label="{title}">\n<title>{title}</title>\n<style>{_STYLE}</style>\n'
        f'<rect class="ground" width="960" height="{height}" rx="10"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )


if __name__ == "__main__":
    (ROOT / "docs" / "img" / "repaired-stream.svg").write_text(picture())
