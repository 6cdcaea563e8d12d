"""One circuit: who may go to an upstream, and what follows from what came of it.

It owns every transition of one circuit breaker. It does not know tasks, messages, clocks or logs (circuit_breaker.py), and not why
an attempt was a failure (faults.py).

Theory of operation
-------------------
    Closed --- failure rate, slow rate or failures in a row ---> Open(until)
    Open ----- `until` has passed (earlier for a caller without another upstream) ---> HalfOpen
    HalfOpen - so many good probes ---> Closed        HalfOpen - a bad probe, or no answer in time ---> Open

Each transition begins a new *generation* with an empty window. A grant carries the generation it was made in, and a report of an
older one has no effect: a stream that ran for ten minutes says nothing about a circuit that has opened and half-opened since.
A *pause* (429, a refused credential) lies over the circuit and is no transition: nobody goes there until it ends, the counts stay.
The *mode* lies over both. `metrics_only` runs all of this in full, and admits uncounted whom it would refuse.

Every method takes `now` and first does what is due by then, so nothing depends on a timer; `deadline` tells a caller who wants to
be on time when something will be due.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .breaker_state import (
    BreakerPolicy,
    CircuitStatistics,
    Closed,
    Grant,
    HalfOpen,
    Mode,
    Open,
    Pause,
    Refusal,
    State,
    StateName,
    Transition,
)
from .faults import Verdict
from .sliding_window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable

#: What somebody is told to wait while a probe is out: seconds, and up to so many more, so that they do not all come back together.
#: A guess: a probe is judged at its first token.
_PROBE_WAIT: Final = (1.0, 2.0)
#: Doubling stops here, since a float must not overflow; no base is so small that its ceiling is further away.
_MOST_DOUBLINGS: Final = 30
#: Generation of a grant that no circuit ever has, so that its reports count nothing.
_UNCOUNTED: Final = -1

_SUCCESS: Final = 0
_FAILURE: Final = 1
_SLOW: Final = 2


class Circuit:
    """The circuit breaker of one upstream.

    Args:
      upstream: its name.
      policy: when it opens and how it closes.
      random: uniform in [0, 1), for the jitter.
    """

    def __init__(self, upstream: str, policy: BreakerPolicy, random: Callable[[], float]) -> None:
        self._upstream = upstream
        self._policy = policy
        self._random = random
        self._mode: Mode = policy.mode
        self._state: State = Closed()
        self._generation = 0
        self._reason = ""
        self._window = SlidingWindow(policy.window, policy.buckets, 3)
        self._seen = 0.0  # the latest `now`
        self._failures_in_row = 0
        self._openings_in_row = 0
        self._asked_until = -math.inf  # the latest moment that a failure's Retry-After named
        self._pause: Pause | None = None
        self._refusals_of_credential = 0
        self._credential_paused = -math.inf  # when the latest such pause began
        self._out: set[Grant] = set()
        self._openings = 0
        self._credential_pauses = 0
        self._refused = 0
        self._transitions: list[Transition] = []
        self._shown = self._label()

    # ---- what callers ask and tell -----------------------------------------------------------------------------------

    def acquire(self, now: float, *, alone: bool = False) -> Grant | Refusal:
        """Ask to go to the upstream. `alone`: the caller has no other, so the open time counts up to its lower ceiling only."""
        self.advance(now)
        state = self._state
        if alone and isinstance(state, Open) and now >= self._open_until(state, alone):
            self._half_open()
        refusal = self._refusal(now, alone)
        if refusal is None:
            return self._grant(now)
        self._refused += 1
        return self._grant(now, uncounted=True) if self._mode == "metrics_only" else refusal

    def started(self, grant: Grant, now: float, *, slow: bool = False) -> None:
        """The first meaningful frame came: that judges a probe and frees its place, and ends a row of failures."""
        self.advance(now)
        if grant not in self._out or grant.generation != self._generation:
            return
        self._failures_in_row = 0
        self._credential_works(grant)
        if isinstance(self._state, HalfOpen) and grant in self._state.probes:
            self._judge(grant, Verdict.SLOW if slow else Verdict.SUCCESS, now)

    def ended(self, grant: Grant, verdict: Verdict, now: float, retry_after: float | None = None) -> None:
        """The attempt is over; the grant comes back. A second report, and one of an older generation, have no effect.

        Args:
          retry_after: seconds the upstream asked to wait, None if it did not say.
        """
        self.advance(now)
        if grant not in self._out:
            return
        self._out.remove(grant)
        if grant.generation != self._generation:
            return
        if verdict is Verdict.SUCCESS:
            self._credential_works(grant)
        if verdict is Verdict.FAILURE and retry_after is not None:
            self._asked_until = max(self._asked_until, now + self._believed(retry_after))
        match verdict:
            case Verdict.EXCLUDED:
                self._free(grant)
            case Verdict.PAUSE:
                self._free(grant)
                seconds = self._policy.pause if retry_after is None else self._believed(retry_after)
                self._pause_until(now + seconds, "the upstream asked for a pause (429)")
            case Verdict.DEAD_CREDENTIAL:
                self._free(grant)
                self._credential_refused(grant, now, retry_after)
            case Verdict.SUCCESS | Verdict.FAILURE | Verdict.SLOW if isinstance(self._state, HalfOpen):
                self._judge(grant, verdict, now)
            case Verdict.SUCCESS | Verdict.FAILURE | Verdict.SLOW:
                self._count(verdict, now)

    def advance(self, now: float) -> None:
        """Do what is due by `now`."""
        self._seen = max(self._seen, now)
        self._window.advance(now)
        if self._pause is not None and now >= self._pause.until:
            self._pause = None
            self._announce("the pause has ended")
        policy = self._policy
        match self._state:
            case Open(until=until) if now >= until:
                self._half_open()
            case HalfOpen(probes) if now >= self._probes_due(probes):
                self._open(now, f"no answer from a probe within {policy.half_open_max:g} s")
            case Closed(since) if now >= since + policy.window:
                # A full quiet window: the next opening starts from the base again. A shorter one would let a circuit that flaps
                # (the first stream works, all of them together do not) be hammered at the base rate for ever.
                self._openings_in_row = 0

    @property
    def deadline(self) -> float:
        """When `advance` will have something to do next; `math.inf` if nothing is due without a call."""
        due = math.inf
        match self._state:
            case Open(until=until):
                due = until
            case HalfOpen(probes):
                due = self._probes_due(probes)
            case Closed(since) if self._openings_in_row:
                due = since + self._policy.window
        if self._pause is not None:
            due = min(due, self._pause.until)
        if self._window.counts and (bucket := self._seen + self._window.width) < due:
            due = bucket
        return due

    # ---- what the operator and the supervisor do ----------------------------------------------------------------------

    def reset(self, now: float) -> None:
        """Back to the configured mode, closed, everything forgotten but the totals; permits that are out count nothing more."""
        self._start_over(now, self._policy.mode, "reset by the operator")

    def force(self, mode: Mode, now: float) -> None:
        """Change the mode. "on" begins closed; the mode it has already changes nothing."""
        self.advance(now)
        if mode != self._mode:
            self._start_over(now, mode, f"set to {mode} by the operator")

    def restart(self, now: float) -> None:
        """Begin again closed in the same mode, after the actor failed in the middle of something."""
        self._start_over(now, self._mode, "the circuit breaker was restarted")

    def reconfigure(self, policy: BreakerPolicy, now: float) -> None:
        """Go on under another policy. State, times and totals stay, the counts if the window keeps its shape. A mode that an operator
        set stays too, unless the settings' own has changed.
        """
        self.advance(now)
        before, self._policy = self._policy, policy
        if (before.window, before.buckets) != (policy.window, policy.buckets):
            self._window = SlidingWindow(policy.window, policy.buckets, 3)
        if before.mode != policy.mode != self._mode:
            self._start_over(now, policy.mode, f"set to {policy.mode} by the settings")

    @property
    def credential_pauses(self) -> int:
        """How often it was paused for its credential."""
        return self._credential_pauses

    def take_transitions(self) -> list[Transition]:
        """The transitions since the last call, oldest first."""
        transitions, self._transitions = self._transitions, []
        return transitions

    def statistics(self) -> CircuitStatistics:
        """As of the last call with a `now`."""
        successes, failures, slow = self._window.totals
        ends = [self._pause.until] if self._pause is not None else []
        if isinstance(self._state, Open):
            ends.append(self._state.until)
        return CircuitStatistics(
            upstream=self._upstream,
            state=self._mode if self._mode != "on" else self._circuit_label(),
            circuit=self._circuit_label(),
            until=max(ends, default=None),
            reason=self._why(),
            calls=successes + failures + slow,
            failures=failures,
            slow=slow,
            consecutive_failures=self._failures_in_row,
            generation=self._generation,
            openings=self._openings,
            consecutive_openings=self._openings_in_row,
            credential_pauses=self._credential_pauses,
            refused=self._refused,
            permits_out=len(self._out),
        )

    # ---- decisions ----------------------------------------------------------------------------------------------------

    def _refusal(self, now: float, alone: bool) -> Refusal | None:
        if self._mode == "disabled":
            return None
        if self._mode == "forced_open":
            return Refusal(self._upstream, "forced_open", self._policy.open_max, self._why())
        waits = [self._pause.until - now] if self._pause is not None else []
        match self._state:
            case Open() as state:
                waits.append(self._open_until(state, alone) - now)
            case HalfOpen(probes=probes) if len(probes) >= self._policy.probes and not waits:
                least, spread = _PROBE_WAIT
                return Refusal(self._upstream, "half_open", least + spread * self._random(), "a probe is out")
        return Refusal(self._upstream, self._circuit_label(), max(waits), self._why()) if waits else None

    def _grant(self, now: float, *, uncounted: bool = False) -> Grant:
        uncounted = uncounted or self._mode == "disabled"
        state = self._state
        probe = isinstance(state, HalfOpen) and not uncounted
        grant = Grant(self._upstream, _UNCOUNTED if uncounted else self._generation, now, probe)
        self._out.add(grant)
        if isinstance(state, HalfOpen) and probe:
            self._state = replace(state, probes=state.probes | {grant})
        return grant

    def _count(self, verdict: Verdict, now: float) -> None:
        """One entry in a closed circuit's window. Only a bad one can open it."""
        policy = self._policy
        if verdict is not Verdict.FAILURE:
            self._failures_in_row = 0
            self._window.record(_SLOW if verdict is Verdict.SLOW else _SUCCESS, now)
        else:
            self._failures_in_row += 1
            self._window.record(_FAILURE, now)
        totals = self._window.totals
        calls, failures, slow = sum(totals), totals[_FAILURE], totals[_SLOW]
        enough = calls >= policy.minimum_calls
        if verdict is Verdict.FAILURE and 0 < policy.consecutive_failures <= self._failures_in_row:
            self._open(now, f"{self._failures_in_row} failures in a row")
        elif verdict is Verdict.FAILURE and enough and failures / calls >= policy.failure_rate:
            self._open(now, f"{failures} of {calls} calls failed")
        elif verdict is Verdict.SLOW and enough and policy.slow_rate and slow / calls >= policy.slow_rate:
            self._open(now, f"{slow} of {calls} calls were slow")

    def _judge(self, grant: Grant, verdict: Verdict, now: float) -> None:
        """What a half-open circuit learns from a probe, or from the end of a stream whose probe was judged good before."""
        state = self._state
        assert isinstance(state, HalfOpen)
        if verdict is Verdict.FAILURE or (verdict is Verdict.SLOW and self._policy.slow_rate):
            self._open(now, "a probe failed" if verdict is Verdict.FAILURE else "a probe was slow")
        elif grant in state.probes:
            self._state = HalfOpen(state.probes - {grant}, state.good + 1)
            if state.good + 1 >= self._policy.successes:
                self._begin(Closed(now), "")
                self._announce(f"{state.good + 1} good probes")

    def _free(self, grant: Grant) -> None:
        """A probe that says nothing about the upstream gives its place back."""
        if isinstance(self._state, HalfOpen) and grant in self._state.probes:
            self._state = replace(self._state, probes=self._state.probes - {grant})

    def _open(self, now: float, reason: str) -> None:
        policy = self._policy
        # Drawn before anything changes: should it raise, the circuit is as it was.
        spread = 1 + policy.jitter * (2 * self._random() - 1)
        seconds = min(policy.open_max, policy.open_base * 2.0 ** min(self._openings_in_row, _MOST_DOUBLINGS))
        self._openings_in_row += 1
        self._openings += 1
        # The spread goes on top of the ceiling, so that upstreams at the ceiling are not all probed in the same second.
        self._begin(Open(now, max(now + seconds * spread, self._asked_until)), reason)
        self._announce(reason)

    def _half_open(self) -> None:
        self._begin(HalfOpen(), self._reason)
        self._announce("the open time is over")

    def _begin(self, state: State, reason: str) -> None:
        """Enter a state: a new generation with nothing counted."""
        self._state = state
        self._reason = reason
        self._generation += 1
        self._window.clear()
        self._failures_in_row = 0

    def _start_over(self, now: float, mode: Mode, reason: str) -> None:
        self._mode = mode
        self._openings_in_row = 0
        self._asked_until = -math.inf
        self._pause = None
        self._refusals_of_credential = 0
        self._credential_paused = -math.inf
        self._begin(Closed(now), "")
        self._announce(reason)

    def _pause_until(self, until: float, reason: str) -> None:
        """Pause to the later of the two moments: whoever asked for less does not shorten what another was told."""
        if until > self._seen and (self._pause is None or until > self._pause.until):
            self._pause = Pause(until, reason)
            self._announce(reason)

    def _credential_refused(self, grant: Grant, now: float, retry_after: float | None) -> None:
        # All who were admitted before the pause began learn the same thing: that is one refusal, not a reason to double.
        if grant.admitted <= self._credential_paused:
            return
        policy = self._policy
        seconds = min(policy.credential_pause_max, policy.credential_pause * 2.0 ** min(self._refusals_of_credential, _MOST_DOUBLINGS))
        if retry_after is not None:
            seconds = max(seconds, self._believed(retry_after))
        self._refusals_of_credential += 1
        self._credential_pauses += 1
        self._credential_paused = now
        self._pause_until(now + seconds, "the upstream refused the configured credential, or its quota is used up")

    def _credential_works(self, grant: Grant) -> None:
        if grant.admitted > self._credential_paused:
            self._refusals_of_credential = 0

    def _believed(self, retry_after: float) -> float:
        return min(max(0.0, retry_after), self._policy.retry_after_max)

    def _probes_due(self, probes: frozenset[Grant]) -> float:
        """When the oldest probe that has not answered has had its time."""
        if not self._policy.half_open_max:
            return math.inf
        return min((probe.admitted for probe in probes), default=math.inf) + self._policy.half_open_max

    def _open_until(self, state: Open, alone: bool) -> float:
        ceiling = self._policy.alone_open_max
        return min(state.until, state.since + ceiling) if alone and ceiling else state.until

    # ---- words --------------------------------------------------------------------------------------------------------

    def _circuit_label(self) -> StateName:
        match self._state:
            case Open():
                return "open"
            case _ if self._pause is not None:
                return "paused"
            case HalfOpen():
                return "half_open"
            case Closed():
                return "closed"

    def _label(self) -> StateName:
        """What transitions are told in: `metrics_only` tells those of its circuit, since it has no others."""
        return self._mode if self._mode in ("forced_open", "disabled") else self._circuit_label()

    def _why(self) -> str:
        if self._mode in ("forced_open", "disabled"):
            return f"{self._mode} by the operator or the settings"
        return self._pause.reason if self._pause is not None and not isinstance(self._state, Open) else self._reason

    def _announce(self, reason: str) -> None:
        before, self._shown = self._shown, self._label()
        if before != self._shown:
            said = f"metrics_only: {reason}" if self._mode == "metrics_only" else reason
            self._transitions.append(Transition(self._upstream, before, self._shown, said))
