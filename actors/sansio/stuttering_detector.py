"""The lanes of one stream: which delta belongs to which, what they share, and when their waiting ends.

Owns the identity of lanes (choice x field, arguments per call), the stream-wide facts that lanes use as evidence (ids, usage,
the last few envelopes) and the counters of what was repaired or refused. Judges no text itself; keeps no queue and no time.
"""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from .chunks import Field, Weight
from .evidence import HISTORY, RESTART_HEAD, RESTART_MARKER
from .lane import Lane
from .shapes import shape_of
from .stream_facts import StreamFacts
from .ticket import Ticket
from .told_once import CallLabels, Finishes
from .trace import Judgement, Reading

if TYPE_CHECKING:
    from .chunks import Delta, Event
    from .hypotheses import Hypothesis
    from .trace import Trace, Verdict
    from .upstream_history import UpstreamHistory

Mode = Literal["off", "observe", "repair"]
Profile = Literal["generic", "dashscope", "portal"]

#: Events that share an id before another one counts as a restart. Guessed; ids that rotate per event never get there.
_CONSTANT_IDS: Final = 3
_LONG_IDS: Final = 16
#: Lanes of a stream at a time; what further ones say passes as it came. OpenAI allows 128 choices, and 128 tools. An upstream that
#: invents choices must not fill the memory: a lane takes 1.3 KB, 25 times what it takes to name one (measured).
LANES: Final = 1024
_ARGUMENTS: Final = frozenset({Field.TOOL_ARGUMENTS, Field.FUNCTION_ARGUMENTS})
_TEXTS: Final = tuple(field for field in Field if field not in _ARGUMENTS)
#: What lanes withheld leaves in the order in which they began.
_number: Final = operator.attrgetter("number")


@dataclass(frozen=True, slots=True)
class StutterPolicy:
    """How one upstream's streams are treated.

    Args:
      mode: "off" looks at nothing, "observe" counts what would be repaired and changes nothing, "repair" repairs.
      profile: what the upstream is known for. "portal" re-sends the head of its streams (Qwen portal), so that a head needs less
        further evidence; never so little that the text alone decides. "dashscope" does the same for half as much.
      threshold: log10 odds against the incremental reading at which text may be dropped; 3.0 is 1000:1.
      prior: log10 odds of a stutter before any evidence. Guessed: one stream in about 300.
      trailer: a comment before [DONE] tells the client what was repaired.
    """

    mode: Mode = "repair"
    profile: Profile = "generic"
    threshold: float = 3.0
    prior: float = -2.5
    trailer: bool = False

    @property
    def head_prior(self) -> float:
        """The prior of a re-sent head. A profile adds at most what a proven repeat adds, and is no factor of its own."""
        return self.prior + {"generic": 0.0, "dashscope": HISTORY.weight / 2, "portal": HISTORY.weight}[self.profile]


class StutteringDetector:
    """Judges the events of one stream in the order in which they came.

    Args:
      history: what the upstream's earlier streams have shown; told of this one by `close`.
      trace: watches every decision, None in production.

    Attributes:
      policy: as given.
      flushes: how many holds ended for which reason: "size", "age", "pattern", "confidence".
      refused: hypotheses that held something and were not proven, by shape.
    """

    def __init__(self, policy: StutterPolicy | None = None, history: UpstreamHistory | None = None, trace: Trace | None = None) -> None:
        self.policy = policy or StutterPolicy()
        self._history = history
        self._trace = trace
        self.flushes: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._facts = StreamFacts(self.policy.threshold, self.policy.prior, self.policy.head_prior)
        self._nonces = self._facts.nonces
        self._lanes: dict[int, dict[tuple[Field, int], Lane]] = defaultdict(dict)  # by choice, then by field and call
        self._open = 0  # of them
        self._opened = 0  # so many were, those that have ended included
        # Those that withhold something, by choice. One event may bring thousands of choices or tool calls: what ends holds must not walk
        # all of them for each.
        self._withholding: dict[int, set[Lane]] = defaultdict(set)
        self._counted: Event | None = None  # the last event that brought text and a counter
        self._id = ""
        self._id_run = 0
        self._id_changes = 0
        self._finished: set[int] = set()
        self._returned: list[Event] = []
        self._labels = CallLabels()
        self._finishes = Finishes()
        # The lane that the last event spoke in, if all it takes to go on there is that the lane finds the text plain: see `passes`.
        self._usual: Lane | None = None
        self._usual_field = Field.CONTENT

    def passes(self, event: Event, now: float) -> bool:
        """Takes the next event if it is no news: one text more in the lane of the last one, which resembles nothing before it, and nothing
        else that is kept of an event. Nearly every event of every stream.

        Returns:
          True if `judge` would have returned None. False if it has to be asked; nothing was taken.
        """
        lane, deltas = self._usual, event.deltas
        if lane is None or len(deltas) != 1:
            return False
        delta = deltas[0]
        if (
            delta.field is not self._usual_field
            or delta.choice != lane.choice
            or event.id != self._id
            or event.completion_tokens is not None
            or event.finished
            or event.calls
            or b'"logprob"' in event.raw
            or not lane.plain(delta.text, event, now)
        ):
            return False
        self._id_run += 1
        return True

    def judge(self, event: Event, now: float) -> Ticket | None:
        """Takes the next event.

        Returns:
          None if it leaves as it came and settles nothing. Otherwise its ticket; older tickets may have been settled as well.
        """
        if event.id != self._id:
            self._change_id(event)
        self._id_run += 1
        ticket = self._judge_calls(event, now) if event.calls else None
        deltas = event.deltas
        self._usual = None
        if deltas:
            if len(deltas) > 1:
                self._facts.begin()
            if self._finished:
                self._forget_finished(event)
            for place, delta in enumerate(deltas):
                lane = self._lanes[delta.choice].get((delta.field, delta.call_index))
                if lane is None or delta.call_id is not None:
                    lane = self._lane_of(delta, lane, now)
                    if lane is None:
                        continue
                if not lane.plain(delta.text, event, now):
                    if ticket is None:
                        ticket = Ticket(event, now)
                    before = lane.hypotheses
                    oldest = lane.held[0].ticket if lane.held else ticket
                    lane.judge(ticket, place, delta, event, now)
                    if self._facts.restarted:
                        self._follow_restart(delta.choice, oldest)
                    self._note_withholding(lane)
                    if self._trace is not None:
                        self._tell(self._trace, delta, lane, before, now)
                    if lane.resolved or lane.refused:
                        self._count(lane)
            if event.completion_tokens is not None:
                self._note_usage(event)
        if b'"logprob"' in event.raw:
            self._facts.recent.append(event)
        if not self._nonces.over:
            self._nonces.note(event)
        if event.finished:
            if self._finishes.is_repeat(event):
                ticket = ticket or Ticket(event, now)
                ticket.dropped = True
            self._finishes.note(event)
            for choice in event.finished:
                self._finished.add(choice)
                self._finish(choice)
                self._labels.finish(choice)
        elif not deltas and event.weight is Weight.OUTPUT:
            # Output that is no text: the start of a tool call, or something we cannot judge. What was said before it is said.
            self._finishes.forget(event.choices)
            for choice in event.choices:
                self._finish(choice)
        elif not event.choices and event.completion_tokens is not None:
            # The usage of the whole answer: the text is over, and what was withheld of it belongs in front.
            for lane in self._all_withholding():
                self._returned += lane.take_back()
                self._note_withholding(lane)
        if self._returned:
            ticket = ticket or Ticket(event, now)
            ticket.returned[:0] = self._returned
            self._returned = []
        if len(deltas) == 1 and self._nonces.over and not self._finished and deltas[0].field not in _ARGUMENTS:
            self._usual = self._lanes[deltas[0].choice].get((deltas[0].field, -1))
            self._usual_field = deltas[0].field
        return ticket

    def release(self, ticket: Ticket, cause: str) -> None:
        """Stops waiting for the decision on one ticket: it leaves as it came, the hypotheses watch on."""
        for lane in self._all_withholding():
            if any(held.ticket is ticket for held in lane.held):
                lane.release(watch=True)
                self.flushes[cause] += 1
                self._note_withholding(lane)

    def finish(self) -> list[Event]:
        """The stream is over, or an error came: every hold ends. Returns: what was withheld for nothing and has to leave first."""
        for lane in self._all_withholding():
            self._end(lane)
        returned, self._returned = self._returned, []
        return returned

    def close(self, repairs: Counter[str], now: float) -> None:
        """The attempt is over: the upstream's history learns what was repaired in it, and how many holds were for nothing."""
        if self._history is not None:
            self._history.note(repairs, self.flushes.total() - self.flushes["confidence"], now)

    # -- tool calls ---------------------------------------------------------------------------------------------------

    def _judge_calls(self, event: Event, now: float) -> Ticket | None:
        """Finds labels that were told before, and ends the lane of a call that another one follows on its index."""
        repeated = []
        for call in event.calls:
            lanes, key = self._lanes[call.choice], (Field.TOOL_ARGUMENTS, call.index)
            lane = lanes.get(key)
            said = lane.last if lane is not None else None
            if not self._labels.is_new(call, said):
                if (label := self._labels.repeated(call, said)) is not None:
                    repeated.append(label)
            elif lane is not None:
                self._end(lanes.pop(key))
                self._open -= 1
        if not repeated:
            return None
        ticket = Ticket(event, now)
        ticket.labels = repeated
        return ticket

    # -- lanes --------------------------------------------------------------------------------------------------------

    def _lane_of(self, delta: Delta, lane: Lane | None, now: float) -> Lane | None:
        """The lane that a delta begins or goes on with, None if there are too many."""
        if lane is not None and (lane.call_id is None or lane.call_id == delta.call_id):
            lane.call_id = delta.call_id
            return lane
        if lane is not None:
            self._end(lane)
        else:
            if delta.field in _ARGUMENTS:
                self._finish(delta.choice)  # a new call: text before it, and the call before it, are complete
            if self._open == LANES:
                return None
            self._open += 1
        if self._history is not None:
            self._facts.head_prior = max(self.policy.head_prior, self.policy.prior + self._history.prior(now))
        self._opened += 1
        new = Lane(self._facts, delta.choice, self._opened, tool=delta.field in _ARGUMENTS, call_id=delta.call_id)
        self._lanes[delta.choice][delta.field, delta.call_index] = new
        return new

    def _note_withholding(self, lane: Lane) -> None:
        if lane.withholds:
            self._withholding[lane.choice].add(lane)
        elif (lanes := self._withholding.get(lane.choice)) is not None:
            lanes.discard(lane)

    def _all_withholding(self) -> list[Lane]:
        return sorted((lane for lanes in self._withholding.values() for lane in lanes), key=_number)

    def _finish(self, choice: int) -> None:
        for lane in sorted(self._withholding.get(choice, ()), key=_number):
            self._end(lane)

    def _end(self, lane: Lane) -> None:
        self._returned += lane.take_back()
        if lane.held:
            lane.finish()
            if not lane.resolved:
                self.flushes["pattern"] += 1
            self._count(lane)
        self._note_withholding(lane)

    def _count(self, lane: Lane) -> None:
        if lane.resolved:
            self.flushes[lane.resolved] += 1
            lane.resolved = ""
        for shape in lane.refused:
            self.refused[shape_of(shape, arguments=lane.tool)] += 1
        lane.refused.clear()

    # -- what lanes share ---------------------------------------------------------------------------------------------

    def _change_id(self, event: Event) -> None:
        if not event.id:
            return
        if self._id:
            self._id_changes += 1
            # Once it was constant for a while; an id that changes again and again rotates, unless each stays for long.
            if self._id_run >= (_CONSTANT_IDS if self._id_changes == 1 else _LONG_IDS):
                self._facts.restarted = True
                for lane in (lane for lanes in self._lanes.values() for lane in lanes.values()):
                    lane.mark(RESTART_MARKER if event.deltas else RESTART_HEAD)
        self._id, self._id_run = event.id, 0

    def _follow_restart(self, choice: int, oldest: Ticket) -> None:
        """A restart is over when all texts of a choice have caught up; where one differs, what the others swallowed is given back too.

        Args:
          oldest: the first event of those that were just looked at; what is given back came before it.
        """
        told = self._lanes[choice]
        lanes = sorted((lane for field in _TEXTS if (lane := told.get((field, -1))) is not None and lane.restart), key=_number)
        states = {lane.restart for lane in lanes}
        if "differs" in states:
            oldest.returned[:0] = [event for lane in lanes for event in lane.take_back()]
            for lane in lanes:
                lane.restart = ""
        elif states == {"caught up"}:
            for lane in lanes:
                lane.caught, lane.restart = None, ""

    def _forget_finished(self, event: Event) -> None:
        """After its finish a choice that speaks again starts afresh: another completion in the same body, or the next turn."""
        for choice in {delta.choice for delta in event.deltas} & self._finished:
            self._finished.discard(choice)
            self._finishes.forget((choice,))
            lanes = self._lanes.pop(choice, {})
            self._open -= len(lanes)
            for lane in lanes.values():
                self._end(lane)  # what it holds goes out: nobody else could settle it

    def _note_usage(self, event: Event) -> None:
        before, self._counted = self._counted, event
        if before is None or before.completion_tokens is None or event.completion_tokens is None:
            return
        was, now = before.completion_tokens, event.completion_tokens
        self._facts.usage_rises += now > was
        self._facts.usage_erratic |= now < was or (now == was and before.deltas != event.deltas)

    # -- telling ------------------------------------------------------------------------------------------------------

    def _tell(self, trace: Trace, delta: Delta, lane: Lane, before: list[Hypothesis], now: float) -> None:
        """Tells a trace which readings of a delta there were and what became of each."""
        proven, lane.committed = lane.committed, None
        after = [hypothesis for hypothesis in lane.hypotheses if hypothesis is not proven]
        gone = [hypothesis for hypothesis in before if hypothesis is not proven and hypothesis not in after]
        told: list[tuple[Hypothesis, Verdict]] = [(hypothesis, "refuted") for hypothesis in gone]
        told += [(proven, "proven")] if proven is not None else []
        told += [(hypothesis, "watched" if hypothesis.shadow else "possible") for hypothesis in after]
        readings = [Reading.of(hypothesis, verdict, arguments=lane.tool) for hypothesis, verdict in told]
        if readings or lane.repeat.name:
            trace.judged(Judgement(delta, lane.repeat, tuple(readings), self.policy.threshold, bool(lane.held)), now)
