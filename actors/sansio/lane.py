"""One lane: the text of one field of one choice, and the readings of it that are still possible.

Owns which of a lane's deltas are settled, and as what. Knows nothing of other lanes, of the order of events, or of how long a
hold may last; SmartBuffer tells it when to stop waiting (`release`).

Theory of operation. A lane is *calm* as long as no delta equals or extends what came before it; a calm lane has no hypotheses
and costs two comparisons per delta, however long it grows. On a relation it spawns hypotheses and holds. A held delta is
settled from the front as soon as all live hypotheses would send all of it. When one passes its threshold it is committed: what
is held is settled as it says, and if it describes a whole stream (not just a repeated head) it becomes the lane's mode, which
decides each later delta at once until one contradicts it. When time or room runs out, or the stream ends, what is held goes
out as it came. Whatever went out is never taken back: a hypothesis that says otherwise about a settled delta is dropped.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Final, Literal, cast

from . import envelope, evidence
from .evidence import GRAMMAR, HISTORY, NEVER, NOTHING, Evidence
from .hypotheses import Duplicate, Hypothesis, Replay, Snapshot
from .shapes import shape_of
from .transcript import KEPT, Transcript

if TYPE_CHECKING:
    from .chunks import Delta, Event
    from .stream_facts import StreamFacts
    from .ticket import Ticket

_FEW: Final = 3  # chunks of a lane before a copy of all of them stands out
_REPLAY_AT_LEAST: Final = 6  # characters of a lane before a restart is looked for
_PIECE: Final = 4  # characters of a lane's longest delta from which on its deltas are more than characters ("l", "l" in "hello")
_BEGINNING: Final = 16  # characters in which the snapshots of a lane agree that was cumulative before; a revision changes the tail


#: "waiting" to be told again, being told "again", "caught up" with what it was, or something else: "differs".
Restart = Literal["", "waiting", "again", "caught up", "differs"]


class _Held:
    __slots__ = ("came", "place", "shape", "text", "ticket")

    def __init__(self, ticket: Ticket, place: int, came: str, text: str, shape: str) -> None:
        self.ticket = ticket
        self.place = place
        self.came = came
        self.text = text  # what the incremental reading sends: the delta's own text, "" if it is a proven re-delivery
        self.shape = shape  # how to name that


class Lane:
    """The hypotheses of one lane and what they hold.

    Args:
      facts: shared with the stream's other lanes.
      choice: whose text it is.
      number: its place in the order in which the lanes of its stream began.
      tool: the text is tool-call arguments, so JSON's grammar speaks too.

    Attributes:
      calm: nothing is held, watched or committed: `plain` may take the next delta.
      length: characters of the lane's text, held ones included.
      last: the last delta as it came.
      resolved: why the latest hold ended ("confidence", "pattern"), "" if none did since the caller cleared it.
      refused: shapes of hypotheses that held something and then were dropped, since the caller cleared it.
      committed: the reading that was proven, None if none was since the caller cleared it.
      restart: where the text stands after a new id; "" if there was none, or it is over.
      caught: the replay that has swallowed all of the text again, until more comes or the restart is over.
      repeat: what the envelope said of the latest delta, if that equalled the one before it.
    """

    __slots__ = (
        "_before_at",
        "_last_event",
        "_longest",
        "call_id",
        "calm",
        "caught",
        "choice",
        "committed",
        "count",
        "cumulative",
        "facts",
        "held",
        "hypotheses",
        "last",
        "last_at",
        "length",
        "marked",
        "mode",
        "number",
        "refused",
        "repeat",
        "resolved",
        "restart",
        "run",
        "text",
        "tool",
    )

    def __init__(self, facts: StreamFacts, choice: int = 0, number: int = 0, *, tool: bool = False, call_id: str | None = None) -> None:
        self.facts = facts
        self.choice = choice
        self.number = number
        self.tool = tool
        self.call_id = call_id
        self.calm = False  # the first delta is looked at more closely
        self.restart: Restart = ""
        self.caught: Replay | None = None
        self.marked = NOTHING
        self.count = 0
        self.length = 0
        self.last = ""
        self.last_at = self._before_at = 0.0
        self.run = 0
        self.hypotheses: list[Hypothesis] = []
        self.cumulative = False
        self.mode: Snapshot | Duplicate | Replay | None = None
        self.held: list[_Held] = []
        self.resolved = ""
        self.refused: list[str] = []
        self.committed: Hypothesis | None = None
        self.repeat = NOTHING
        self._last_event: Event | None = None
        self._longest = 0
        self.text = Transcript()

    @property
    def withholds(self) -> bool:
        """Whether something that came has not left, and would have to if the stream ended now."""
        return bool(self.held) or self.caught is not None or isinstance(self.mode, Replay)

    # -- the common path ----------------------------------------------------------------------------------------------

    def plain(self, text: str, event: Event, now: float) -> bool:
        """Takes a delta that resembles nothing before it. Returns: False if it has to be judged."""
        length = len(text)
        if (
            not self.calm or length >= self.length or text.startswith(self.last) or (self.tool and self._looks_complete(text))
        ) and not self._is_no_repeat(text):
            return False
        self.last = text
        self._before_at = self.last_at
        self.last_at = now
        self._last_event = event
        self.run = 1
        self.count += 1
        if length > self._longest:
            self._longest = length
        self.length += length
        self.text.append(text)
        return True

    def _is_no_repeat(self, text: str) -> bool:
        """Whether a delta that is as long as all before it resembles nothing all the same. In a restart every delta is weighed."""
        if self.facts.restarted:
            return False
        if not self.count:
            self.calm = True
            return True  # there is nothing before it
        if not self.calm or self.tool or text.startswith(self.last):
            return False
        # What repeats all of the lane begins as it did; but for half a surrogate pair, which may have become a character.
        first = self.text.first
        return not text.startswith(first) and not "\ud800" <= first[-1] <= "\udbff"

    def mark(self, because: Evidence) -> None:
        """The stream's id has changed: the next delta may begin the lane's text again."""
        self.marked = because
        self.calm = False
        self.restart = "waiting" if self.count and not self.tool else ""
        self.caught = None

    def _append(self, text: str) -> None:
        self.text.append(text)
        self.length += len(text)

    def _looks_complete(self, text: str) -> bool:
        """Arguments that may be whole are followed by what may be their beginning: rare enough to be looked at closely."""
        return self.last.rstrip()[-1:] in ("}", "]", "") and text.lstrip()[:1] in ("{", "[")

    # -- judging ------------------------------------------------------------------------------------------------------

    def judge(self, ticket: Ticket, place: int, delta: Delta, event: Event, now: float) -> None:
        """Takes any delta: settles it, or holds it until later ones (or `release`) settle it."""
        text = delta.text
        self.caught = None
        ticket.unsettled += 1
        again = bool(self.count) and text == self.last
        self.repeat = repeat = self._judge_repeat(event, delta) if again else NOTHING
        gap = now - self.last_at
        if not self._proceed(ticket, place, text, event, repeat):
            self._weigh(ticket, place, text, event, again, repeat, gap, delta.position)
        self.count += 1
        self.run = self.run + 1 if again else 1
        self.last, self._before_at, self.last_at, self._last_event = text, self.last_at, now, event
        self._longest = max(self._longest, len(text))
        self.marked = NOTHING
        self.calm = self.mode is None and not self.hypotheses and not self.held and self.caught is None
        if self.restart in ("waiting", "again"):
            replaying = any(isinstance(one, Replay) for one in (self.mode, *self.hypotheses))
            self.restart = "again" if replaying else "differs"

    def _judge_repeat(self, event: Event, delta: Delta) -> Evidence:
        before = self._last_event
        if before is None:
            return NOTHING
        return envelope.judge_repeat(before, event, delta.position, self.facts)

    def _proceed(self, ticket: Ticket, place: int, text: str, event: Event, repeat: Evidence) -> bool:
        """The committed reading, as long as it holds. Returns: False if there is none (any more)."""
        mode = self.mode
        if mode is None:
            return False
        said = None if isinstance(mode, Replay) and len(event.deltas) > 1 else mode.proceed(text, repeat)
        if isinstance(mode, Replay) and said is not None:
            if not said:
                mode.swallow(text, event)
            if mode.done:
                self.mode = None
                self._catch_up(mode, said)
        if said is None:
            if isinstance(mode, Replay) and mode.stash is None:  # only the text is left
                self.mode = None
                self._append(back := mode.swallowed + text)
                ticket.settle(place, text, back, "F3")
                return True
            ticket.returned += self.take_back()
            self.mode = None
            if isinstance(mode, Snapshot):
                self.cumulative = mode.extensions >= 3
                # The lane's text is what the snapshots amounted to, without the repeats that slipped through before they were known.
                self.text = Transcript(mode.text)
                self.length = self.text.length
            return False
        if said and self._is_resent(text, repeat):
            said = ""
        if not isinstance(mode, Snapshot) and said:
            self._append(said)
        ticket.settle(place, text, said, shape_of(mode.shape, arguments=self.tool))
        return True

    def _is_resent(self, text: str, repeat: Evidence) -> bool:
        """Whether the envelope proves that this very delta came before: its own odds, two factors (the text and the envelope)."""
        if repeat.weight <= 0:
            return False
        return self.facts.prior + evidence.content_similarity(text) + repeat.weight >= self.facts.threshold

    def _weigh(self, ticket: Ticket, place: int, text: str, event: Event, again: bool, repeat: Evidence, gap: float, position: int) -> None:
        self._look_back(event)
        resent = again and self._is_resent(text, repeat)
        if resent:
            self.facts.proven = True
        alive: list[Hypothesis] = []
        for hypothesis in self.hypotheses:
            # A replay gives whole events back, so it takes none in which another lane speaks.
            said = None if isinstance(hypothesis, Replay) and len(event.deltas) > 1 else hypothesis.follow(text, repeat)
            if said is None or (resent and said):
                self.refused += [hypothesis.shape] * (not hypothesis.shadow)
            else:
                hypothesis.texts.append(said)
                alive.append(hypothesis)
        self.hypotheses = alive
        if self.count and not resent:
            self._spawn(text, event, again, repeat, gap, position)
        sent = "" if resent else text
        shape = ("B1" if self.count == 1 else "D1") if resent else ""
        self.held.append(_Held(ticket, place, text, sent, shape))
        self.length += len(sent)
        self._decide()

    def _look_back(self, event: Event) -> None:
        """What this event's envelope proves about the held deltas, before its own text is looked at."""
        for hypothesis in self.hypotheses:
            if isinstance(hypothesis, Snapshot) and hypothesis.turn(self.facts.envelope(event)) and hypothesis.ready(self.facts.threshold):
                self._commit(hypothesis, ends=True)
                again = copy(hypothesis)
                again.rearm(self.facts.prior + HISTORY.weight)
                self.hypotheses.append(again)
                return

    def _spawn(self, text: str, event: Event, again: bool, repeat: Evidence, gap: float, position: int) -> None:
        kinds = {type(hypothesis) for hypothesis in self.hypotheses}
        if (len(text) >= self.length or self.marked.weight or self.tool) and self.length <= KEPT:
            before = self.text.whole() + "".join(held.text for held in self.held)
            if self.tool and not self.held and self._spawn_complete(before, text):
                return
            fits = before.startswith(text) or text.startswith(before)
            if self.marked.weight and fits and Replay not in kinds and len(before) >= _REPLAY_AT_LEAST:
                self._add(Replay(before, text, self.marked))
            begins = bool(before) and evidence.beyond(before, text) is not None
            if begins and Snapshot not in kinds and not self._is_new(before, text, event, position):
                self._spawn_snapshot(before, text, event, repeat)
        if not self.hypotheses and self.count > 1 and self.last and len(text) > len(self.last) and text.startswith(self.last):
            self._spawn_chain(text)
        if again and repeat.weight != NEVER and Duplicate not in kinds and self.run == 1:
            self._spawn_duplicates(text, repeat, gap)

    def _is_new(self, before: str, text: str, event: Event, position: int) -> bool:
        """Whether the envelope says that the model generated a whole copy of the text (speculative decoding sends it as one chunk)."""
        if self.count < 2 or self._last_event is None:
            return False
        if envelope.counted_anew(self._last_event, event, len(before), text):
            return True
        return envelope.sampled_anew(self.facts.envelope(event), position)

    def _spawn_snapshot(self, before: str, text: str, event: Event, repeat: Evidence) -> None:
        head = before == self.text.first
        prior = self.facts.prior + (HISTORY.weight if head and self.facts.proven else 0.0)
        outlier = NOTHING if head else evidence.size_outlier(text, before, self._longest, self.count)
        if text == before and not head and not outlier.weight and evidence.information(before) < 48:
            return
        hypothesis = Snapshot(prior, before, text, repeat, head=head)
        hypothesis.add(outlier)
        hypothesis.lean = max(0.0, self.facts.head_prior - prior) if head else 0.0
        if head and self.facts.proven and text != before:
            hypothesis.factors.add(HISTORY.name)
        # No transport repeats within an event: two texts of one event are related, but its envelope proves nothing about itself.
        if head and text == before and self._last_event is not None and self._last_event is not event:
            hypothesis.watch(self.facts.envelope(self._last_event), self.facts.envelope(event), repeat)
        hypothesis.shadow = text == before and not text.strip(" ") and not (hypothesis.watching or hypothesis.factors)
        self._add(hypothesis)

    def _spawn_chain(self, text: str) -> None:
        """Snapshots in the middle of a lane that say less than all of it: after a repeat that slipped through, or a revision."""
        # Lists of names extend their neighbours all the time ("SUB-AVE", "SUB-AVER"): only where this lane was cumulative before, or
        # at a length at which none was found in 1.55 million clean pairs. A snapshot begins as the lane does, even one behind a repeat
        # that slipped through; lines of a memory game ("I packed my bag, ...") begin with one of their own.
        begins = text.startswith(self.text.whole()[:_BEGINNING] if self.cumulative else self.text.first)
        if begins and (self.cumulative or evidence.information(self.last) >= 48):
            self._add(Snapshot(self.facts.prior, self.last, text, NOTHING, head=False))

    def _spawn_duplicates(self, text: str, repeat: Evidence, gap: float) -> None:
        from_start = self.count == 1
        if not from_start and not self._paired(gap) and (self._longest < _PIECE or not evidence.seldom_twice(text)):
            return  # digits and line ends repeat all the time in clean text: not worth a hold, unless they came as a pair
        # Some answers begin with two blanks: that is watched, and held only where something may prove a repeat soon.
        waits = bool(text.strip(" ")) or self._paired(gap) or repeat.weight > 0 or any(not other.shadow for other in self.hypotheses)
        for times in (2, 3):
            hypothesis = Duplicate(self.facts.prior - 0.5 + evidence.timing(gap), text, times, repeat, from_start=from_start)
            hypothesis.shadow = from_start and not waits
            self._add(hypothesis)

    def _paired(self, gap: float) -> bool:
        """Whether a delta came with the one before it, which had come alone: one write each, of what is said twice."""
        return bool(evidence.timing(gap)) and not evidence.timing(self.last_at - self._before_at)

    def _spawn_complete(self, before: str, text: str) -> bool:
        """After complete arguments nothing but blanks may follow. Returns: True if that settles what may be spawned."""
        if not self.text.grammar().complete or not text.strip():
            return False
        if before.startswith(text) or (text.strip() == "{}" and before.strip() != "{}"):
            whole = before if before.startswith(text) else text
            self._add(Replay(whole, text, GRAMMAR, complete_only=True))
        return True

    def _add(self, hypothesis: Hypothesis) -> None:
        # A hypothesis spawned during a hold agrees with what is already held.
        hypothesis.texts = [held.text for held in self.held] + hypothesis.texts
        self.hypotheses.append(hypothesis)

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        threshold = self.facts.threshold
        if self.tool and self.hypotheses:
            self._weigh_grammar()
        ready = [hypothesis for hypothesis in self.hypotheses if hypothesis.ready(threshold)]
        if ready:
            best = max(ready, key=lambda hypothesis: hypothesis.score)
            # Twice or three times: what is held is dropped either way; which of them it is, the next delta tells.
            same = [other for other in self.hypotheses if isinstance(other, Duplicate) and other.texts == best.texts]
            open_still = isinstance(best, Duplicate) and len(same) > 1
            self._commit(best, ends=open_still or (isinstance(best, Snapshot) and best.ends_on_commit))
            if open_still:
                self.hypotheses.append(best)
            return
        live = [hypothesis for hypothesis in self.hypotheses if not hypothesis.shadow]
        agreed = 0
        for place, held in enumerate(self.held):
            if any(hypothesis.texts[place] != held.text for hypothesis in live):
                break
            agreed += 1
        if agreed:
            had = len(self.held) > 1
            self._settle(agreed, [held.text for held in self.held], "")
            if had and not self.held:
                self.resolved = "pattern"

    def _weigh_grammar(self) -> None:
        settled = self.text.grammar()
        if not settled.possible or settled.complete:
            return
        if settled.copy().feed("".join(held.text for held in self.held)).possible:
            return
        for hypothesis in self.hypotheses:
            if GRAMMAR.name not in hypothesis.factors and settled.copy().feed("".join(hypothesis.texts)).possible:
                hypothesis.add(GRAMMAR)

    def _commit(self, best: Hypothesis, *, ends: bool) -> None:
        had = len(self.held) > 1
        self.committed = best
        rest = [other for other in self.hypotheses if other is not best and other.texts == best.texts]
        said = best.texts[-1] if best.texts else ""
        if isinstance(best, Replay):
            for held, text in zip(self.held, best.texts, strict=True):
                if held.text and not text:
                    best.swallow(held.text, cast("Event", held.ticket.chunk))  # only events have deltas
        self._settle(len(self.held), best.texts.copy(), best.shape)
        if best.factors - {HISTORY.name}:
            self.facts.proven = True
        if had:
            self.resolved = "confidence"
        if isinstance(best, Replay) and best.done:
            self._catch_up(best, said)
        if ends or (isinstance(best, Replay) and best.done):
            self.hypotheses = rest
            return
        self.hypotheses = []
        if isinstance(best, Snapshot | Duplicate | Replay):
            self.mode = best

    def _settle(self, count: int, texts: list[str], shape: str) -> None:
        """Settles the oldest `count` held deltas as `texts`."""
        for held, text in zip(self.held[:count], texts, strict=False):
            self.length -= len(held.text)
            held.ticket.settle(held.place, held.came, text, shape_of(held.shape or shape, arguments=self.tool))
            if text:
                self._append(text)
        del self.held[:count]
        for hypothesis in self.hypotheses:
            del hypothesis.texts[:count]

    def release(self, *, watch: bool) -> None:
        """Stops waiting: what is held leaves as it came.

        Args:
          watch: the hypotheses live on as shadows (the hold was too long); else they are gone (the stream moved on).
        """
        self._settle(len(self.held), [held.text for held in self.held], "")
        for hypothesis in self.hypotheses:
            hypothesis.shadow = True
        if not watch:
            self.refused += [hypothesis.shape for hypothesis in self.hypotheses]
            self.hypotheses = []
        self.calm = self.mode is None and not self.hypotheses

    def take_back(self) -> list[Event]:
        """Ends a replay that has not caught up, or that was none since another text differs. Returns: the events that it had swallowed."""
        replay = self.mode if isinstance(self.mode, Replay) else self.caught
        if replay is None:
            return []
        if self.mode is replay:
            self.mode = None
        self.caught = None
        if replay.stash:
            self._append(replay.swallowed)
        return replay.stash or []

    def _catch_up(self, replay: Replay, said: str) -> None:
        if self.restart:
            self.restart = "caught up"
            self.caught = None if said else replay

    def finish(self) -> None:
        """The choice is finished: the last evidence comes from that, then what is held leaves."""
        for hypothesis in self.hypotheses:
            if self.held and isinstance(hypothesis, Snapshot) and hypothesis.shape == "E1" and self.count > _FEW:
                hypothesis.add(evidence.FINISH)
        if self.tool and self.held and not self._completes([held.text for held in self.held]):
            for hypothesis in self.hypotheses:
                if self._completes(hypothesis.texts):
                    hypothesis.add(GRAMMAR)
        self._decide()
        self.release(watch=False)

    def _completes(self, texts: list[str]) -> bool:
        """Whether the arguments would be complete JSON if the held deltas were `texts`."""
        return self.text.grammar().copy().feed("".join(texts)).complete
