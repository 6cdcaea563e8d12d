"""The traffic of the soak: what is asked for how often, clients that leave, read slowly or not at all, and what has to come of each.

Every client takes a connection of its own and asks for its close, so that an answer is over exactly when the connection is.
"""

from __future__ import annotations

import json
import math
import re
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio

from .raw_client import judge, post

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

_COUNT: Final = 25
_PATIENCE: Final = 30.0  # seconds; no answer may take longer under the soak's timers, whatever goes wrong with it
_READ: Final = 65_536
_SMALL: Final = 4_096  # bytes: of a slow reader's socket buffer and of each of its reads
_PAUSE: Final = 0.005  # seconds between two of them

#: What has to come of a request: all the numbers in order, all of an answer, or any answer that ends by itself.
Promise: TypeAlias = Literal["counted", "whole", "over"]
Reading: TypeAlias = Literal["at once", "slowly", "never"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request.

    Args:
      model: of the simulator.
      weight: how often, relative to the others.
      leaves: seconds after which the client goes away, half to one and a half times as long; infinite if it stays.
    """

    model: str
    weight: float = 1.0
    stream: bool = True
    promise: Promise = "over"
    leaves: float = math.inf
    reading: Reading = "at once"

    @property
    def name(self) -> str:
        """For people: what tells it from the others."""
        traits = ["" if self.stream else "non-stream", "leaves" if self.leaves < math.inf else "", f"reads {self.reading}"]
        return " ".join([self.model, *(trait for trait in traits if trait and trait != "reads at once")])


#: More good answers than bad ones, each way to fail several times a minute.
KINDS: Final[Sequence[Kind]] = (
    Kind(f"count:count={_COUNT},pace=20", weight=6, promise="counted"),
    Kind("ok", weight=3, promise="whole"),
    Kind("ok", weight=3, promise="whole", stream=False),
    Kind("tools", weight=2, promise="whole"),
    Kind("tools", promise="whole", stream=False),
    Kind("reasoning", weight=2, promise="whole"),
    Kind("stutter-a1", weight=2, promise="whole"),
    Kind("stutter-b2", weight=2, promise="whole"),
    Kind("flaky", weight=2, promise="whole"),
    Kind("flaky", promise="whole", stream=False),
    Kind("http-429-seconds:times=1", promise="whole"),
    Kind("reset-before-headers:times=1", promise="whole"),
    Kind("idle-close", promise="whole"),
    Kind("http-503"),
    Kind("cut"),
    Kind("cut", stream=False),
    Kind("reset"),
    Kind("truncated"),
    Kind("error-mid"),
    Kind("tools-cut"),
    Kind("torn-chunk"),
    Kind("bad-chunk-size"),
    Kind("invalid-utf8"),
    Kind("stall"),
    Kind("stall", leaves=0.8),
    Kind("endless", leaves=1.5),
    Kind("slow-first-token", leaves=0.5),
    Kind("slow-first-token", promise="whole"),
    Kind("silence", leaves=0.5),
    Kind("silence", leaves=0.5, stream=False),
    Kind("http-503", leaves=0.1),
    Kind("big:events=40,size=10000", promise="whole", reading="slowly"),
    # Twice as long as the soak's client_stall: the proxy has to give such a client up, whose kernel never hears of it.
    Kind("big:events=1000,size=10000", weight=0.3, leaves=10.0, reading="never"),
)


@dataclass(slots=True)
class Tally:
    """What came of all clients so far.

    Args:
      broken: promises that were not kept, by the kind and what happened.
    """

    asked: int = 0
    kept: int = 0
    broken: Counter[str] = field(default_factory=Counter)


class Traffic:
    """Starts clients one after the other.

    Args:
      address: HOST:PORT of the proxy.
      rate: requests per second on average; fewer if `most` do not suffice for it.
      most: requests at the same time.
    """

    def __init__(self, address: str, *, rate: float, most: int, chance: random.Random, kinds: Sequence[Kind] = KINDS) -> None:
        self._host, port = address.split(":")
        self._port = int(port)
        self._rate = rate
        self._slots = trio.CapacityLimiter(most)
        self._chance = chance
        self._kinds = kinds
        self.tally = Tally()

    async def run(self, seconds: float) -> None:
        """Ask for so long, once at least, then return as soon as all answers are over."""
        weights = [kind.weight for kind in self._kinds]
        until = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            number = 0
            while number == 0 or trio.current_time() < until:
                # The first requests go through all kinds, so that a short run leaves none out.
                kind = self._kinds[number] if number < len(self._kinds) else self._chance.choices(self._kinds, weights)[0]
                number += 1
                place = object()
                await self._slots.acquire_on_behalf_of(place)
                nursery.start_soon(self._client, kind, number, place)
                await trio.sleep(min(self._chance.expovariate(self._rate), 10.0 / self._rate))

    async def _client(self, kind: Kind, number: int, place: object) -> None:
        try:
            self.tally.asked += 1
            if trouble := await self._ask(kind, number):
                self.tally.broken[f"{kind.name}: {trouble}"] += 1
            else:
                self.tally.kept += 1
        finally:
            self._slots.release_on_behalf_of(place)

    async def _ask(self, kind: Kind, number: int) -> str:
        """Returns what was not as promised, or ""."""
        # The simulator tells requests apart by their body: whoever is the first to ask gets the fault.
        body = {"model": kind.model, "stream": kind.stream, "messages": [{"role": "user", "content": f"request {number}"}]}
        request = post(f"{self._host}:{self._port}", body, f"soak-{number}").replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
        leaves = kind.leaves * self._chance.uniform(0.5, 1.5)
        data = bytearray()
        try:
            with trio.move_on_after(min(leaves, _PATIENCE)), trio.socket.socket() as sock:
                if kind.reading != "at once":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
                await sock.connect((self._host, self._port))
                await sock.send(request)  # a few hundred bytes into an empty socket buffer: never partly
                if kind.reading == "never":
                    await trio.sleep(leaves)
                while part := await sock.recv(_SMALL if kind.reading == "slowly" else _READ):
                    data += part
                    if kind.reading == "slowly":
                        await trio.sleep(_PAUSE)
                return _missing(kind, bytes(data))
        except OSError as exc:
            return exc.strerror or type(exc).__name__
        return "" if leaves < _PATIENCE else f"not over after {_PATIENCE:g} s"


def _missing(kind: Kind, data: bytes) -> str:
    """What an answer that is over lacks."""
    head, _, body = data.partition(b"\r\n\r\n")
    status = head[9:12].decode("latin-1")
    if not head.startswith(b"HTTP/1.1 "):
        return "no answer"
    if kind.promise == "over":
        return ""
    if status != "200":
        said = re.search(rb'"message": ?"([^"]*)', body)
        return f"status {status} {said[1].decode('utf-8', 'replace')[:120] if said else ''}"
    if not kind.stream:
        try:
            return "" if json.loads(body)["choices"][0]["finish_reason"] else "no finish_reason"
        except (ValueError, LookupError):
            return f"an unreadable body of {len(body)} bytes"
    if b"data: [DONE]\n\n" not in body or b'"error"' in body or not body.endswith(b"0\r\n\r\n"):
        return f"lost: {body[-120:]!a}"
    verdict = judge(data, _COUNT) if kind.promise == "counted" else "complete"
    return "" if verdict == "complete" else verdict
