"""Every recorded stream comes out with the same events, byte for byte and in order, but for what corpus_expectations.toml says."""

import re
import tomllib
from pathlib import Path

import pytest

from server.replay import replay

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
FILES = sorted(CORPUS.glob("*.sse"))
EXPECTED = {entry["name"]: entry for entry in tomllib.loads((Path(__file__).parent / "corpus_expectations.toml").read_text())["file"]}

pytestmark = pytest.mark.skipif(not FILES, reason="the recorded streams (../shared/corpus) are not here")


def events(body: bytes) -> list[bytes]:
    """The events of a body as lists of their lines, split apart without any of the product's code; comments and blank lines aside.

    A `data:` line after a `data:` line begins a new event: one recording separates its events by single line feeds, and none
    spreads an event's data over several lines.
    """
    found: list[list[bytes]] = [[]]
    for line in re.split(rb"\r\n|\r|\n", body.removeprefix(b"\xef\xbb\xbf")):
        if line.startswith(b":"):
            continue
        if not line or (line.startswith(b"data:") and any(earlier.startswith(b"data:") for earlier in found[-1])):
            found.append([])
        if line:
            found[-1].append(line)
    return [b"\n".join(lines) for lines in found if lines]


def with_difference(came: list[bytes], entry: dict[str, list[int] | list[str]]) -> list[bytes]:
    dropped = entry.get("dropped", [])
    kept = [event for position, event in enumerate(came) if position not in dropped]
    return kept + [str(text).encode() for text in entry.get("appended", [])]


@pytest.mark.parametrize("pace", [0.0, 0.02, 0.25])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem[:60])
def test_a_recorded_stream_comes_out_as_it_went_in(path: Path, pace: float) -> None:
    recording = path.read_bytes()
    came, left = events(recording), events(replay(recording, pace=pace).body)
    entry = EXPECTED.get(path.name)
    if entry is None:
        assert left == came
        return
    assert left == with_difference(came, entry)
    assert left != came, f"the entry for {path.name} is not needed any more"


def test_each_expectation_names_a_recording() -> None:
    assert not EXPECTED.keys() - {path.name for path in FILES}
    assert all(entry["reason"] for entry in EXPECTED.values())
