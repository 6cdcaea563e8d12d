"""Several workers as real processes: what one client, one operator and one service manager see of them."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import ANY

import pytest
import trio
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from server.listeners import open_listeners
from server.settings import Address

from .raw_client import CLIENT_KEY, UPSTREAM_KEY, RawClient
from .running_command import CONFIG, admin_of, command, run, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from server.simulator import Simulator

    from .raw_client import Exchange
    from .running_command import Command

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no workers there")

TWO: Final = "workers = 2"
#: Each test starts three to five processes, on a machine that may be busy with others.
PATIENCE: Final = 300.0
JSON: Final = {"content-type": "application/json"}
_SNAPSHOT: Final = re.compile(rb"data: (\{.*\})\n\n")


class Crew:
    """A supervisor and its workers.

    Args:
      running: the supervisor.
      client: asks whichever worker takes the connection.
    """

    def __init__(self, running: Command, client: RawClient) -> None:
        self.running = running
        self.client = client
        self.admin = admin_of(running)

    async def status(self) -> list[dict[str, Any]]:
        rows = (await self.admin.get("/status")).json["workers"]
        assert isinstance(rows, list)
        return rows

    async def streams_on_both(self, model: str, opened: AsyncExitStack) -> list[Exchange]:
        """Open streams until each worker has one."""
        exchanges: list[Exchange] = []
        while not all(row["streams_active"] for row in await self.status()):
            exchanges.append(await opened.enter_async_context(self.client.open(model)))
            await exchanges[-1].read_until(b"data: ")
            assert len(exchanges) < 40, "the kernel deals connections out at random, but not so"
        return exchanges

    async def until_status(self, holds: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Ask until this holds for every worker."""
        while not all(map(holds, rows := await self.status())):  # noqa: ASYNC110  # it is another process
            await trio.sleep(0.02)
        return rows

    async def until_all_serve(self) -> list[dict[str, Any]]:
        return await self.until_status(lambda row: "uptime_seconds" in row)

    async def gone(self) -> None:
        """Until no process is left: each has a copy of the pipe that is read here."""
        await self.running.until_all_ended()


class Viewer:
    """Who watches the dashboard.

    Args:
      exchange: its stream of snapshots.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._read = 0
        self.last: dict[str, Any] = {}
        self.ended: list[dict[str, Any]] = []
        self.streams: dict[int, int] = {}

    async def next(self) -> dict[str, Any]:
        self._read += 1
        told = await self._exchange.read_until(b"}\n\n", self._read)
        self.last = json.loads(_SNAPSHOT.findall(told)[self._read - 1])
        self.ended += self.last["ended"]
        self.streams |= {point["tick"]: point["streams"] for point in self.last["series"]}
        return self.last

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        while not holds(await self.next()):
            pass


@asynccontextmanager
async def crew(simulator: Simulator, tmp_path: Path, *, drain: float = 0.0, more: str = TWO, program: str = "") -> AsyncIterator[Crew]:
    async with serving(simulator, tmp_path, drain, more, program=program, patience=PATIENCE) as (running, client):
        yield Crew(running, client)
        if running.process.returncode is None:
            running.process.send_signal(signal.SIGTERM)
            assert await running.ended() == 0


# ---- the admin listener ----------------------------------------------------------------------------------------------


async def test_both_serve_and_the_admin_listener_speaks_for_both(simulator: Simulator, tmp_path: Path) -> None:
    async with crew(simulator, tmp_path) as workers:
        admin = workers.admin
        async with AsyncExitStack() as opened:
            exchanges = await workers.streams_on_both("count:3,pace=200", opened)
            for exchange in exchanges:
                assert (await exchange.rest()).done
        rows = await workers.status()
        assert [row["worker"] for row in rows] == [1, 2]
        assert [row["restarts"] for row in rows] == [0, 0]
        assert len({row["pid"] for row in rows} | {workers.running.process.pid}) == 3
        assert {row["base_url"] for row in rows} == {f"{workers.client.root}/v1"}
        assert (await admin.get("/healthz")).status == (await admin.get("/readyz")).status == 200
        assert (await admin.get("/healthz", method="HEAD")).body == b""
        assert (await admin.get("/nowhere")).status == 404
        assert b"/breaker/" in (await admin.get("/")).body

        answer = await admin.get("/metrics")
        families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
        served = families["evenflow_streams"]
        assert {sample.labels["worker"] for sample in served.samples} == {"1", "2"}
        assert sum(sample.value for sample in served.samples if sample.labels["outcome"] == "done") == len(exchanges)
        assert [sample.value for sample in families["evenflow_worker_up"].samples] == [1.0, 1.0]
        assert [sample.labels["worker"] for sample in families["process_open_fds"].samples] == ["1", "2"]
        strict = await admin.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        parsed = openmetrics.text_string_to_metric_families(strict.body.decode())  # type: ignore[no-untyped-call]
        named = {family.name for family in parsed}
        assert {"evenflow_streams", "evenflow_worker_restarts"} <= named

        code, out, _ = await run("rollout", "50", "--admin", admin.root, cwd=tmp_path)
        assert (code, out.count("engine actors: 50 %")) == (0, 2)

        # A switch turns at every worker; whoever may not turn it is refused by them.
        forced = await admin.post("/breaker/main/force", b'{"state": "forced_open"}', headers=JSON)
        assert [row["state"] for row in forced.json["workers"]] == ["forced_open"] * 2
        for _ in range(6):
            assert (await workers.client.ask("ok")).status == 503
        assert (await admin.post("/breaker/main/force", b'{"state": "sideways"}', headers=JSON)).error["code"] == "invalid_state"
        assert (await admin.get("/status", headers={"host": "rebound.example"})).status == 421


async def test_the_dashboard_shows_both_and_who_dies_comes_back(simulator: Simulator, tmp_path: Path) -> None:
    keyed = f'{TWO}\nadmin_keys = ["env:CALLERS"]'
    async with serving(simulator, tmp_path, more=keyed, patience=PATIENCE) as (running, client), AsyncExitStack() as opened:
        for key, host, code in (
            (None, "localhost", "invalid_api_key"),
            ("sk-another-0123456789", "localhost", "invalid_api_key"),
            (CLIENT_KEY, "rebound.example", "wrong_host"),
        ):
            stranger = RawClient(admin_of(running).root, key)
            assert (await stranger.get("/dashboard/events", headers={"host": host})).error["code"] == code
            assert (await stranger.get("/dashboard", headers={"host": host})).status == (200 if host == "localhost" else 421)
        workers = Crew(running, client)
        workers.admin = RawClient(workers.admin.root, CLIENT_KEY)
        watching = await opened.enter_async_context(workers.admin.send("GET", "/dashboard/events", b"", {}))
        viewer = Viewer(watching)
        for model in ("stutter-a1", "flaky"):
            await client.ask(model)
        exchanges = await workers.streams_on_both("endless:pace=10", opened)
        await viewer.until(lambda told: told["streams_active"] == len(exchanges) and len(viewer.ended) == 2)
        assert {row["worker"] for row in viewer.last["streams"]} == {1, 2}
        assert viewer.last["states"] == {"normal flow": len(exchanges)}
        assert [(row["worker"], row["name"], row["state"]) for row in viewer.last["circuits"]] == [
            (1, "main", "closed"),
            (2, "main", "closed"),
        ]
        # Each worker is looked at when it has answered, so that who ended first may be told last.
        stutter, flaky = sorted(viewer.ended, key=itemgetter("at"))
        assert stutter["repairs"].startswith("A1:")
        assert {"attempt", "repair", "state"} <= {kind for _, kind, _ in stutter["story"]}
        assert {"fault", "retry", "attempt"} <= {kind for _, kind, _ in flaky["story"]}
        assert {row["worker"] for row in viewer.ended} <= {1, 2}
        await viewer.until(lambda _: max(viewer.streams.values(), default=0) == len(exchanges))

        assert (await workers.admin.post("/breaker/main/force", b'{"state": "forced_open"}', headers=JSON)).status == 200
        await viewer.until(lambda told: [row["state"] for row in told["circuits"]] == ["forced_open"] * 2)

        first, second = viewer.last["workers"]
        os.kill(first["pid"], signal.SIGSTOP)  # it hangs: the other is shown all the same
        await viewer.until(lambda told: told["workers"][0]["state"] == "no answer" and told["workers"][1] == second | {"events": ANY})
        assert {row["worker"] for row in viewer.last["streams"]} == {2}
        late = await opened.enter_async_context(workers.admin.send("GET", "/dashboard/events", b"", {}))
        assert [row["state"] for row in (await Viewer(late).next())["workers"]] == ["no answer", "serving"]
        os.kill(first["pid"], signal.SIGKILL)
        await viewer.until(lambda told: [row["state"] for row in told["workers"]] == ["serving"] * 2)
        assert [
            (row["pid"] == before["pid"], row["restarts"]) for row, before in zip(viewer.last["workers"], (first, second), strict=True)
        ] == [
            (False, 1),
            (True, 0),
        ]
        assert {row["name"]: row["state"] for row in viewer.last["circuits"] if row["worker"] == 1} == {"main": "closed"}
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0  # a viewer that stays does not hold it up


async def test_row_74_a_port_that_other_workers_have_is_in_use(simulator: Simulator, tmp_path: Path) -> None:
    """Although they share it among themselves."""
    with ExitStack() as stack:
        listeners = open_listeners(Address("127.0.0.1", 0), "bind", 2, backlog=16, write_timeout=0)
        for listener in listeners:
            stack.enter_context(listener)
        address = f"127.0.0.1:{listeners[0].getsockname()[1]}"
        flags = ("serve", "--workers", "2", "--upstream", simulator.base_url, "--bind", address, "--admin-bind", "127.0.0.1:0")
        async with command(*flags, cwd=tmp_path) as second:
            assert await second.ended() == 2
    assert second.err.startswith(f"evenflow: cannot listen on {address}: the port is in use")
    assert len(second.err.splitlines()) == 1


# ---- ends that nobody asked for --------------------------------------------------------------------------------------


async def test_a_worker_that_is_killed_is_started_again_and_no_other_request_notices(simulator: Simulator, tmp_path: Path) -> None:
    async with crew(simulator, tmp_path) as workers:
        async with AsyncExitStack() as opened:
            exchanges = await workers.streams_on_both("count:400,pace=10", opened)
            victim = (await workers.status())[0]
            os.kill(victim["pid"], signal.SIGKILL)
            line = json.loads((await workers.running.until_logged('.*"worker_ended".*'))[0])
            assert (line["worker"], line["pid"], line["reason"], line["restart_in"]) == (1, victim["pid"], "killed by SIGKILL", 0.0)
            assert (await workers.admin.get("/healthz")).status == 503
            assert (await workers.admin.get("/readyz")).status == 200
            # Those for the dead worker wait in its queue, which the supervisor keeps, until there is one again.
            for _ in range(8):
                assert (await workers.client.ask("ok")).done
            answers = [await exchange.rest() for exchange in exchanges]
        assert {answer.done for answer in answers} == {True, False}  # those of the victim were cut, those of the other are whole
        rows = await workers.until_all_serve()
        assert [row["restarts"] for row in rows] == [1, 0]
        assert rows[0]["pid"] != victim["pid"]
        counted = text_string_to_metric_families((await workers.admin.get("/metrics")).body.decode())
        samples = {family.name: [sample.value for sample in family.samples] for family in counted}
        assert samples["evenflow_worker_restarts"] == [1.0, 0.0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can change another process's limits")
async def test_a_worker_that_the_system_has_no_descriptor_for_is_started_when_it_has(simulator: Simulator, tmp_path: Path) -> None:
    async with crew(simulator, tmp_path) as workers:
        supervisor = workers.running.process.pid
        before = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        victim = (await workers.status())[0]
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, before[1]))
        os.kill(victim["pid"], signal.SIGKILL)
        line = json.loads((await workers.running.until_logged('.*"no process: .*'))[0])
        assert (line["worker"], line["reason"], line["restart_in"]) == (1, "no process: Too many open files", 0.5)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)
        rows = await workers.until_all_serve()
        assert rows[0]["pid"] != victim["pid"]
        assert (await workers.client.ask("ok")).done


async def test_workers_that_cannot_start_end_it_with_one_line(simulator: Simulator, tmp_path: Path) -> None:
    program = "import server.supervisor as s; s._PROGRAM = 'raise SystemExit(3)'; from server.cli import main; main()"
    code, err = await _run_to_its_end(program, simulator, tmp_path)
    assert code == 70
    assert "could not start, at last with exit code 3" in err.splitlines()[-1]


async def test_a_worker_that_ends_again_and_again_ends_it_with_one_line_and_the_others_in_order(
    simulator: Simulator, tmp_path: Path
) -> None:
    program = "import server.restarts as r; r.MOST = 2; from server.cli import main; main()"
    async with serving(simulator, tmp_path, 10.0, TWO, program=program, patience=PATIENCE) as (running, client):
        workers = Crew(running, client)
        async with AsyncExitStack() as opened:
            exchanges = await workers.streams_on_both("count:600,pace=10", opened)
            first = (await workers.status())[0]["pid"]
            os.kill(first, signal.SIGKILL)
            rows = await workers.until_all_serve()
            os.kill(rows[0]["pid"], signal.SIGKILL)
            answers = [await exchange.rest() for exchange in exchanges]
        assert {answer.done for answer in answers} == {True, False}
        assert await running.ended() == 70
        assert running.err.splitlines()[-1].startswith("evenflow: worker 1 ended 2 times within 60 s")


async def test_workers_whose_supervisor_is_killed_end_in_order(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, 10.0, TWO, patience=PATIENCE) as (running, client):
        workers = Crew(running, client)
        async with AsyncExitStack() as opened:
            exchanges = await workers.streams_on_both("count:100,pace=10", opened)
            running.process.kill()
            for exchange in exchanges:
                assert (await exchange.rest()).done
        await workers.gone()
        assert running.err.count('"supervisor gone"') == 2


# ---- signals ---------------------------------------------------------------------------------------------------------


async def test_row_68_streams_of_every_worker_may_finish_within_the_drain(simulator: Simulator, tmp_path: Path) -> None:
    """Also if a service manager signals each process of the group: the workers leave that to the supervisor."""
    async with crew(simulator, tmp_path, drain=10.0) as workers:
        async with AsyncExitStack() as opened:
            exchanges = await workers.streams_on_both("count:100,pace=10", opened)
            pids = [row["pid"] for row in await workers.status()]
            workers.running.process.send_signal(signal.SIGTERM)
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            await workers.running.until_logged('"stopping".*"streams"')
            assert (await workers.admin.get("/readyz")).status == 503
            for exchange in exchanges:
                assert (await exchange.rest()).done
        assert await workers.running.ended() == 0
        await workers.gone()
    assert workers.running.err.count('"stopping"') == 3  # each worker once, the supervisor once


async def test_row_68_streams_that_outlast_the_drain_are_told_by_every_worker(simulator: Simulator, tmp_path: Path) -> None:
    async with crew(simulator, tmp_path, drain=0.2) as workers:
        async with AsyncExitStack() as opened:
            exchanges = await workers.streams_on_both("endless:pace=10", opened)
            workers.running.process.send_signal(signal.SIGINT)
            for exchange in exchanges:
                assert (await exchange.rest()).error["code"] == "server_shutdown"
        assert await workers.running.ended() == 0


async def test_row_68_a_second_signal_ends_every_worker_at_once(simulator: Simulator, tmp_path: Path) -> None:
    async with crew(simulator, tmp_path, drain=600.0) as workers:
        async with AsyncExitStack() as opened:
            exchanges = await workers.streams_on_both("endless:pace=10", opened)
            workers.running.process.send_signal(signal.SIGTERM)
            await workers.running.until_logged('"stopping".*"streams"')
            workers.running.process.send_signal(signal.SIGTERM)
            for exchange in exchanges:
                assert not (await exchange.rest()).done
        assert await workers.running.ended() == 0


async def test_row_69_sighup_changes_every_worker_and_a_bad_configuration_none(
    simulator: Simulator, spare: Simulator, tmp_path: Path
) -> None:
    config = tmp_path / "evenflow.toml"
    async with crew(simulator, tmp_path) as workers:
        config.write_text(CONFIG.format(drain=0.0, more=TWO, upstream=spare.base_url))
        await _reload(workers, {"accepted": 1, "refused": 0, "last_refusal": ""})
        for _ in range(6):
            assert (await workers.client.ask("ok")).done
        assert (simulator.observer.requests, spare.observer.requests) == (0, 6)

        config.write_text("drian = 3")
        refused = [row["config_reloads"] for row in await _reload(workers, {"accepted": 1, "refused": 1})]
        assert all("drian" in reloads["last_refusal"] for reloads in refused)
        # Who is started now gets what the others have.
        os.kill((await workers.status())[1]["pid"], signal.SIGKILL)
        await workers.running.until_logged('"worker_ended"')
        await workers.until_all_serve()
        for _ in range(6):
            assert (await workers.client.ask("ok")).done
        assert spare.observer.requests == 12


# ---- starting --------------------------------------------------------------------------------------------------------


async def test_workers_are_a_setting_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text('workers = 3\n[upstreams.a]\nbase_url = "http://127.0.0.1:9/v1"\n')
    for flags, variables, told in [
        ((), {}, ["3 processes", "evenflow.toml:1"]),
        ((), {"EVENFLOW_WORKERS": "4"}, ["4 processes", "EVENFLOW_WORKERS"]),
        (("--workers", "5"), {"EVENFLOW_WORKERS": "4"}, ["5 processes", "--workers"]),
    ]:
        async with command("check", *flags, cwd=tmp_path, variables=variables) as running:
            assert await running.ended() == 0
        (line,) = [line for line in running.out.splitlines() if line.startswith("workers ")]
        assert re.split(r" {2,}", line)[1:] == told


async def _reload(workers: Crew, wanted: Mapping[str, object]) -> list[dict[str, Any]]:
    """Send SIGHUP, and wait until every worker says that."""
    workers.running.process.send_signal(signal.SIGHUP)
    return await workers.until_status(lambda row: row["config_reloads"].items() >= wanted.items())


async def _run_to_its_end(program: str, simulator: Simulator, tmp_path: Path) -> tuple[int, str]:
    (tmp_path / "evenflow.toml").write_text(CONFIG.format(drain=0.0, more=TWO, upstream=simulator.base_url))
    flags = ("serve", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0")
    keys = {"UP_KEY": UPSTREAM_KEY, "CALLERS": CLIENT_KEY}
    async with command(*flags, cwd=tmp_path, program=program, variables=keys) as running:
        return await running.ended(), running.err
