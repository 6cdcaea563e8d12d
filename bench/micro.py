"""`make bench-micro`: what one call of each part of the hot path costs, beside one typed msgspec decode in the same run.

    python -m bench.micro [--repeats 7] [--json FILE] [NAME ...]

Nothing here touches a socket. A figure is the best of the repeats, in microseconds per call: what disturbs a call only ever makes it
slower. The decode is the yardstick: a part that costs four of them does so on any machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from actors import (
    BreakerPolicy,
    LoopGuard,
    LoopPolicy,
    SmartBuffer,
    StreamMachine,
    StreamPolicy,
    StutteringDetector,
    Tally,
    open_circuit_breaker,
)
from actors.circuit_breaker import Permit
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import AttemptStarted, Event
from actors.sansio.faults import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_EVENTS: Final = 2_000
_IN_ONE_READ: Final = 16
_SEED: Final = 5
#: English by frequency, enough of it that no stretch repeats: clean text, on which every guess comes to nothing.
_TEXT: Final = (
    "the of and to in that it is was for on are as with they be at one have this from or had by hot but some what there we can out other "
    "were all your when up use word how said an each she which do their time if will way about many then them would write like so these "
    "her long make thing see him two has look more day could go come did my sound no most number who over know water than call first "
    "people may down side been now find any new work part take get place made live where after back little only round man year came show"
)

Best = dict[str, float]


class _Delta(msgspec.Struct):
    content: str = ""


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)


def blocks(count: int) -> list[bytes]:
    """So many events of a usual stream, as an upstream sends them: 220 bytes or so, a word or two each."""
    chance, words = random.Random(_SEED), _TEXT.split()
    head = '{"id":"chatcmpl-9f2c7a51d0b84c6e","object":"chat.completion.chunk","created":1763800000,"model":"bench",'
    head += '"choices":[{"index":0,"delta":{'
    made = []
    for number in range(count):
        text = " " + " ".join(chance.choices(words, k=chance.randint(1, 2)))
        role = '"role":"assistant",' if not number else ""
        made.append(f'data: {head}{role}"content":"{text}"}},"logprobs":null,"finish_reason":null}}]}}\n\n'.encode())
    return made


def best(call: Callable[[], int], repeats: int) -> float:
    """Microseconds per call; `call` makes as many as it returns."""
    took = []
    for _ in range(repeats):
        gc.collect()
        gc.disable()
        began = time.perf_counter()
        calls = call()
        took.append((time.perf_counter() - began) / calls * 1e6)
        gc.enable()
    return min(took)


def _buffer(_: str = "") -> SmartBuffer:
    return SmartBuffer(StutteringDetector())


def measures() -> Mapping[str, Callable[[], int]]:
    """Every part that is a plain call, by name."""
    wire = blocks(_EVENTS)
    payloads = [block[len(b"data: ") : -2] for block in wire]
    reads = [b"".join(wire[at : at + _IN_ONE_READ]) for at in range(0, len(wire), _IN_ONE_READ)]
    halves = [half for block in wire for half in (block[:97], block[97:])]
    parser = ChunkParser()
    chunks = [parser.feed(block) for block in wire]
    events = [chunk for batch in chunks for chunk in batch if isinstance(chunk, Event)]
    decoder = msgspec.json.Decoder(_Chunk)

    def decode() -> int:
        for payload in payloads:
            decoder.decode(payload)
        return len(payloads)

    def parse(pieces: Sequence[bytes]) -> Callable[[], int]:
        def run() -> int:
            feed = ChunkParser().feed
            for piece in pieces:
                feed(piece)
            return len(wire)

        return run

    def detect() -> int:
        add, now = _buffer().add, 0.0
        for event in events:
            now += 0.02
            add(event, now)
        return len(events)

    def guard() -> int:
        observe = LoopGuard(LoopPolicy()).observe
        for event in events:
            observe(event)
        return len(events)

    def machine() -> int:
        stream = StreamMachine(StreamPolicy(), _buffer, Tally(), 0.0, open_guard=lambda _: LoopGuard(LoopPolicy()))
        stream.receive(AttemptStarted(1, "bench", (), 60.0, ""), 0.0)
        now = 0.0
        for batch in chunks:
            now += 0.02
            stream.receive(batch, now)
        return len(chunks)

    return {
        "decode": decode,
        "parser": parse(wire),
        "parser, 16 events a read": parse(reads),
        "parser, two reads an event": parse(halves),
        "detector": detect,
        "loop guard": guard,
        "machine": machine,
    }


_TITLES: Final = {
    "decode": "typed msgspec decode of one event (the yardstick)",
    "parser": "ChunkParser.feed, one event a read",
    "parser, 16 events a read": "ChunkParser.feed, per event of 16 in a read",
    "parser, two reads an event": "ChunkParser.feed, per event that comes in two reads",
    "detector": "SmartBuffer.add with its StutteringDetector, clean text",
    "loop guard": "LoopGuard.observe, clean text",
    "machine": "StreamMachine.receive with both of them, one event",
    "breaker": "CircuitBreaker: acquire, start, end of one attempt",
    "channel": "memory channel, one hop (send_nowait, receive)",
    "channel, awaited": "memory channel, one hop (await send, receive)",
    "spawn": "nursery with four tasks and three channels, opened and ended",
}


async def _breaker(calls: int) -> float:
    async with open_circuit_breaker({"bench": BreakerPolicy()}) as breaker:
        began = time.perf_counter()
        for _ in range(calls):
            permit = await breaker.acquire("bench")
            assert isinstance(permit, Permit)  # a circuit that has never failed refuses nothing
            with permit:
                permit.started()
                permit.ended(Verdict.SUCCESS)
        return (time.perf_counter() - began) / calls * 1e6


async def _hop(calls: int, awaited: bool) -> float:
    there, here = trio.open_memory_channel[int](1)

    async def consume() -> None:
        async for _ in here:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.lowlevel.checkpoint()
        began = time.perf_counter()
        for number in range(calls):
            if awaited:
                await there.send(number)
            else:
                there.send_nowait(number)
                await trio.lowlevel.checkpoint()
        took = time.perf_counter() - began
        there.close()
    return took / calls * 1e6


async def _spawn(calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        for _ in range(3):
            trio.open_memory_channel[int](1)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(trio.lowlevel.checkpoint)
    return (time.perf_counter() - began) / calls * 1e6


def run(names: Sequence[str], repeats: int) -> Best:
    """The figures of these parts, in microseconds per call."""
    found: Best = {name: best(call, repeats) for name, call in measures().items() if name in names}
    waiting: Mapping[str, Callable[[], float]] = {
        "breaker": lambda: trio.run(_breaker, 500),
        "channel": lambda: trio.run(_hop, 2_000, False),
        "channel, awaited": lambda: trio.run(_hop, 2_000, True),
        "spawn": lambda: trio.run(_spawn, 200),
    }
    for name, measure in waiting.items():
        if name in names:
            found[name] = min(measure() for _ in range(repeats))
    return found


def table(found: Best) -> str:
    """For people."""
    yardstick = found["decode"]
    lines = [f"{'us':>8}{'decodes':>9}  one call of"]
    return "\n".join([*lines, *(f"{value:8.2f}{value / yardstick:9.1f}  {_TITLES[name]}" for name, value in found.items())])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as asked on the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description="What one call of each part of the hot path costs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_TITLES))
    parser.add_argument("--repeats", type=int, default=7, help="[%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - set(_TITLES):
        parser.error(f"no such thing: {', '.join(sorted(unknown))}")
    found = run(["decode", *(asked.names or _TITLES)], asked.repeats)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
