"""`make calibrate`: how often clean text looks like stutter, beside the weights that evidence.py gives to that.

    python -m bench.calibrate [--files 3000] [--seed 3]

Clean rates come from text files of this Python installation and from the recordings of the calibration half of the providers
(tests/stutter/texts.py), cut in the six ways of servers; every boundary may be the start of a stream. Stutter rates come from
the same recordings with stutter injected. A weight may be no larger than log10 of stutter rate by clean rate, where the clean rate is the
upper end of what the count allows (95 %; three by the number of chances if none was seen). Exit code 1 if one is.

Classes are as the scorers see a text: what it is made of, whether it brings a separator of its own, how much it says.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from actors.sansio import evidence
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event
from actors.sansio.evidence import NOTHING, Kind
from actors.sansio.hypotheses import Duplicate, Snapshot
from tests.stutter.injections import CHUNKINGS, cumulative, cut, each_again, head_chain
from tests.stutter.texts import passages, recordings, text_lanes
from tests.stutter.wire import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Letters and digits of a text at which a class ends: steps of the scorers.
_STEPS = (4, 12, 24, 128)
#: Characters of the pieces in which very long chunks are counted, to have enough of them.
_LONG = (160, 420)


#: Chunks before one that holds them all (lane.py has the same).
_FEW = 3


class Row(NamedTuple):
    """One class of one factor.

    Args:
      seen, chances: in clean text.
      stutter: share of injected stutter in which the relation is there, of the chances it has.
    """

    factor: str
    kind: str
    seen: int
    chances: int
    stutter: float
    weight: float

    @property
    def clean(self) -> float:
        """Upper end of the clean rate."""
        return (self.seen + 1.65 * math.sqrt(self.seen) if self.seen else 3.0) / max(1, self.chances)

    @property
    def odds(self) -> float:
        return math.log10(self.stutter / self.clean) if self.stutter else 0.0

    @property
    def holds(self) -> bool:
        return self.weight <= self.odds

    def __str__(self) -> str:
        clean = f"{self.seen} of {self.chances}"
        return f"| {self.factor} | {self.kind} | {clean} | {self.stutter:.2f} | {self.odds:.2f} | {self.weight:.2f} |" + " too large" * (
            not self.holds
        )


def class_of(text: str) -> str:
    kind = evidence.kind_of(text)
    if evidence.is_run(text):
        return "run"
    known = evidence.information(text)
    if known >= _STEPS[-1]:
        return "any text, from 128 letters"
    if any("\u2e7f" < character < "\ua000" for character in text):
        return "Chinese or Japanese"
    step = sum(known >= step for step in _STEPS)
    size = f", {_STEPS[step - 1] if step else 0} to {_STEPS[step] - 1} letters"
    if kind is Kind.WORD and text.endswith("\n"):
        return "line" + size
    return ("glued " if evidence.glued(text) else "") + kind.name.lower() + (size if kind is Kind.WORD else "")


class Counts:
    """Chances and relations by class, with the largest weight that any text of the class is given."""

    def __init__(self, factor: str, weigh: Callable[..., float]) -> None:
        self.factor = factor
        self.weigh = weigh
        self.chances: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.stutter: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        self.weights: dict[str, float] = {}

    def weighed(self, kind: str, *text: object) -> None:
        self.weights[kind] = max(self.weights.get(kind, 0.0), self.weigh(*text))

    def rows(self) -> Iterable[Row]:
        for kind in sorted(self.weights):
            seen, chances = self.stutter[1][kind], self.stutter[0][kind]
            yield Row(self.factor, kind, self.seen[kind], self.chances[kind], seen / chances if chances else 1.0, self.weights[kind])


def extension_of(before: str, text: str) -> str:
    """How a text goes on behind another one."""
    rest = text[len(before) :]
    if not (before[-1].isalnum() and rest[0].isalnum()):
        return ", then goes on"
    return ", continued" if rest[:3].isalpha() and len(rest) >= 3 else ", continued by a letter or two"


class Tally:
    """Everything that is counted."""

    def __init__(self) -> None:
        self.head = Counts("equals the lane's first chunk (head_similarity)", evidence.head_similarity)
        self.doubled = Counts("equals its neighbour (doubled)", evidence.doubled)
        self.single = Counts("equals its neighbour (content_similarity)", evidence.content_similarity)
        self.first = Counts("extends its neighbour (prefix_pattern)", lambda before, text: evidence.prefix_pattern(before, text, 0))
        self.chains: list[float] = []
        self.pairs: dict[int, list[float]] = {2: [], 3: []}
        self.starts = 0
        self.whole: Counter[str] = Counter()
        self._classes: dict[str, str] = {}

    def class_of(self, text: str) -> str:
        if len(text) > 16:
            return class_of(text)
        if text not in self._classes:
            self._classes[text] = class_of(text)
        return self._classes[text]

    def add_clean(self, deltas: Sequence[str]) -> None:
        """Counts neighbours, and what the hypotheses make of every start."""
        self.starts += len(deltas)
        for place, (before, text) in enumerate(pairwise(deltas)):
            kind = self.class_of(before)
            counts = (self.head, self.doubled, self.single)
            for one in counts:
                one.chances[kind] += 1
            self.first.chances[kind] += 1
            if kind not in self.head.weights or len(before) > 16:
                for one in counts:
                    one.weighed(kind, before)
                self.first.weighed(kind + ", then goes on", before, before + ", xyz")
            if not text.startswith(before):
                continue
            if text == before:
                for one in counts:
                    one.seen[kind] += 1
                for times in self.pairs:
                    self._score_groups(deltas, place, times)
            else:
                how = kind + extension_of(before, text)
                self.first.seen[how] += 1
                self.first.weighed(how, before, text)
            if place + 2 < len(deltas) and deltas[place + 2].startswith(text):
                self._score_chain(deltas[place : place + 8])

    def _score_chain(self, deltas: Sequence[str]) -> None:
        chain = Snapshot(0.0, deltas[0], deltas[1], NOTHING, head=True)
        best = 0.0
        for text in deltas[2:]:
            if chain.follow(text, NOTHING) is None:
                break
            if chain.relations >= 2:
                best = max(best, chain.score)
        self.chains.append(best)

    def _score_groups(self, deltas: Sequence[str], place: int, times: int) -> None:
        groups = Duplicate(0.0, deltas[place], times, NOTHING, from_start=True)
        best = 0.0
        for text in deltas[place + 2 :]:
            if groups.follow(text, NOTHING) is None:
                break
            if groups.relations >= 2 and groups.count == times:
                best = max(best, groups.score)
        self.pairs[times].append(best)

    def add_wholes(self, deltas: Sequence[str]) -> None:
        """Chunks that hold all text so far, of a stream that begins with the first of these."""
        whole, longest = "", 0
        for count, text in enumerate(deltas[:400]):
            if count >= _FEW:
                self.whole["chunks"] += 1
                if text.startswith(whole) and evidence.size_outlier(text, whole, longest, count).weight:
                    self.whole["size"] += 1
            whole += text
            longest = max(longest, len(text))
        if len(deltas) > _FEW:
            self.whole["ends"] += 1
            self.whole["finish"] += deltas[-1] == "".join(deltas[:-1])

    def add_long(self, text: str, rng: random.Random) -> None:
        """Counts neighbours among pieces of a text so long that they are worth most."""
        at, before = 0, ""
        while at < len(text):
            piece = text[at : at + rng.randint(*_LONG)]
            if before and (kind := self.class_of(before)).endswith("from 128 letters"):
                for one in (self.head, self.doubled, self.single, self.first):
                    one.chances[kind] += 1
                    one.seen[kind] += piece == before
                self.first.seen[kind] -= piece == before
                self.first.seen[kind + ", then goes on"] += piece.startswith(before) and piece != before
            at, before = at + len(piece), piece

    def add_injected(self, deltas: Sequence[str], rng: random.Random) -> None:
        clean = build(deltas, rng, gap=0.02)
        for counts, stream in (
            (self.head, [piece.text for piece in head_chain(clean, rng) if piece.text][:2]),
            (self.doubled, [piece.text for piece in each_again(clean, rng) if piece.text]),
            (self.single, [piece.text for piece in each_again(clean, rng) if piece.text]),
        ):
            for before, text in zip(stream[::2], stream[1::2], strict=False):
                kind = self.class_of(before)
                counts.stutter[0][kind] += 1
                counts.stutter[1][kind] += text == before
        for before, text in pairwise(piece.text for piece in cumulative(clean[:60], rng) if piece.text):
            how = self.class_of(before) + extension_of(before, text)
            self.first.stutter[0][how] += 1
            self.first.stutter[1][how] += text.startswith(before)

    def rows(self) -> list[Row]:
        rows = [row for counts in (self.head, self.doubled, self.single) for row in counts.rows()]
        for kind in self.first.weights:
            self.first.chances[kind] = self.first.chances[kind.split(", then")[0].split(", continued")[0]]
        rows += self.first.rows()
        sums = {"two relations of a chain": self.chains, "chunks doubled in a row": self.pairs[2], "chunks tripled in a row": self.pairs[3]}
        for name, scores in sums.items():
            for weight in (2.0, 3.0, 4.0, 5.0, 5.5, 6.0):
                count = sum(score >= weight for score in scores)
                rows.append(Row(name, f"sum from {weight:g}", count, self.starts, 1.0, min(weight, _allowed(self.starts))))
        rows.append(Row("holds all text so far (size_outlier)", "all", self.whole["size"], self.whole["chunks"], 1.0, 6.0))
        rows.append(
            Row("is the last chunk and all text (FINISH)", "all", self.whole["finish"], self.whole["ends"], 1.0, evidence.FINISH.weight)
        )
        return rows


def _allowed(chances: int) -> float:
    """The most that no sighting in so many chances can show."""
    return math.log10(max(1, chances) / 3)


def count_replays(texts: Iterable[Sequence[str]], rng: random.Random) -> list[Row]:
    """How much of their beginnings two paragraphs of one text have in common: what a restart that is none would reproduce."""
    needed = {"alone": 3.0 - evidence.RESTART_MARKER.weight, "with its head": 3.0 - evidence.RESTART_HEAD.weight}
    reached: Counter[str] = Counter()
    chances = 0
    for tokens in texts:
        paragraphs = [part for part in "".join(tokens).split("\n\n") if len(part) >= 24]
        if len(paragraphs) < 4:
            continue
        for _ in range(40):
            one, other = rng.sample(paragraphs, 2)
            chances += 1
            common = evidence.replayed_text(one[: evidence.shared_prefix(one, other)])
            for name, weight in needed.items():
                reached[name] += common >= weight
    return [
        Row("text after a restart (replayed_text)", f"marker {name}", reached[name], chances, 1.0, weight)
        for name, weight in needed.items()
    ]


def count_envelopes() -> list[str]:
    """What the recordings say of evidence that no text can measure: contradictions, which have to be none."""
    usage, still, nonces, same = 0, 0, 0, 0
    for path in recordings("calibration"):
        parser = ChunkParser()
        events = [chunk for chunk in [*parser.feed(path.read_bytes()), *parser.close(True)] if isinstance(chunk, Event) and chunk.deltas]
        for before, event in pairwise(events):
            if before.completion_tokens and event.completion_tokens:
                usage += 1
                still += before.completion_tokens == event.completion_tokens
            if b'"obfuscation"' in before.data and b'"obfuscation"' in event.data:
                nonces += 1
                same += before.data == event.data
    return [
        f"usage: {still} of {usage} recorded neighbours with a counter left it where it was",
        f"nonce: {same} of {nonces} recorded neighbours with padding are byte for byte the same",
    ]


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="bench.calibrate")
    options.add_argument("--files", type=int, default=3000)
    options.add_argument("--seed", type=int, default=3)
    args = options.parse_args(arguments)
    rng, tally = random.Random(args.seed), Tally()
    lanes = [deltas for _, deltas in text_lanes("calibration")]
    texts = list(passages("calibration", args.files, rng))
    for tokens in [*lanes, *texts]:
        for chunking in CHUNKINGS:
            deltas = cut(tokens, chunking, rng)
            tally.add_clean(deltas)
            for _ in range(3):
                tally.add_wholes(deltas[rng.randrange(max(1, len(deltas) - 8)) :])
    for tokens in passages("calibration", 2 * args.files, rng, length=200_000):
        tally.add_long("".join(tokens), rng)
    for tokens in lanes:
        for chunking in CHUNKINGS:
            deltas = cut(tokens, chunking, rng)
            if len(deltas) >= 8:
                tally.add_injected(deltas, rng)
    rows = [*tally.rows(), *count_replays(texts, rng)]
    print(f"{len(texts)} passages, {len(lanes)} recorded lanes, {tally.starts} chunks; seed {args.seed}")
    print("| factor | class | clean | stutter | log10 odds | weight used |\n|---|---|---|---|---|---|")
    print("\n".join(map(str, rows)))
    print("\n".join(count_envelopes()))
    wrong = [row for row in rows if not row.holds]
    print(f"{len(wrong)} of {len(rows)} weights are larger than the measured odds allow")
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
