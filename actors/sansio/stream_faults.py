"""The faults that a stream itself shows: its silences, its chunks, its end. What upstreams say of theirs is the classifier's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .faults import Fault, FaultKind

if TYPE_CHECKING:
    from .chunks import Malformed


def timeout_fault(kind: FaultKind, setting: str, seconds: float, upstream: str) -> Fault:
    """A timer fired. `setting`: its dotted name."""
    who = f"upstream '{upstream}'" if upstream else "the request"
    what = "sent no token" if kind is FaultKind.IDLE_TIMEOUT else "was not complete"
    return Fault(kind, f"{who} {what} within {setting} = {seconds:g} s", upstream=upstream, setting=setting)


def truncated_fault(upstream: str) -> Fault:
    """The body ended as HTTP wants it, the answer did not."""
    text = f"upstream '{upstream}' ended the stream without finish_reason or [DONE]; the answer is incomplete"
    return Fault(FaultKind.TRUNCATED, text, upstream=upstream)


def malformed_fault(chunk: Malformed, upstream: str) -> Fault:
    """An event that cannot be passed on and may have carried text."""
    if chunk.oversize:
        return Fault(FaultKind.EVENT_TOO_LARGE, f"upstream '{upstream}': {chunk.reason}", upstream=upstream)
    return Fault(FaultKind.BAD_CHUNK, f"upstream '{upstream}' sent a chunk that cannot be read: {chunk.reason}", upstream=upstream)


def differed_fault(upstream: str) -> Fault:
    """It was asked to take up an answer; nothing is wrong with what it said but that it is another one."""
    return Fault(FaultKind.DIFFERED, f"upstream '{upstream}' was asked to take up an answer and said another one", upstream=upstream)
