"""The flights of one process: how much they may hold, the thread that writes them, and the ring of files.

A stream that ends hands its flight over without waiting; the thread takes the texts out, writes one file and removes the oldest beyond
the limit. What cannot be taken or written is counted, told once, and costs no stream anything.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from .flight import Flight
from .redaction import redact_block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .flight import Entry, Facts

_logger: Final = logging.getLogger("evenflow.flights")

ENDING: Final = ".flight"
VERSION: Final = 1
#: Bytes of chunks that all running and waiting flights hold together: a bound on memory, a tenth of what 1,000 streams take anyway.
_HELD: Final = 64 * 1024 * 1024
#: Flights that may wait for the thread.
_WAITING: Final = 256
#: Seconds between two complaints about the disk.
_SILENT: Final = 60.0
#: A flight, how its stream ended, and when by the wall's clock.
_Waiting: TypeAlias = "tuple[Flight, Facts, float]"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """What became of the flights so far.

    Args:
      written: files that were written.
      dropped: flights that nobody had time for.
      failed: flights that could not be written.
      held: bytes of chunks that are held now.
    """

    written: int
    dropped: int
    failed: int
    held: int


class FlightRecorder:
    """Opens flights and keeps the last of them.

    Args:
      directory: where the files go; made if it is not there.
      streams: files kept.
      most: bytes of chunks kept of one stream; beyond, their lengths.
      redact: take the texts out.
    """

    def __init__(self, directory: Path, *, streams: int, most: int, redact: bool) -> None:
        self._directory = directory
        self._streams = streams
        self._most = most
        self._redact = redact
        self._held = 0
        self._written = self._dropped = self._failed = 0
        self._complained = -_SILENT
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="evenflow-flights", daemon=True)
        self._thread.start()

    def open(self, started: float, facts: Facts) -> Flight:
        """A flight for a stream that begins.

        Args:
          started: monotonic seconds.
          facts: of the request, ready for JSON; no text of it.
        """
        left = self._most

        def hold(size: int) -> bool:
            nonlocal left
            if size > left or self._held + size > _HELD:
                return False
            left -= size
            self._held += size
            return True

        return Flight(hold, started, facts)

    def close_flight(self, flight: Flight, outcome: Facts, ended: float) -> None:
        """The stream is over. Never waits, never raises.

        Args:
          ended: when, in seconds of the wall's clock.
        """
        if self._queue.qsize() >= _WAITING:
            self._dropped += 1
            self._held -= flight.held
            return
        self._queue.put((flight, outcome, ended))

    def statistics(self) -> RecorderStatistics:
        return RecorderStatistics(self._written, self._dropped, self._failed, self._held)

    def close(self, timeout: float = 1.0) -> None:
        """Write what waits, for at most `timeout` seconds, and take no more."""
        self._queue.put(None)
        self._thread.join(timeout)

    # ---- on the thread

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            flight, outcome, ended = item
            try:
                self._write(flight, outcome, ended)
                self._written += 1
            except (OSError, ValueError) as exc:
                self._failed += 1
                self._complain(exc)
            except Exception:  # a defect in here is none of a stream's
                self._failed += 1
                _logger.exception("a flight could not be written")
            finally:
                self._held -= flight.held  # between two threads a step may be lost; it is a bound on memory, not a balance

    def _write(self, flight: Flight, outcome: Facts, ended: float) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        moment = datetime.fromtimestamp(ended, UTC)
        identity = _UNSAFE.sub("_", str(flight.facts.get("id", "")))[:64]
        path = self._directory / f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03}Z-{identity}{ENDING}"
        unfinished = path.with_suffix(f"{ENDING}.{os.getpid()}")
        head: Facts = {"evenflow": "flight", "version": VERSION, "ended": moment.isoformat(), "redacted": self._redact, **flight.facts}
        try:
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.writelines(line + b"\n" for line in encode(head, flight, outcome, redact=self._redact))
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        for old in sorted(self._directory.glob(f"*{ENDING}"))[: -self._streams]:
            old.unlink(missing_ok=True)  # another worker may have been faster

    def _complain(self, exc: Exception) -> None:
        if time.monotonic() - self._complained >= _SILENT:
            self._complained = time.monotonic()
            _logger.warning("flights cannot be written to recorder.directory = %s: %s; %d are lost", self._directory, exc, self._failed)


def encode(head: Facts, flight: Flight, outcome: Facts, *, redact: bool) -> Iterator[bytes]:
    """The lines of a file: what it is, what happened in order, how it ended. Times in milliseconds since the request."""
    yield msgspec.json.encode(head)
    for entry in flight.entries:
        yield msgspec.json.encode({"ms": round(1000 * (entry.now - flight.started), 3), entry.kind: _told(entry, redact=redact)})
    yield msgspec.json.encode({"end": outcome, "left_out": flight.left_out})


def _told(entry: Entry, *, redact: bool) -> object:
    if entry.kind != "chunk":
        return entry.what
    block = redact_block(entry.what) if redact else entry.what
    return block.decode("utf-8", "replace")  # JSON has no other characters; evenflow replaces them on their way as well
