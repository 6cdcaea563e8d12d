"""How much stutter is repaired, and what that costs: every shape over recorded text, four envelopes, six chunkings.

    python -m bench.stutter_eval [--shapes A1,B2] [--lanes 60] [--no-prototype] [--seed 21] [--even] [--failures 5]

Duplicates come within a millisecond of what they repeat, as one write does; with --even after a whole chunk's time, which is harder.
The exit code is 1 if any stream lost text or any clean stream changed.

Streams are built as SSE bytes and go through parser, buffer and rewriter; what is judged is the text read back from the bytes
that left. Where ../shared/stutter-kit is present, its prototype is fed the same deltas, envelopes and times.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event
from actors.sansio.smart_buffer import SmartBuffer
from actors.sansio.stuttering_detector import StutteringDetector
from tests.stutter.injections import CHUNKINGS, PROVES, SHAPES, TOOL_SHAPES, cut
from tests.stutter.negatives import ARGUMENTS, TEXT
from tests.stutter.texts import ROOT, argument_lanes, recordings, text_lanes
from tests.stutter.wire import ENVELOPES, Envelope, Piece, build, is_subsequence, play, text_of, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass
class Score:
    """Sums over the streams of one shape."""

    streams: int = 0
    exact: int = 0
    losing: int = 0
    repeated: int = 0  # characters that the injection added
    leaked: int = 0  # characters of them that reached the client
    held: list[float] = field(default_factory=list)
    by: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, expected: str, got: str, injected: int, held: Sequence[float], *groups: str) -> bool:
        exact = got == expected
        self.streams += 1
        self.exact += exact
        self.losing += not exact and not is_subsequence(expected, got)
        self.repeated += injected
        self.leaked += max(0, len(got) - len(expected))
        self.held += held
        for group in groups:
            self.by[group][0] += exact
            self.by[group][1] += 1
        return exact

    def share(self, group: str) -> str:
        right, of = self.by[group]
        return f"{100 * right / of:.0f}" if of else "-"

    def line(self) -> str:
        leak = 100 * self.leaked / max(1, self.repeated)
        return f"{100 * self.exact / max(1, self.streams):6.1f} % exact, {self.losing} lose text, leak {leak:5.2f} %"


def load_prototype() -> Callable[[Sequence[Piece], Envelope, bool], str] | None:
    """The kit's prototype behind this module's streams, if the kit is there."""
    kit = ROOT.parent / "shared" / "stutter-kit"
    if not kit.is_dir():
        return None
    sys.path.insert(0, str(kit))
    lane_class: Any = importlib.import_module("prototype_detector").Lane
    head, rest, other = "finish_reason,logprobs,delta,index", "delta,finish_reason,index,logprobs", "index,delta,logprobs,finish_reason"

    def run(stream: Sequence[Piece], style: Envelope, tool: bool) -> str:
        lane, now, out = lane_class(tool=tool), 0.0, []
        for piece in stream:
            now += piece.gap * 1000
            if lane.t0 is not None and lane.t0 + 400 <= now:
                out.append(lane.tick(lane.t0 + 400))
            envelope: dict[str, Any] = {"id": piece.id, "mask": 0}
            if style == "nonce":
                envelope |= {"mask": piece.nonce, "nonce_field": True}
            elif style == "usage":
                envelope |= {"mask": piece.tokens, "ct": piece.tokens}
            else:
                envelope["sig"] = (head if piece.head_order else rest) if style == "dashscope" else other
            if piece.kind == "finish":
                out.append(lane.end())
            elif piece.text:
                out.append(lane.feed(piece.text, envelope, now))
        out.append(lane.end())
        return "".join(out)

    return run


def measure(shape: str, lanes: Sequence[Sequence[str]], seed: int, prototype: Any, verbose: int, even: bool) -> tuple[Score, Score]:
    tool = shape in TOOL_SHAPES
    inject = TOOL_SHAPES[shape] if tool else SHAPES[shape]
    ours, theirs, rng = Score(), Score(), random.Random(f"{seed} {shape}")
    for tokens in lanes:
        for chunking, gap in CHUNKINGS.items():
            for style in ENVELOPES:
                deltas = cut(tokens, chunking, rng)
                if len(deltas) < (2 if tool else 8) or (tool and chunking == "lines"):
                    continue
                clean = build(deltas, rng, gap=gap, field="arguments" if tool else "content")
                stream = inject(clean, rng)
                if even:
                    stream = [replace(piece, gap=gap) for piece in stream]
                expected = text_of(clean)
                injected = len(text_of(stream)) - len(expected)
                result = play(write(stream, style))
                if not ours.add(expected, result.only, injected, result.held, style, chunking) and verbose > 0:
                    verbose -= 1
                    print("  FAIL", shape, style, chunking, [piece.text[-24:] for piece in stream[:14]], "->", repr(result.only[:90]))
                if prototype is not None:
                    theirs.add(expected, prototype(stream, style, tool), injected, (), style, chunking)
    return ours, theirs


def measure_clean(lanes: Sequence[Sequence[str]], seed: int) -> int:
    """Clean text: nothing may change, nearly nothing may wait. Returns: streams that did change."""
    rng = random.Random(seed)
    streams = changed = holding = characters = 0
    held: list[float] = []
    for tokens in lanes:
        for chunking, gap in CHUNKINGS.items():
            for style in ENVELOPES:
                blocks = write(build(cut(tokens, chunking, rng), rng, gap=gap), style)
                result = play(blocks)
                streams += 1
                changed += result.raw != b"".join(raw for _, raw in blocks)
                holding += bool(result.held)
                held += result.held
                characters += len(result.only)
    print(
        f"clean, re-chunked: {streams} streams, {characters} characters, {changed} changed, "
        f"{100 * holding / max(1, streams):.2f} % with a hold, longest {1000 * max(held, default=0):.0f} ms"
    )
    total, changed, holding = changed, 0, 0
    files = recordings()
    for path in files:
        raw = path.read_bytes()
        result = play([(0.01 * place, raw[place * 300 : place * 300 + 300]) for place in range(len(raw) // 300 + 1)])
        parser = ChunkParser()
        expected = b"".join(chunk.raw for chunk in [*parser.feed(raw), *parser.close(True)])
        holding += bool(result.held)
        if result.raw != expected:
            print("  changed:", path.name, result.shapes)
            changed += "STUTTER" not in path.name
    print(f"recordings: {len(files)} streams, {changed} changed besides the captured stutter, {holding} with a hold")
    rows = [(row, "content") for row in TEXT] + [(row, "arguments") for row in ARGUMENTS]
    damaged = 0
    for row, field_name in rows:
        streams_of_row = [(gap, style) for gap in (0.0005, 0.06, 0.5) for style in ENVELOPES]
        for gap, style in streams_of_row:
            blocks = write(build(row[2], rng, gap=gap, field=field_name), style)
            damaged += play(blocks).raw != b"".join(raw for _, raw in blocks)
    print(f"hard negatives: {len(rows)} rows x 3 speeds x 4 envelopes, {damaged} damaged")
    return total + changed + damaged


def measure_cost(lanes: Sequence[Sequence[str]]) -> None:
    """Time per event of a clean stream, beyond parsing."""
    rng = random.Random(5)
    tokens = [token for lane in lanes for token in lane]
    for length in (500, 5000, 20000):
        deltas = (tokens * (length // len(tokens) + 1))[:length]
        raw = b"".join(block for _, block in write(build(deltas, rng, gap=0.02), "constant"))
        start = time.perf_counter()
        events = [chunk for chunk in ChunkParser().feed(raw) if isinstance(chunk, Event)]
        parsing = (time.perf_counter() - start) / len(events)
        best = float("inf")
        for _ in range(5):
            buffer, now = SmartBuffer(StutteringDetector()), 0.0
            start = time.perf_counter()
            for event in events:
                buffer.add(event, now)
                now += 0.02
            best = min(best, (time.perf_counter() - start) / len(events))
        print(f"cost: {length} events, {1e6 * best:.2f} us per event (parsing {1e6 * parsing:.2f})")


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--shapes", default="")
    options.add_argument("--lanes", type=int, default=1000)
    options.add_argument("--seed", type=int, default=21)
    options.add_argument("--no-prototype", action="store_true")
    options.add_argument("--failures", type=int, default=0)
    options.add_argument("--even", action="store_true")
    args = options.parse_args()
    lanes = [deltas for _, deltas in text_lanes()][: args.lanes]
    calls = [deltas for _, deltas in argument_lanes() if len("".join(deltas)) > 4]
    calls = [cut_arguments(deltas) for deltas in calls][: args.lanes]
    prototype = None if args.no_prototype else load_prototype()
    print(f"{len(lanes)} recorded text lanes, {len(calls)} recorded calls")
    shapes = args.shapes.split(",") if args.shapes else [*SHAPES, *TOOL_SHAPES, "clean", "cost"]
    wrong = 0
    for shape in shapes:
        if shape == "clean":
            wrong += measure_clean(lanes, args.seed)
        elif shape == "cost":
            measure_cost(lanes)
        else:
            ours, theirs = measure(shape, calls if shape in TOOL_SHAPES else lanes, args.seed, prototype, args.failures, args.even)
            wrong += ours.losing
            groups = " ".join(f"{group}:{ours.share(group)}" for group in (*ENVELOPES, *CHUNKINGS))
            print(f"{shape:6} n={ours.streams:5} {ours.line()}, longest hold {1000 * max(ours.held, default=0):.0f} ms | {groups}")
            if shape in PROVES:
                print(f"       proven by {', '.join(PROVES[shape]) or 'nothing'}")
            if prototype is not None:
                groups = " ".join(f"{group}:{theirs.share(group)}" for group in (*ENVELOPES, *CHUNKINGS))
                print(f"       prototype {theirs.line()} | {groups}")

    print(f"{wrong} streams lost text or were changed without need")
    return min(wrong, 1)


def cut_arguments(deltas: Sequence[str]) -> list[str]:
    """A call's arguments in small pieces, where they came as one."""
    if len(deltas) > 3:
        return list(deltas)
    text = "".join(deltas)
    rng = random.Random(text)
    pieces, at = [], 0
    while at < len(text):
        size = rng.randint(1, 5)
        pieces.append(text[at : at + size])
        at += size
    return pieces


if __name__ == "__main__":
    sys.exit(main())
