"""For the documentation site: what stands outside docs/ has no page there, so a link to it becomes its name; diagrams stay readable.

The pages are read in the repository as well, where those links work.
"""

from __future__ import annotations

import re
from typing import Any, Final

_LINK: Final = re.compile(r"(?<!!)\[([^\]\n]+)\]\(((?!https?://)[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by MkDocs for each page."""
    depth = page.file.src_uri.count("/")
    return _LINK.sub(lambda found: found[0] if _has_a_page(found[2], depth) else found[1], markdown)


def _has_a_page(target: str, depth: int) -> bool:
    """Whether a relative link stays below docs/ and leads to something that the site serves."""
    ups = target.count("../")
    return ups <= depth and target.endswith((".md", ".svg", ".png", ".toml", ".json")) and "changes/" not in target
