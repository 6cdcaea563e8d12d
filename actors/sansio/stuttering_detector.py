"""The lanes of one stream: which delta belongs to which, what they share, and when their waiting ends.

Owns the identity of lanes (choice x field, arguments per call), the stream-wide facts that lanes use as evidence (ids, usage,
the last few envelopes) and the counters of what was repaired or refused. Judges no text itself; keeps no queue and no time.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from .chunks import Field, Weight
from .evidence import HISTORY, StreamFacts
from .lane import Lane, Ticket

if TYPE_CHECKING:
    from .chunks import Delta, Event

Mode = Literal["off", "observe", "repair"]
Profile = Literal["generic", "dashscope", "portal"]

#: Events that share an id before another one counts as a restart. Guessed; ids that rotate per event never get there.
_CONSTANT_IDS: Final = 3
#: Envelopes kept to prove a nonce: four that differ pairwise.
_RECENT: Final = 4
_ARGUMENTS: Final = frozenset({Field.TOOL_ARGUMENTS, Field.FUNCTION_ARGUMENTS})


@dataclass(frozen=True, slots=True)
class StutterPolicy:
    """How one upstream's streams are treated.

    Args:
      mode: "off" looks at nothing, "observe" counts what would be repaired and changes nothing, "repair" repairs.
      profile: what the upstream is known for. "portal" re-sends the head of its streams (Qwen portal), so that a head needs less
        further evidence; never so little that the text alone decides. "dashscope" does the same for half as much.
      threshold: log10 odds against the incremental reading at which text may be dropped; 3.0 is 1000:1.
      prior: log10 odds of a stutter before any evidence. Guessed: one stream in about 300.
    """

    mode: Mode = "repair"
    profile: Profile = "generic"
    threshold: float = 3.0
    prior: float = -2.5

    @property
    def head_prior(self) -> float:
        """The prior of a re-sent head. A profile adds at most what a proven repeat adds, and is no factor of its own."""
        return self.prior + {"generic": 0.0, "dashscope": HISTORY.weight / 2, "portal": HISTORY.weight}[self.profile]


class StutteringDetector:
    """Judges the events of one stream in the order in which they came.

    Attributes:
      policy: as given.
      flushes: how many holds ended for which reason: "size", "age", "pattern", "confidence".
      refused: hypotheses that held something and were not proven, by shape.
    """

    def __init__(self, policy: StutterPolicy | None = None) -> None:
        self.policy = policy or StutterPolicy()
        self.flushes: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._facts = StreamFacts(self.policy.threshold, self.policy.prior, self.policy.head_prior)
        self._lanes: dict[tuple[int, str, int], Lane] = {}
        self._recent: deque[Event] = deque(maxlen=_RECENT)
        self._facts.recent = self._recent
        self._id = ""
        self._id_run = 0
        self._finished: dict[int, str] = {}

    def judge(self, event: Event, now: float) -> Ticket | None:
        """Takes the next event.

        Returns:
          None if it leaves as it came and settles nothing. Otherwise its ticket; older tickets may have been settled as well.
        """
        if event.id != self._id:
            self._change_id(event.id)
        self._id_run += 1
        ticket = None
        deltas = event.deltas
        if deltas:
            if self._finished:
                self._forget_finished(event)
            for place, delta in enumerate(deltas):
                lane = self._lanes.get((delta.choice, delta.field, delta.call_index))
                if lane is None or delta.call_id is not None:
                    lane = self._lane_of(delta, lane)
                if not lane.plain(delta.text, event, now):
                    if ticket is None:
                        ticket = Ticket(event, now)
                    lane.judge(ticket, place, delta, event, now)
                    if lane.resolved or lane.refused:
                        self._count(lane)
            if event.completion_tokens is not None and self._recent:
                self._note_usage(event, self._recent[-1])
            self._recent.append(event)
        if event.finished:
            for choice in event.finished:
                self._finished[choice] = event.id
                self._finish(choice)
        elif not deltas and event.weight is Weight.OUTPUT:
            # Output that is no text: the start of a tool call, or something we cannot judge. What was said before it is said.
            for choice in event.choices:
                self._finish(choice)
        return ticket

    def release(self, ticket: Ticket, cause: str) -> None:
        """Stops waiting for the decision on one ticket: it leaves as it came, the hypotheses watch on."""
        for lane in self._lanes.values():
            if any(held.ticket is ticket for held in lane.held):
                lane.release(watch=True)
                self.flushes[cause] += 1

    def finish(self) -> None:
        """The stream is over, or an error came: every hold ends."""
        for lane in self._lanes.values():
            self._end(lane)

    # -- lanes --------------------------------------------------------------------------------------------------------

    def _lane_of(self, delta: Delta, lane: Lane | None) -> Lane:
        if lane is not None and (lane.call_id is None or lane.call_id == delta.call_id):
            lane.call_id = delta.call_id
            return lane
        if lane is not None:
            self._end(lane)
        elif delta.field in _ARGUMENTS:
            self._finish(delta.choice)  # a new call: text before it, and the call before it, are complete
        new = Lane(self._facts, tool=delta.field in _ARGUMENTS, call_id=delta.call_id)
        self._lanes[delta.choice, delta.field, delta.call_index] = new
        return new

    def _finish(self, choice: int) -> None:
        for key, lane in self._lanes.items():
            if key[0] == choice:
                self._end(lane)

    def _end(self, lane: Lane) -> None:
        if lane.held:
            lane.finish()
            if not lane.resolved:
                self.flushes["pattern"] += 1
            self._count(lane)

    def _count(self, lane: Lane) -> None:
        if lane.resolved:
            self.flushes[lane.resolved] += 1
            lane.resolved = ""
        for shape in lane.refused:
            self.refused[shape] += 1
        lane.refused.clear()

    # -- what lanes share ---------------------------------------------------------------------------------------------

    def _change_id(self, new: str) -> None:
        if not new:
            return
        if self._id and self._id_run >= _CONSTANT_IDS:
            for lane in self._lanes.values():
                lane.mark()
        self._id, self._id_run = new, 0

    def _forget_finished(self, event: Event) -> None:
        """After a finish, a new id begins a new completion in the same body: its choices start afresh."""
        for choice, finished_id in list(self._finished.items()):
            if event.id != finished_id and any(delta.choice == choice for delta in event.deltas):
                del self._finished[choice]
                for key in [key for key in self._lanes if key[0] == choice]:
                    self._end(self._lanes.pop(key))  # what it holds goes out: nobody else could settle it

    def _note_usage(self, event: Event, before: Event) -> None:
        was, now = before.completion_tokens, event.completion_tokens
        if was is None or now is None:
            return
        if now > was:
            self._facts.usage_rose = True
        elif before.deltas != event.deltas:
            self._facts.usage_stuck = True
