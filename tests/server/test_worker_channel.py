"""The channel between a supervisor and a worker: what goes in comes out, in order, until the other end is gone."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio

from actors import Secret
from server.settings import RouteSettings, Settings, UpstreamRef, UpstreamSettings
from server.worker_channel import Answer, Ask, Begin, Reload, Serving, ToSupervisor, ToWorker, WorkerChannel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Ends: TypeAlias = "tuple[WorkerChannel[ToWorker, ToSupervisor], WorkerChannel[ToSupervisor, ToWorker]]"

SETTINGS = Settings(
    client_keys=(Secret("sk-client-0123456789"),),
    configured_upstreams={
        "main": UpstreamSettings(
            base_url="http://a/v1",
            key=Secret("sk-upstream-0123456789"),
            headers={"x-team": Secret("blue-0123456789")},
            timers={"idle": 3},
            breaker={"mode": "disabled", "probes": 2, "jitter": 0.5},
        )
    },
    configured_routes=(RouteSettings(model="*", upstreams=("main", UpstreamRef("main", "other"))),),
)


@asynccontextmanager
async def ends() -> AsyncIterator[Ends]:
    one, other = socket.socketpair()
    supervisor = WorkerChannel[ToWorker, ToSupervisor](one, ToSupervisor)
    worker = WorkerChannel[ToSupervisor, ToWorker](other, ToWorker)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.send_all)
        nursery.start_soon(worker.send_all)
        yield supervisor, worker
        supervisor.close()
        worker.close()


async def test_settings_arrive_as_they_were_credentials_and_all() -> None:
    async with ends() as (supervisor, worker):
        assert supervisor.tell(Begin(SETTINGS))
        begin = await worker.receive()
        assert begin == Begin(SETTINGS)
        assert isinstance(begin, Begin)
        assert begin.settings.upstreams() == SETTINGS.upstreams()
        assert "0123456789" not in repr(begin)


async def test_messages_of_any_length_keep_their_order_both_ways() -> None:
    asked = [Ask(i, "GET", "/metrics", b"", ((b"host", b"localhost"),), bytes(i * 50_000)) for i in range(8)]
    async with ends() as (supervisor, worker):
        for ask in asked:
            assert supervisor.tell(ask)
        assert supervisor.tell(Reload(1, None, "no good", ("beware",)))
        assert worker.tell(Serving("http://127.0.0.1:1/v1"))
        assert [await worker.receive() for _ in asked] == asked
        assert await worker.receive() == Reload(1, None, "no good", ("beware",))
        assert await supervisor.receive() == Serving("http://127.0.0.1:1/v1")


async def test_a_channel_ends_with_either_end() -> None:
    async with ends() as (supervisor, worker):
        worker.close()
        with pytest.raises(trio.EndOfChannel):
            await supervisor.receive()
        assert not worker.tell(Serving("late"))


async def test_whoever_is_not_read_holds_up_nobody() -> None:
    async with ends() as (supervisor, worker):
        told = 0
        while supervisor.tell(Ask(told, "GET", "/", b"", (), bytes(10_000))):
            told += 1
        assert told
        assert worker.tell(Answer(0, 200, (), b""))
        assert await supervisor.receive() == Answer(0, 200, (), b"")
