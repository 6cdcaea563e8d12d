"""A model that never stops repeating itself, over real sockets: what the client gets, and that the upstream is let go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.settings import LoopGuardSettings

from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator


async def test_cut_ends_an_endless_stream_and_its_upstream(simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, loop_guard=LoopGuardSettings(action="cut"))
    async with running_proxy(settings, simulator) as proxy:
        answer = await proxy.client.ask("endless:pace=0")
        assert answer.status == 200
        assert answer.whole
        assert answer.error["code"] == "repetition_loop"
        assert 1200 <= answer.body.count(b"on and ") * len("on and ") < 4000
        await proxy.until_quiet()
        assert simulator.observer.closes == 1
        circuit = proxy.circuit("main")
        assert (circuit.state, circuit.calls, circuit.failures) == ("closed", 1, 0)


@pytest.mark.parametrize("action", ["observe", "warn"])
async def test_the_milder_actions_let_a_repetition_pass(action: str, simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, loop_guard=LoopGuardSettings(action="warn" if action == "warn" else "observe"))
    async with running_proxy(settings, simulator) as proxy:
        answer = await proxy.client.ask("repeat:1000,pace=0,text=so it goes ")
        assert answer.done
        assert answer.text() == "so it goes " * 1000
        assert [b"the model repeats itself" in comment for comment in answer.comments] == [True] * (action == "warn")
        metrics = (await proxy.admin.get("/metrics")).body.decode()
        assert f'evenflow_loops_total{{action="{action}"}} 1.0' in metrics
