"""What `make eval` measures: every shape over recorded text, clean streams, hard negatives, and what a clean stream costs.

Streams are built as SSE bytes and go through parser, buffer and rewriter; what is judged is the text read back from the bytes that
left. The prototype, where its kit is present, is fed the same deltas, envelopes and times.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import msgspec

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event
from actors.sansio.smart_buffer import SmartBuffer
from actors.sansio.stuttering_detector import StutteringDetector, StutterPolicy
from tests.stutter.hard_negatives import NEGATIVES
from tests.stutter.hard_negatives.stream import GAPS, arrivals
from tests.stutter.hard_negatives.stream import write as write_negative
from tests.stutter.injections import CHUNKINGS, SHAPES, TOOL_SHAPES, cut
from tests.stutter.wire import ENVELOPES, Piece, build, is_subsequence, play, text_of, write

from .undecidable import reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.stutter.wire import Envelope

    from .prototype import Prototype

Lanes = list[list[str]]
#: Characters that cutting a call's whole arguments into fragments makes of one, where a recording has them in one piece.
_FRAGMENT: Final = 5


@dataclass
class Score:
    """Sums over the streams of one shape."""

    streams: int = 0
    exact: int = 0
    losing: int = 0
    changed: int = 0  # streams of which anything left otherwise than it came
    repeated: int = 0  # characters that the injection added
    leaked: int = 0  # characters of them that reached the client
    undecidable: Counter[str] = field(default_factory=Counter)  # streams that were not exact and could not be, by reason
    by: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, expected: str, got: str, injected: int, groups: Iterable[str], why: str = "") -> bool:
        exact = got == expected
        self.streams += 1
        self.exact += exact
        self.losing += not exact and not is_subsequence(expected, got)
        self.repeated += injected
        self.leaked += max(0, len(got) - len(expected))
        if why and not exact:
            self.undecidable[why] += 1
        for group in groups:
            self.by[group][0] += exact
            self.by[group][1] += 1
        return exact

    def share(self, *groups: str) -> float:
        """Exact repairs in %, of all streams or of those in some groups."""
        exact, of = (sum(self.by[group][i] for group in groups) for i in (0, 1)) if groups else (self.exact, self.streams)
        return 100 * exact / max(1, of)

    @property
    def decidable(self) -> float:
        """Exact repairs in % of the streams that can be decided."""
        return 100 * self.exact / max(1, self.streams - self.undecidable.total())

    @property
    def leak(self) -> float:
        return 100 * self.leaked / max(1, self.repeated)


@dataclass
class Both:
    """One shape: ours and, where it is there, the prototype's."""

    ours: Score = field(default_factory=Score)
    prototype: Score = field(default_factory=Score)


def fragments(deltas: Sequence[str]) -> list[str]:
    """A call's arguments in small pieces, where they came as one."""
    if len(deltas) > 3:
        return list(deltas)
    text = "".join(deltas)
    rng = random.Random(text)
    pieces, at = [], 0
    while at < len(text):
        size = rng.randint(1, _FRAGMENT)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def measure_shape(
    shape: str,
    lanes: Lanes,
    seed: int,
    prototype: Prototype | None,
    *,
    even: bool = False,
    failures: int = 0,
    chunkings: Sequence[str] = tuple(CHUNKINGS),
) -> Both:
    """Injects one shape into every lane, in four envelopes.

    Args:
      even: copies come a whole chunk's time after what they repeat, instead of within a millisecond.
      failures: how many streams that were not exact are printed.
    """
    tool = shape in TOOL_SHAPES
    inject = TOOL_SHAPES[shape] if tool else SHAPES[shape]
    both, rng = Both(), random.Random(f"{seed} {shape}")
    for tokens in lanes:
        for chunking in chunkings:
            gap = CHUNKINGS[chunking]
            for style in ENVELOPES:
                deltas = cut(tokens, chunking, rng)
                if len(deltas) < (2 if tool else 8) or (tool and chunking == "lines"):
                    continue
                clean = build(deltas, rng, gap=gap, field="arguments" if tool else "content")
                stream = inject(clean, rng)
                if even:
                    stream = [replace(piece, gap=gap) for piece in stream]
                expected, blocks = text_of(clean), write(stream, style)
                injected, groups = len(text_of(stream)) - len(expected), (style, chunking)
                result = play(blocks)
                got = result.only
                if shape == "G3":
                    expected, got = expected + "call_1 get_weather", got + " ".join(result.calls.get((0, 0), ("", "")))
                elif shape == "H1":
                    expected, got = expected + "stop", got + "stop" * result.finishes
                both.ours.changed += result.raw != b"".join(raw for _, raw in blocks)
                exact = both.ours.add(expected, got, injected, groups, reason(shape, stream, style))
                if not exact and failures > 0:
                    failures -= 1
                    print("  FAIL", shape, style, chunking, [piece.text[-24:] for piece in stream[:14]], "->", repr(got[:90]))
                if prototype is not None and shape not in ("G3", "H1"):
                    theirs = prototype.play(stream, style, tool=tool).text
                    both.prototype.changed += theirs != text_of(stream)
                    both.prototype.add(expected, theirs, injected, groups)
    return both


@dataclass
class Clean:
    """Sums over clean streams."""

    streams: int = 0
    characters: int = 0
    changed: int = 0
    lost: int = 0  # characters
    holding: int = 0
    longest: float = 0.0  # seconds

    def add(self, said: str, got: str, changed: bool, held: float) -> None:
        self.streams += 1
        self.characters += len(said)
        self.changed += changed
        self.lost += max(0, len(said) - len(got))
        self.holding += held > 0
        self.longest = max(self.longest, held)


def measure_clean(lanes: Iterable[Sequence[str]], seed: int, prototype: Prototype | None, *, every_envelope: bool) -> tuple[Clean, Clean]:
    """Clean text: nothing may change, nearly nothing may wait. Returns: ours, the prototype's."""
    rng = random.Random(seed)
    ours, theirs = Clean(), Clean()
    for tokens in lanes:
        for chunking, gap in CHUNKINGS.items():
            for style in ENVELOPES if every_envelope else (rng.choice(ENVELOPES),):
                stream = build(cut(tokens, chunking, rng), rng, gap=gap)
                blocks, said = write(stream, style), text_of(stream)
                result = play(blocks)
                ours.add(said, result.only, result.raw != b"".join(raw for _, raw in blocks), max(result.held, default=0.0))
                if prototype is not None:
                    played = prototype.play(stream, style)
                    theirs.add(said, played.text, played.text != said, played.held)
    return ours, theirs


def measure_recordings(paths: Iterable[Path]) -> Clean:
    """Recorded bodies in reads of 300 bytes. The one that is itself a captured stutter has to change."""
    sums = Clean()
    for path in paths:
        raw = path.read_bytes()
        result = play([(0.01 * place, raw[place * 300 : place * 300 + 300]) for place in range(len(raw) // 300 + 1)])
        parser = ChunkParser()
        expected = b"".join(chunk.raw for chunk in [*parser.feed(raw), *parser.close(True)])
        changed = (result.raw != expected) is ("STUTTER" not in path.name)
        sums.add("", "", changed, max(result.held, default=0.0))
    return sums


def measure_negatives(prototype: Prototype | None, most: int) -> tuple[int, int, int, int]:
    """Every hard negative, or the first `most`, in each of its envelopes, at each speed, under each profile.

    Returns:
      How many there are, how many of them ours damages, how many the prototype can be given (texts of one lane), damaged by it.
    """
    damaged: set[str] = set()
    given, hurt = 0, 0
    for negative in NEGATIVES[:most]:
        for style in negative.styles:
            blocks = write_negative(negative, style)
            for speed in GAPS:
                times = arrivals(len(blocks), speed)
                for profile in negative.profiles:
                    result = play(zip(times, blocks, strict=True), StutterPolicy(profile=profile))  # type: ignore[arg-type]  # of PROFILES
                    if result.raw != b"".join(blocks):
                        damaged.add(negative.name)
        parts = [part for event in negative.events for part in event.parts]
        if prototype is not None and parts and all(part.lane == "content" and not part.choice for part in parts):
            given += 1
            texts = [part.text for part in parts if part.text]
            streams = [[Piece(text, gap) for text in texts] for gap in (0.005, 0.06, 0.5)]
            hurt += any(prototype.play(stream, "constant").text != "".join(texts) for stream in streams)
    return len(NEGATIVES[:most]), len(damaged), given, hurt


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int
    delta: _Message
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[_Choice]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a clean event costs beyond parsing.

    Args:
      first, last: seconds per event in the first and in the last tenth of a long stream.
      decode: seconds per typed decode of the same chunks.
      prototype: seconds per event, 0 where it is absent.
      events: of the stream.
    """

    first: float
    last: float
    decode: float
    prototype: float
    events: int

    @property
    def ratio(self) -> float:
        return max(self.first, self.last) / self.decode


def measure_cost(lanes: Lanes, prototype: Prototype | None, style: Envelope = "constant", events: int = 20_000) -> Cost:
    """Cost in one stream, window by window, each parsed just before, so that it is the work that is measured and not a cold cache."""
    tokens = [token for lane in lanes for token in lane]
    stream = build((tokens * (events // len(tokens) + 1))[:events], random.Random(5), gap=0.02)
    blocks = [block for _, block in write(stream, style)]
    size = events // 100
    windows = [b"".join(blocks[at : at + size]) for at in range(0, len(blocks), size)]
    decoder = msgspec.json.Decoder(_Chunk)
    ours = [math.inf] * len(windows)
    decode = math.inf
    for _ in range(3):  # the best of several: the machine has other work, too
        parser, buffer, now = ChunkParser(), SmartBuffer(StutteringDetector()), 0.0
        for place, window in enumerate(windows):
            chunks = [chunk for chunk in parser.feed(window) if isinstance(chunk, Event)]
            start = time.perf_counter()
            for event in chunks:
                buffer.add(event, now)
                now += 0.02
            middle = time.perf_counter()
            for event in chunks:
                decoder.decode(event.data)
            end = time.perf_counter()
            ours[place] = min(ours[place], (middle - start) / len(chunks))
            decode = min(decode, (end - middle) / len(chunks))
    theirs = 0.0
    if prototype is not None:
        start = time.perf_counter()
        prototype.play(stream[:2000], "constant")
        theirs = (time.perf_counter() - start) / 2000
    tenth = len(windows) // 10
    return Cost(statistics.median(ours[:tenth]), statistics.median(ours[-tenth:]), decode, theirs, events)
