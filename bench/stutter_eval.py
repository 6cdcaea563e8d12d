"""`make eval`: how much stutter is repaired, that nothing else is touched, and what that costs; the prototype beside it on the same data.

    python -m bench.stutter_eval [--all] [--lanes 6] [--shapes A1,B2] [--no-prototype] [--seed 21] [--even] [--failures 5] [--svg FILE]

Judged on the recordings of the evaluation half of the providers only (tests/stutter/texts.py); --all takes both. Recordings come from
../shared/corpus, or from what the repository ships where that is absent. Copies come within a millisecond of what they repeat, as one
write does; with --even after a whole chunk's time. Exit code 1 if a target is missed, unless only by streams that no detector could
tell apart (bench/undecidable.py), or if any text was lost or any clean stream changed.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.stutter.injections import PROVES, SHAPES, TOOL_SHAPES
from tests.stutter.texts import RECORDINGS, argument_lanes, passages, recordings, text_lanes
from tests.stutter.wire import ENVELOPES

from . import prototype as prototypes
from .stutter_measure import (
    Both,
    Clean,
    Lanes,
    fragments,
    measure_clean,
    measure_cost,
    measure_negatives,
    measure_recordings,
    measure_shape,
)
from .stutter_plot import plot
from .undecidable import UNDECIDABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.stutter.texts import Half

    from .prototype import Prototype


#: Chunkings of which two chunks that come twice fit into a hold; of lines and large pieces only one does.
_SHORT: Final = ("tokens", "digits", "groups", "bursts")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `reached` is "yes", "no", or yes for what can be decided."""

    measure: str
    prototype: str
    ours: str
    must: str
    reached: str

    def __str__(self) -> str:
        return f"| {self.measure} | {self.prototype} | {self.ours} | {self.must} | {self.reached} |"


def yes(reached: bool) -> str:
    return "yes" if reached else "**no**"


def exact_row(
    shapes: Mapping[str, Both], names: tuple[str, ...], targets: tuple[float, ...], groups: tuple[str, ...] = (), leak: float = 0.0
) -> Row:
    """How many streams of some shapes are repaired exactly.

    Args:
      targets: in %, one per shape.
      groups: only the streams in these envelopes.
      leak: how much of the injected text may reach the client, in %; 0 asks nothing.
    """
    ours = [shapes[name].ours for name in names]
    theirs = [shapes[name].prototype for name in names]
    told, reached = [], []
    for score, target in zip(ours, targets, strict=True):
        share = score.share(*groups)
        decidable = score.decidable if score.undecidable and not groups else share
        told.append(f"{share:.1f}" + (f" ({decidable:.1f} of the decidable)" if decidable != share else ""))
        enough = share >= target and (not leak or score.leak < leak)
        reached.append("yes" if enough else "all that can be decided" if decidable >= target and not leak else "**no**")
    now = ", ".join(told) + ("; leak " + ", ".join(f"{score.leak:.2f}" for score in ours) if leak else "")
    measured = any(score.streams for score in theirs)
    before = ", ".join(f"{score.share(*groups):.1f}" for score in theirs) if measured else "-"
    if leak and measured:
        before += "; leak " + ", ".join(f"{score.leak:.2f}" for score in theirs)
    worst = max(reached, key=("yes", "all that can be decided", "**no**").index)
    must = ", ".join(f"{target:g}" for target in targets) + (f"; leak < {leak:g}" if leak else "")
    with_proof = " with " + " or ".join(groups) if groups else ""
    return Row(f"{', '.join(names)} exact{with_proof}, %", before, now, must, worst)


def shape_rows(shapes: Mapping[str, Both]) -> list[Row]:
    rows = [exact_row(shapes, ("A1", "A2", "A3"), (100, 99, 95))]
    rows.append(exact_row(shapes, ("B1",), (100,), PROVES["B1"]))
    rows.append(exact_row(shapes, ("B2", "B3"), (99, 99)))
    rows.append(exact_row(shapes, ("C1", "C2"), (97, 97), leak=0.1))
    rows.append(exact_row(shapes, ("C3",), (92,), leak=0.3))
    rows.append(exact_row(shapes, ("E1", "F1"), (99, 99)))
    rows.append(exact_row(shapes, ("G1", "G2", "G2 {}", "G2 x3"), (100,) * 4))
    rows.append(exact_row(shapes, ("G4", "G4 x3"), (98, 98)))
    rows.append(exact_row(shapes, ("G3", "H1"), (100, 100)))
    rows.append(exact_row(shapes, ("D1", "D2"), (100, 100), PROVES["D1"]))
    unproven = [(shapes[name], tuple(style for style in ENVELOPES if style not in PROVES[name])) for name in ("B1", "D1", "D2", "F2")]
    ours = sum(both.ours.by[style][0] for both, styles in unproven for style in styles)
    theirs = sum(both.prototype.by[style][0] for both, styles in unproven for style in styles)
    losing = sum(both.ours.losing for both, _ in unproven), sum(both.prototype.losing for both, _ in unproven)
    rows.append(
        Row(
            "B1, D1, D2, F2 without proof: repaired / losing text",
            f"{theirs} / {losing[1]}",
            f"{ours} / {losing[0]}",
            "0 / 0",
            yes(not ours + losing[0]),
        )
    )
    k1 = shapes["K1"]
    before, now = (f"{score.losing} / {score.leak:.2f}" for score in (k1.prototype, k1.ours))
    rows.append(Row("K1 streams losing text / leak, %", before, now, "0 / < 2", yes(not k1.ours.losing and k1.ours.leak < 2)))
    before, now = (str(sum(losing)) for losing in zip(*((b.prototype.losing, b.ours.losing) for b in shapes.values()), strict=True))
    rows.append(Row("streams that lose any text, any shape", before, now, "0", yes(now == "0")))
    return rows


def even_row(lanes: Lanes, seed: int, prototype: Prototype | None) -> Row:
    """Copies that take as long as new text, where two pairs fit into a hold at all: nobody asked for it, but servers may do it."""
    names = ("C1", "C2", "C3")
    both = [measure_shape(name, lanes, seed, prototype, even=True, chunkings=_SHORT) for name in names]
    before, now = (
        ", ".join(f"{score.share():.1f}" for score in scores) + "; leak " + ", ".join(f"{score.leak:.2f}" for score in scores)
        for scores in ([one.prototype for one in both], [one.ours for one in both])
    )
    losing = sum(one.ours.losing for one in both)
    return Row("C1, C2, C3 exact, copies a chunk's time later (20 to 60 ms), %", before, now, "0 lose text", yes(not losing))


def clean_rows(lanes: Lanes, texts: Lanes, whole: bool, seed: int, prototype: Prototype | None) -> list[Row]:
    """Clean streams: recorded lanes in every envelope, recorded bodies, passages of text files."""
    sets: list[tuple[str, Clean, Clean]] = []
    sets.append(("recorded lanes re-chunked", *measure_clean(lanes, seed, prototype, every_envelope=True)))
    sets.append(("recorded bodies", measure_recordings(recordings(None if whole else "evaluation")), Clean()))
    sets.append(("text files re-chunked", *measure_clean(texts, seed, prototype, every_envelope=False)))
    for name, ours, _ in sets:
        print(f"clean, {name}: {ours.streams} streams, {ours.characters} characters, {ours.holding} with a hold, {ours.changed} changed")
    theirs, ours_too = [one for _, _, one in sets], [one for _, one, _ in sets]
    before, now = (f"{sum(one.changed for one in all_)} / {sum(one.lost for one in all_)}" for all_ in (theirs, ours_too))
    rows = [Row("clean streams changed / characters lost, any set", before, now, "0 / 0", yes(now == "0 / 0"))]
    holds = [[100 * one.holding / max(1, one.streams) for one in (all_[0], all_[2])] for all_ in (theirs, ours_too)]
    longest = [max(one.longest for one in all_) for all_ in (theirs, ours_too)]
    before, now = (
        f"{', '.join(f'{share:.2f}' for share in shares)}; {1000 * wait:.0f}" for shares, wait in zip(holds, longest, strict=True)
    )
    what = "clean streams with a hold (recorded, text files), %; longest, ms"
    rows.append(Row(what, before, now, "< 1.5; 400", yes(max(holds[1]) < 1.5 and longest[1] <= 0.4)))
    return rows


def other_rows(lanes: Lanes, negatives: int, prototype: Prototype | None) -> list[Row]:
    count, damaged, given, hurt = measure_negatives(prototype, negatives)
    rows = [
        Row("hard negatives damaged", f"{hurt} of {given}", f"{damaged} of {count}", "0 of at least 228", yes(not damaged and count >= 228))
    ]
    costs = {style: measure_cost(lanes, prototype if style == "constant" else None, style) for style in ENVELOPES}
    cost = costs["constant"]
    worst = max(costs, key=lambda style: costs[style].ratio)
    growth = max(one.last / one.first for one in costs.values())
    dearest = costs[worst].ratio
    told = f"{cost.ratio:.1f} x, at most ({worst}) {dearest:.1f} x; its last tenth {growth:.2f} x as much as its first"
    before = f"{cost.prototype / cost.decode:.0f} x" if prototype is not None else "-"
    what = f"cost of a clean event beyond parsing, as typed msgspec decodes of it; stream of {cost.events} events"
    rows.append(Row(what, before, told, "<= 5 x; flat", yes(dearest <= 5 and growth < 1.5)))
    for style, one in costs.items():
        print(f"cost per event, {style}: {1e6 * one.first:.2f} us, {1e6 * one.last:.2f} at the end; decode {1e6 * one.decode:.2f}")
    return rows


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="bench.stutter_eval")
    options.add_argument("--all", action="store_true", help="both halves of the providers")
    options.add_argument("--shapes", default="", help="only these, in detail; no verdict")
    options.add_argument("--lanes", type=int, default=1000, help="at most so many recorded lanes")
    options.add_argument("--files", type=int, default=250, help="text files for the clean set")
    options.add_argument("--negatives", type=int, default=1000, help="at most so many hard negatives")
    options.add_argument("--seed", type=int, default=21)
    options.add_argument("--no-prototype", action="store_true")
    options.add_argument("--failures", type=int, default=0, help="streams that were not exact to print, per shape")
    options.add_argument("--even", action="store_true")
    options.add_argument("--svg", type=Path, help="a plot of the exact repairs")
    args = options.parse_args(arguments)
    half: Half | None = None if args.all else "evaluation"
    lanes = [deltas for _, deltas in text_lanes(half)][: args.lanes]
    calls = [fragments(deltas) for _, deltas in argument_lanes(half) if len("".join(deltas)) > 4][: args.lanes]
    prototype = None if args.no_prototype else prototypes.load()
    start = time.monotonic()
    source = "../shared/corpus" if RECORDINGS[0].is_dir() else "tests/recordings and Python's manual"
    where = f"{platform.machine()}, Python {platform.python_version()}"
    print(f"{source}, {half or 'both halves'}: {len(lanes)} text lanes, {len(calls)} calls; seed {args.seed}; {where}")
    chosen = args.shapes.split(",") if args.shapes else [*SHAPES, *TOOL_SHAPES]
    shapes: dict[str, Both] = {}
    for shape in chosen:
        shapes[shape] = measure_shape(
            shape, calls if shape in TOOL_SHAPES else lanes, args.seed, prototype, even=args.even, failures=args.failures
        )
        score = shapes[shape].ours
        groups = " ".join(f"{name} {score.share(name):.0f}" for name in score.by)
        print(f"{shape:6} n={score.streams:5} {score.share():6.2f} % exact, leak {score.leak:.2f} %, {score.losing} lose text | {groups}")
    if args.shapes:
        return int(any(both.ours.losing for both in shapes.values()))
    texts = list(passages("evaluation", args.files, random.Random(args.seed), length=3_000))
    clean, *holds = clean_rows(lanes, texts, args.all, args.seed, prototype)
    negatives, *cost = other_rows(lanes, args.negatives, prototype)
    shaped = shape_rows(shapes)
    rows = [clean, negatives, *shaped[:5], even_row(lanes, args.seed, prototype), *shaped[5:], *holds, *cost]
    if prototype is None:
        rows = [replace(row, prototype="-") for row in rows]
    print("\n| measure | prototype | ours | must reach | reached |\n|---|---|---|---|---|")
    print("\n".join(map(str, rows)))
    for entry in UNDECIDABLE:
        count = sum(both.ours.undecidable[entry.name] for both in shapes.values())
        of = sum(shapes[shape].ours.streams for shape in entry.shapes)
        print(f"\nnot decidable, {entry.name} ({', '.join(entry.shapes)}): {count} of {of} streams; {entry.why}")
    print(f"\n{time.monotonic() - start:.0f} s")
    if args.svg is not None:
        args.svg.parent.mkdir(parents=True, exist_ok=True)
        args.svg.write_text(plot(shapes), "utf-8")
    return int(any(row.reached == yes(False) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
