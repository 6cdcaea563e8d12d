"""StreamPolicy: what one stream may do, as its route has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .resume_plan import ResumeStrategy


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """What one stream may do. Durations in seconds, `math.inf` is off.

    Args:
      choices: `n` of the request: so many choices have to finish.
      replay_reasoning: an attempt that sent nothing but reasoning may be replayed.
      resume: how an answer may be taken up of which output was sent; none ends it with an error frame.
      whole: the answer is kept until it is complete, so that no failure is seen before.
      skip_bad_chunks: a torn chunk is skipped instead of failing its attempt; it may lose text (opt-in).
      keepalive_after, keepalive_interval, total: see routes.Timers.
      comments_per_second: upstream comments beyond it are dropped (FAULTS row 29).
    """

    choices: int = 1
    replay_reasoning: bool = True
    resume: frozenset[ResumeStrategy] = frozenset()
    whole: bool = False
    skip_bad_chunks: bool = False
    keepalive_after: float = 15.0
    keepalive_interval: float = 15.0
    total: float = 1800.0
    comments_per_second: float = 1.0
