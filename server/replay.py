"""`evenflow replay`: recorded streams through the pipeline's decisions, offline, at a simulated pace.

Everything that decides is sans-io, so a recording needs no task and no clock: each of its blocks arrives `pace` after the one before.
What is printed is what the stream machine told its trace; what `--emit` writes is exactly what a client would have received.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import msgspec

from actors import (
    BufferPolicy,
    Complete,
    Failed,
    Fault,
    LoopGuard,
    LoopPolicy,
    SmartBuffer,
    StreamMachine,
    StreamPolicy,
    StutteringDetector,
    StutterPolicy,
    Tally,
    UpstreamHistory,
)
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import AttemptEnded, AttemptsExhausted, AttemptStarted, Chunk, Event
from actors.sansio.effects import Resume
from actors.sansio.evidence import NEVER, Evidence
from actors.sansio.stream_head import HeadSniffer

from .flights.flight_file import NoFlight, is_flight, read_flight
from .flights.timeline import timeline
from .terminal import Progress

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from actors.sansio.chunks import Delta
    from actors.sansio.effects import Effects
    from actors.sansio.loop_guard import Loop
    from actors.sansio.smart_buffer import Released
    from actors.sansio.stream_machine import Item
    from actors.sansio.stream_state import StreamEvent, StreamState
    from actors.sansio.trace import Judgement

#: What a recording is called where an upstream's name would stand.
UPSTREAM = "recording"


@dataclass(slots=True)
class Replayed:
    """One recording, replayed.

    Args:
      body: the bytes of the response body that a client would have received.
      status: the status it would have had.
      end: how the stream ended.
      decisions: one line per decision, in order.
      tally: the stream's counts.
    """

    body: bytes
    status: int
    end: Complete | Failed
    decisions: list[str]
    tally: Tally

    def to_json(self, name: str) -> bytes:
        """One line for scripts: what came of it, the counts, and the decisions as they are printed."""
        failed = self.end.fault if isinstance(self.end, Failed) else None
        return (
            msgspec.json.encode(
                {
                    "file": name,
                    "outcome": "done" if failed is None else "error",
                    "code": failed.code if failed is not None else None,
                    "message": failed.message if failed is not None else None,
                    "status": self.status,
                    "bytes_out": len(self.body),
                    "events": self.tally.events,
                    "holds": self.tally.holds,
                    "longest_hold_ms": round(self.tally.longest_hold * 1000, 3),
                    "repairs": dict(self.tally.repairs),
                    "flushes": dict(self.tally.flushes),
                    "loops": dict(self.tally.loops),
                    "skipped": self.tally.skipped,
                    "done_added": self.tally.done_added,
                    "decisions": self.decisions,
                }
            )
            + b"\n"
        )


@dataclass(slots=True)
class _Printer:
    """Turns what the machine tells its trace into lines; undisturbed events are counted, not listed."""

    lines: list[str] = field(default_factory=list)
    _passed: int = 0

    def judged(self, one: Judgement, now: float) -> None:
        self.line(now, f"{_lane(one.delta)} {_shortened(one.delta.text)}{' (held)' if one.held else ''}")
        if one.envelope.name:
            self._detail("envelope", _finding(one.envelope))
        for reading in one.readings:
            found = " ".join([f"prior {reading.prior:+.1f}", *map(_finding, reading.findings)])
            odds = f"odds {reading.odds:+.1f} of {one.threshold:+.1f}"
            proofs = ", ".join([f"{reading.relations} informative {'pair' if reading.relations == 1 else 'pairs'}", *reading.factors])
            self._detail(f"{reading.shape} {reading.verdict}", f"{odds} = {found}; proofs: {proofs}")

    def released(self, one: Released, now: float) -> None:
        if one.shape:
            was, now_is = _texts(one.chunk.raw), _texts(one.frame)
            what = f"repaired {one.shape}: {was} -> {now_is}" if one.frame else f"repaired {one.shape}: dropped {was}"
        elif one.held_for > 0:
            what = f"released unchanged after {one.held_for * 1000:.0f} ms: {_texts(one.chunk.raw)}"
        else:
            self._passed += 1
            return
        self.line(now, what)

    def advanced(self, before: StreamState, event: StreamEvent, after: StreamState, now: float) -> None:
        self.line(now, f"{type(before).__name__} --{type(event).__name__}--> {type(after).__name__}")

    def looped(self, loop: Loop, now: float) -> None:
        self.line(now, f"{loop} up to character {loop.position}: {loop.unit!r}")

    def _detail(self, name: str, text: str) -> None:
        self.lines.append(f"{'':>10}     {name}: {text}")

    def line(self, now: float, text: str) -> None:
        if self._passed:
            self.lines.append(f"{'':>10}   {self._passed} {'chunk' if self._passed == 1 else 'chunks'} passed untouched")
            self._passed = 0
        self.lines.append(f"{now * 1000:>7.0f} ms   {text}")


def _texts(block: bytes) -> str:
    """What one block tells, for a reader: its texts, the labels of calls, finishes."""
    told = []
    for chunk in ChunkParser().feed(block):
        if isinstance(chunk, Event):
            told += [_shortened(delta.text) for delta in chunk.deltas]
            told += [
                f"{name} {_shortened(label)}" for call in chunk.calls for name, label in (("id", call.id), ("name", call.name)) if label
            ]
            told += [f"finish of choice {choice}" for choice in chunk.finished]
    return " + ".join(told) or "nothing"


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _lane(delta: Delta) -> str:
    place = f"choice {delta.choice} {delta.field.value}"
    return place if delta.call_index < 0 else f"{place} of call {delta.call_index}"


def _finding(found: Evidence) -> str:
    return f"{found.name} never" if found.weight == NEVER else f"{found.name} {found.weight:+.1f}"


def replay(
    recording: bytes,
    *,
    pace: float = 0.02,
    stutter: StutterPolicy | None = None,
    buffer: BufferPolicy | None = None,
    loops: LoopPolicy | None = None,
    history: UpstreamHistory | None = None,
) -> Replayed:
    """Run one recorded body through the pipeline's decisions.

    Args:
      recording: the SSE body as an upstream sent it.
      pace: simulated seconds between two of its blocks.
      history: what is known of its upstream.
    """
    printer = _Printer()
    tally = Tally(started=0.0, attempts=1)
    refused = _first_look(recording)
    if refused is not None:
        printer.line(0.0, f"refused before any output: {refused.kind.value}: {refused.message}")
        return Replayed(refused.to_json(), refused.http_status, Failed(refused), printer.lines, tally)

    def open_buffer(_: str) -> SmartBuffer:
        return SmartBuffer(StutteringDetector(stutter, history, printer), buffer)

    def open_guard(_: str) -> LoopGuard:
        return LoopGuard(loops or LoopPolicy())

    machine = StreamMachine(StreamPolicy(), open_buffer, tally, 0.0, printer, open_guard)
    body: list[bytes] = []
    for now, effects in _drive(machine, recording, pace):
        tally.ended = now
        body += effects.frames
    end = machine.end
    assert end is not None
    printer.line(tally.ended or 0.0, _summary(end, tally))
    status = 200
    if isinstance(end, Failed):
        body.append(end.fault.to_frame() if machine.head_sent else end.fault.to_json())
        status = 200 if machine.head_sent else end.fault.http_status
    return Replayed(b"".join(body), status, end, printer.lines, tally)


def _first_look(recording: bytes) -> Fault | None:
    sniffer = HeadSniffer("text/event-stream", UPSTREAM)
    head = sniffer.feed(recording) or sniffer.close()
    return head if isinstance(head, Fault) else None


def _drive(machine: StreamMachine, recording: bytes, pace: float) -> Iterator[tuple[float, Effects]]:
    """Feed the machine, waking it whenever a deadline passes between two blocks. A recording has no second attempt."""
    parser = ChunkParser()
    chunks: list[Chunk] = [*parser.feed(recording), *parser.close(clean=True)]
    yield 0.0, machine.receive(AttemptStarted(1, UPSTREAM, (), math.inf), 0.0)
    now = 0.0
    items: list[Item] = [*([chunk] for chunk in chunks), AttemptEnded(1, None)]
    for item in items:
        while machine.deadline <= now:
            due = machine.deadline
            yield due, machine.wake(due)
        effects = machine.receive(item, now)
        yield now, effects
        if isinstance(effects.order, Resume):
            yield now, machine.receive(AttemptsExhausted(effects.order.fault), now)
        if machine.ended:
            return
        now += pace


def _summary(end: Complete | Failed, tally: Tally) -> str:
    result = "done" if isinstance(end, Complete) else f"error {end.fault.code}: {end.fault.message}"
    counts = {
        "events": tally.events,
        "holds": tally.holds,
        "longest hold": f"{tally.longest_hold * 1000:.0f} ms" if tally.holds else 0,
        "repairs": _counted(tally.repairs),
        "flushes": _counted(tally.flushes),
        "loops": _counted(tally.loops),
        "skipped": tally.skipped,
        "[DONE] added": "yes" if tally.done_added else 0,
    }
    return f"{result} ({', '.join(f'{name} {value}' for name, value in counts.items() if value)})"


def _counted(counter: Counter[str]) -> str:
    return " ".join(f"{name} x{count}" for name, count in sorted(counter.items()))


def run_replay(
    files: Sequence[Path],
    pace_ms: float = 20.0,
    emit: bool = False,
    emit_dir: Path | None = None,
    as_json: bool = False,
    *,
    write: Callable[[bytes], object] = sys.stdout.buffer.write,
) -> int:
    """The command: replay each file, print its decisions or write its bytes.

    How far it is stands on standard error while nothing else is to be seen.

    Returns:
      The exit code: 0, or 1 if a file could not be read or written.
    """
    failed = False
    progress = Progress(sys.stderr if len(files) > 1 and not sys.stdout.isatty() else None, "replay")
    for path in progress.through(files):
        try:
            if is_flight(path):
                write(_shown(path, as_json))
                continue
            replayed = replay(path.read_bytes(), pace=pace_ms / 1000)
            if emit_dir is not None:
                emit_dir.mkdir(parents=True, exist_ok=True)
                (emit_dir / path.name).write_bytes(replayed.body)
        except OSError as exc:
            print(f"evenflow: {exc.filename}: {exc.strerror}", file=sys.stderr)
            failed = True
            continue
        except NoFlight as exc:
            print(f"evenflow: {exc}", file=sys.stderr)
            failed = True
            continue
        if emit:
            write(replayed.body)
        elif as_json:
            write(replayed.to_json(path.name))
        else:
            write(f"{path.name}\n".encode() + "".join(f"{line}\n" for line in replayed.decisions).encode("utf-8", "backslashreplace"))
    if emit:
        sys.stdout.flush()
    return int(failed)


def _shown(path: Path, as_json: bool) -> bytes:
    """A flight has decided already: it is shown as it was."""
    flight = read_flight(path)
    if as_json:
        return msgspec.json.encode({"file": path.name, **asdict(flight)}) + b"\n"
    return "".join(f"{line}\n" for line in (path.name, *timeline(flight))).encode("utf-8", "backslashreplace")
