"""What requests see of the end of their process."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from server.services import Readiness

if TYPE_CHECKING:
    from actors import StreamProcessor


class Told:
    """A processor that counts what it is told."""

    def __init__(self) -> None:
        self.times = 0

    def shut_down(self) -> None:
        self.times += 1


def begin(readiness: Readiness) -> Told:
    told = Told()
    readiness.begin(cast("StreamProcessor", told))  # of which no more is used
    return told


def test_row_68_at_the_end_whoever_runs_is_told_and_whoever_has_ended_is_not() -> None:
    readiness = Readiness()
    running, ended = begin(readiness), begin(readiness)
    readiness.running.discard(cast("StreamProcessor", ended))
    assert (running.times, ended.times) == (0, 0)
    readiness.shut_down()
    assert (running.times, ended.times) == (1, 0)


def test_row_68_whoever_comes_after_that_is_told_at_once() -> None:
    readiness = Readiness()
    readiness.shut_down()
    assert begin(readiness).times == 1
