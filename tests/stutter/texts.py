"""Where true text comes from: the lanes of recorded streams, and the text files of this Python installation.

Both are split in two halves, here and nowhere else: weights are set on one (`make calibrate`), what is reached is told on the other
(`make eval`). Every provider is in exactly one half; so is every file.
"""

from __future__ import annotations

import functools
import pydoc_data.topics
import re
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from zlib import crc32

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event, Field

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
#: The first that exists is used.
RECORDINGS: Final = (ROOT.parent / "shared" / "corpus", ROOT / "tests" / "recordings")

Half = Literal["calibration", "evaluation"]
#: Providers (what stands before the first "-" of a recording's name) by half; others go by the parity of their CRC-32.
_PROVIDERS: Final[dict[Half, frozenset[str]]] = {
    "calibration": frozenset({"azure", "deepseek", "groq", "huggingface", "litellm", "local", "mistral", "openrouter", "spark"}),
    "evaluation": frozenset(
        {"cerebras", "dashscope", "gemini", "gpustack", "moonshot", "ollama", "openai", "other", "perplexity", "together", "xai"}
    ),
}
#: Servers' tokens, nearly: words in pieces of up to 8 letters with the blank before them, signs alone or repeated, digits by three.
_TOKEN: Final = re.compile(r" ?[^\W\d_\u2e80-\uffff]{1,8}|[\u2e80-\u9fff]{1,2}|\d{1,3}| ?(?:([^\w\s]|_)\1{1,31}|[^\w\s]{1,3}|_)|\s+|\w")
_SUFFIXES: Final = frozenset({".py", ".pyi", ".txt", ".rst", ".md", ".js", ".css", ".html"})


def half_of(name: str) -> Half:
    """The half in which a recording (by its file's name) or a file (by its path) is."""
    provider = name.split("-")[0]
    for half, providers in _PROVIDERS.items():
        if provider in providers:
            return half
    return "evaluation" if crc32(provider.encode()) % 2 else "calibration"


def recordings(half: Half | None = None) -> list[Path]:
    for folder in RECORDINGS:
        if files := sorted(folder.glob("*.sse")):
            return [path for path in files if half is None or half_of(path.stem) == half]
    return []


def lanes_of(path: Path) -> dict[tuple[int, Field, int, str], list[str]]:
    """A recording's deltas by lane; arguments by call."""
    parser = ChunkParser()
    lanes: dict[tuple[int, Field, int, str], list[str]] = {}
    calls: dict[tuple[int, int], str] = {}
    for chunk in [*parser.feed(path.read_bytes()), *parser.close(True)]:
        if isinstance(chunk, Event):
            for delta in chunk.deltas:
                if delta.call_id is not None:
                    calls[delta.choice, delta.call_index] = delta.call_id
                call = calls.get((delta.choice, delta.call_index), "") if delta.call_index >= 0 else ""
                lanes.setdefault((delta.choice, delta.field, delta.call_index, call), []).append(delta.text)
    return lanes


def text_lanes(half: Half | None = None, least: int = 10, most: int = 400) -> list[tuple[str, list[str]]]:
    """(name of the recording, deltas) of every recorded text lane of at least `least` deltas.

    Where the corpus is absent, what the repository ships is little: then pages of Python's own manual stand beside it.
    """
    lanes = [
        (path.stem, deltas[:most])
        for path in recordings(half)
        for (_, field, _, _), deltas in lanes_of(path).items()
        if field not in (Field.TOOL_ARGUMENTS, Field.FUNCTION_ARGUMENTS) and len(deltas) >= least
    ]
    if not RECORDINGS[0].is_dir():
        lanes += [(name, deltas) for name, deltas in _manual(most) if half is None or half_of(name) == half]
    return lanes


def argument_lanes(half: Half | None = None) -> list[tuple[str, list[str]]]:
    return [
        (path.stem, deltas)
        for path in recordings(half)
        for (_, field, _, _), deltas in lanes_of(path).items()
        if field in (Field.TOOL_ARGUMENTS, Field.FUNCTION_ARGUMENTS)
    ]


def _manual(most: int, pages: int = 48) -> Iterator[tuple[str, list[str]]]:
    topics: dict[str, str] = pydoc_data.topics.topics
    for topic in sorted(topics, key=lambda name: crc32(name.encode()))[:pages]:
        yield topic.replace("-", "_"), tokens_of(topics[topic].lstrip())[:most]


def tokens_of(text: str) -> list[str]:
    return [match[0] for match in _TOKEN.finditer(text)]


@functools.cache
def _text_files(half: Half) -> list[Path]:
    """Text files of this Python installation, in an order of their own that does not depend on the machine."""
    files: dict[str, Path] = {}
    for place in ("stdlib", "purelib"):
        root = Path(sysconfig.get_path(place))
        for path in root.rglob("*"):
            if path.suffix in _SUFFIXES:
                files[path.relative_to(root).as_posix()] = path
    chosen = [name for name in files if (crc32(name.encode()) % 2 == 1) == (half == "evaluation")]
    return [files[name] for name in sorted(chosen, key=lambda name: crc32(name[::-1].encode()))]


def passages(half: Half, files: int, rng: random.Random, length: int = 12_000) -> Iterator[list[str]]:
    """Tokens of a passage from each of so many text files of this Python installation.

    Args:
      length: characters at most.
    """
    for path in _text_files(half)[:files]:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if len(text) >= 200:
            at = rng.randrange(max(1, len(text) - length))
            yield tokens_of(text[at : at + length])
