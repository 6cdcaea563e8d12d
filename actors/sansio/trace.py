"""Trace: who may watch a stream machine decide. `evenflow replay` prints what it is told here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from .shapes import shape_of

if TYPE_CHECKING:
    from .chunks import Delta
    from .evidence import Evidence
    from .hypotheses import Hypothesis
    from .loop_guard import Loop
    from .smart_buffer import Released
    from .stream_state import StreamEvent, StreamState

Verdict = Literal["possible", "watched", "refuted", "proven"]


class Reading(NamedTuple):
    """One hypothesis after one delta.

    Args:
      shape: the stutter that it would be.
      odds: log10 odds against the incremental reading.
      prior: the part of the odds that no finding gave: what was believed beforehand, of the upstream too, and what only breaks ties.
      findings: what was scored so far; "text" is a pair of chunks.
      relations: informative pairs of chunks.
      factors: independent factors beside the text.
      verdict: "watched" is possible, but holds nothing any more.
    """

    shape: str
    odds: float
    prior: float
    findings: tuple[Evidence, ...]
    relations: int
    factors: tuple[str, ...]
    verdict: Verdict

    @classmethod
    def of(cls, hypothesis: Hypothesis, verdict: Verdict, *, arguments: bool) -> Reading:
        findings = tuple(hypothesis.findings)
        odds = hypothesis.score + (hypothesis.lean if hypothesis.factors else 0.0)
        prior = odds - sum(found.weight for found in findings)
        shape = shape_of(hypothesis.shape, arguments=arguments)
        return cls(shape, odds, prior, findings, hypothesis.relations, tuple(sorted(hypothesis.factors)), verdict)


class Judgement(NamedTuple):
    """What was made of one delta that equals or extends what came before it, or that follows one that does.

    Args:
      envelope: what the envelopes say of a text that equals the one before it; its name is "" if they say nothing.
      threshold: log10 odds that a drop needs, beside two factors.
      held: the lane holds something after it.
    """

    delta: Delta
    envelope: Evidence
    readings: tuple[Reading, ...]
    threshold: float
    held: bool


class Trace(Protocol):
    """What a machine and its detector tell while they decide."""

    def judged(self, one: Judgement, now: float) -> None:
        """A delta was weighed."""

    def released(self, one: Released, now: float) -> None:
        """The buffer let a chunk go, perhaps changed or emptied."""

    def advanced(self, before: StreamState, event: StreamEvent, after: StreamState, now: float) -> None:
        """The state changed."""

    def looped(self, loop: Loop, now: float) -> None:
        """The model repeats itself."""
