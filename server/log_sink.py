"""Where log lines leave the process: a bounded queue and one thread that writes.

The event loop must never wait for a log reader. A full disk, a closed pipe, a terminal stopped with Ctrl-S or a log shipper that
fell behind cost lines, never a stream (FAULTS row 73). So `put` only queues; what cannot be queued or written is counted in
`dropped`. This module does not know what a line says.

The thread writes to the file descriptor itself, not through `sys.stderr`: a daemon thread that is stuck inside a buffered
writer holds that writer's lock, and the interpreter aborts at its exit when it cannot get it.
"""

from __future__ import annotations

import os
import queue
import select
import threading
from itertools import accumulate
from typing import Final, Protocol

#: Lines that may wait. Guessed: ten seconds of 400 streams ending per second, some 4 MiB.
CAPACITY: Final = 4096

#: How long a non-blocking descriptor may refuse before the line is given up, in milliseconds. Guessed.
_PATIENCE: Final = 1000

#: Seconds for which lines gather before they are written in one go. A thread that wakes for each takes the interpreter from the event
#: loop each time, which cost as much as the line itself; nobody sees the delay.
_GATHER: Final = 0.02
#: Lines that are written in one go.
_BATCH: Final = 256


class LineStream(Protocol):
    """What is needed of a text stream."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...

    def fileno(self) -> int: ...


class LineSink:
    """Takes lines from anywhere, at any time, and writes them in order on a thread of its own.

    Args:
      stream: where to. Its file descriptor is used directly if it has one.
      capacity: lines that may wait; more are dropped and counted.
    """

    def __init__(self, stream: LineStream, *, capacity: int = CAPACITY) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        # SimpleQueue and not Queue: its `put` is re-entrant, and the garbage collector may log in the middle of one.
        self._queue: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._capacity = capacity
        # Two counters with one writing thread each, since `+=` on a shared one can lose a step.
        self._refused = 0
        self._failed = 0
        self._torn = False
        self._closed = False
        self._hurry = threading.Event()  # somebody waits for what is queued
        self._thread = threading.Thread(target=self._write_lines, name="evenflow-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were lost so far, because nobody took them or because writing failed."""
        return self._refused + self._failed

    def put(self, line: str) -> None:
        """Queue one line, without its line end. Never blocks, never raises."""
        if self._closed or self._queue.qsize() >= self._capacity:
            self._refused += 1
        else:
            self._queue.put(line)

    def refuse(self) -> None:
        """Count a line that could not even be made."""
        self._refused += 1

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait until everything queued so far was written or dropped.

        Args:
          timeout: seconds; a reader that stands still must not hold up a shutdown.

        Returns:
          False if the time was not enough.
        """
        if self._closed:
            return not self._thread.is_alive()
        reached = threading.Event()
        self._queue.put(reached)
        self._hurry.set()
        return reached.wait(timeout)

    def close(self, timeout: float = 1.0) -> None:
        """Write what is queued, for at most `timeout` seconds, and take no more."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._hurry.set()
            self._thread.join(timeout)

    def _write_lines(self) -> None:
        while True:
            waiting = [self._queue.get()]
            self._hurry.wait(_GATHER)
            while len(waiting) < _BATCH and not self._queue.empty():  # nobody else takes from it
                waiting.append(self._queue.get_nowait())
            lines: list[str] = []
            for item in waiting:
                if isinstance(item, str):
                    lines.append(item)
                    continue
                self._write(lines)
                lines = []
                self._hurry.clear()
                if item is None:
                    return
                item.set()
            self._write(lines)

    def _write(self, lines: list[str]) -> None:
        if self._fd is not None:
            self._write_at_once(self._fd, lines)
            return
        for line in lines:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # ValueError: the stream was closed under us
                self._failed += 1

    def _write_at_once(self, fd: int, lines: list[str]) -> None:
        encoded = [f"{line}\n".encode("utf-8", "backslashreplace") for line in lines]
        if self._torn and encoded:
            # After half a line (disk full in the middle of it) the next one starts on a line of its own.
            encoded[0] = b"\n" + encoded[0]
        data, written = memoryview(b"".join(encoded)), 0
        try:
            while written < len(data):
                written += _write_some(fd, data[written:])
        except (OSError, ValueError):
            ends = list(accumulate(map(len, encoded)))
            self._failed += sum(end > written for end in ends)
            if written:
                self._torn = written not in ends
        else:
            self._torn = self._torn and not encoded


def _descriptor(stream: LineStream) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # a StringIO, a closed stream, a stand-in without the method
        return None


def _write_some(fd: int, data: memoryview) -> int:
    try:
        return os.write(fd, data)
    except BlockingIOError:
        # Somebody who shares the terminal or the pipe made it non-blocking.
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not poll.poll(_PATIENCE):
            raise
        return os.write(fd, data)
