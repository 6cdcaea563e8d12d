"""One viewer of several workers: who is let in, what it is shown, and that nobody who hangs holds it up."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from server.admin.dashboard import VIEWERS
from server.admin.fan_out import FanOut, WorkerStatistics
from server.admin.snapshot import Point, Snapshot
from server.worker_channel import Answer

from .crew import Crew

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

MAY = Answer(1, 200, ((b"content-type", b"text/event-stream"),), b"")


def telling(serial: int, tick: int = 0, streams: int = 1) -> bytes:
    points = [Point(serial, 0.0, tick, 1, streams, 1.0, 1.0, {}, {})] if tick else []
    told = Snapshot(serial, points, [], [], [], {}, streams, {}, [], "1", 1.0, "http://a/v1", True, "actors", "", 0, [])
    return told.encoded()


class Viewer:
    """A browser that reads."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.leaves = trio.Event()
        self._into, self._from = trio.open_memory_channel[bytes](0)

    async def run(self, app: FanOut) -> None:
        asked = False

        async def receive() -> Any:
            nonlocal asked
            if asked:
                await self.leaves.wait()
                return {"type": "http.disconnect"}
            await trio.lowlevel.checkpoint()
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "http.response.start":
                self.status, self.headers = message["status"], dict(message["headers"])
            else:
                await self._into.send(message["body"])

        scope = {"method": "GET", "path": "/dashboard/events", "query_string": b"", "headers": [(b"host", b"localhost")]}
        with self._into:
            await app(scope, receive, send)

    async def read(self) -> bytes:
        return await self._from.receive()

    async def sees(self) -> dict[str, Any]:
        told = await self.read()
        assert told.startswith(b"data: ")
        document: dict[str, Any] = json.loads(told[6:])
        return document


@asynccontextmanager
async def viewing(app: FanOut) -> AsyncIterator[Viewer]:
    viewer = Viewer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(viewer.run, app)
        yield viewer
        viewer.leaves.set()
        nursery.cancel_scope.deadline = trio.current_time() + 1.0


async def test_a_viewer_sees_both_and_each_entry_once(autojump_clock: MockClock) -> None:
    crew = Crew({1: MAY, 2: MAY})
    crew.told = {1: telling(7, tick=3), 2: telling(9, tick=3, streams=5)}
    async with viewing(FanOut(crew)) as viewer:
        told = await viewer.sees()
        assert (viewer.status, viewer.headers[b"content-type"], viewer.headers[b"cache-control"]) == (
            200,
            b"text/event-stream",
            b"no-store",
        )
        assert [(point["tick"], point["streams"]) for point in told["series"]] == [(3, 6)]
        assert [row["streams"] for row in told["workers"]] == [1, 5]
        await viewer.sees()
        await viewer.sees()
    assert [request.method for request in crew.seen] == ["HEAD"]
    assert (crew.asked_after[1][:2], crew.asked_after[2][:2]) == ([0, 7], [0, 9])


async def test_one_that_hangs_holds_nobody_up_and_is_asked_once(autojump_clock: MockClock) -> None:
    crew = Crew({1: MAY, 2: MAY})
    crew.told = {1: telling(7, tick=3)}
    async with viewing(FanOut(crew)) as viewer:
        began = trio.current_time()
        for _ in range(5):
            told = await viewer.sees()
        assert trio.current_time() - began <= 5.0
        assert [row["state"] for row in told["workers"]] == ["serving", "no answer"]
        assert told["streams_active"] == 1
    assert len(crew.asked_after[2]) == 1


async def test_one_that_was_started_again_is_asked_from_the_beginning(autojump_clock: MockClock) -> None:
    crew = Crew({1: MAY, 2: MAY})
    crew.told = {1: telling(7), 2: telling(9)}
    async with viewing(FanOut(crew)) as viewer:
        await viewer.sees()
        crew.told[2], crew.known[2] = None, WorkerStatistics(102, serving=False, restarts=0)
        await viewer.sees()
        told = await viewer.sees()
        assert [row["state"] for row in told["workers"]] == ["serving", "starting"]
        crew.asked_after[2].clear()
        crew.told[2], crew.known[2] = telling(1), WorkerStatistics(202, serving=True, restarts=1)
        await viewer.sees()
        told = await viewer.sees()
        assert [(row["state"], row["pid"], row["restarts"]) for row in told["workers"]] == [("serving", 101, 0), ("serving", 202, 1)]
    assert crew.asked_after[2][:2] == [0, 1]


async def test_whoever_may_not_watch_is_told_what_the_workers_say() -> None:
    refusal = Answer(1, 401, ((b"Content-Type", b"application/json"), (b"www-authenticate", b"Bearer")), b'{"error": {}}')
    crew = Crew({1: refusal, 2: refusal})
    async with viewing(FanOut(crew)) as viewer:
        assert json.loads(await viewer.read()) == {"error": {}}
        assert (viewer.status, viewer.headers[b"www-authenticate"]) == (401, b"Bearer")
    assert crew.asked_after == {1: [], 2: []}
    async with viewing(FanOut(Crew({1: None, 2: None}))) as viewer:
        assert msgspec.json.decode(await viewer.read())["error"]["code"] == "no_worker"
        assert viewer.status == 503


async def test_viewers_are_counted_and_one_that_leaves_makes_room(autojump_clock: MockClock) -> None:
    crew = Crew({1: MAY})
    crew.told = {1: telling(1)}
    app = FanOut(crew)
    async with trio.open_nursery() as nursery:
        there = [Viewer() for _ in range(VIEWERS)]
        for viewer in there:
            nursery.start_soon(viewer.run, app)
            await viewer.sees()
        async with viewing(app) as one_more:
            assert b"watch already" in await one_more.read()
            assert one_more.status == 503
        there[0].leaves.set()
        await trio.testing.wait_all_tasks_blocked()
        async with viewing(app) as one_more:
            assert (await one_more.sees())["ready"]
        nursery.cancel_scope.cancel()
