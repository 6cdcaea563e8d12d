"""Each `recovery.<fault>` setting with more than one legal value: what each value makes of the same fault.

A route of two upstreams, `first` with the fault and `spare` without. RETRY asks the first again and only then the spare, FAILOVER
goes to the spare at once, FAIL hands the fault to the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors.sansio.error_recovery import STRATEGIES
from server.settings import RouteSettings, UpstreamRef

from .running_proxy import running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from server.simulator import Simulator

#: recovery.<name>, the simulator's model that has this fault, and the status the client gets if it is handed the fault.
FAULTS = [
    ("first_token_timeout", "silence", 504),
    ("cut", "close-before-headers", 502),
    ("server_error", "http-500", 500),
    ("rate_limited", "http-429:retry_after_ms=20", 429),
    ("auth", "http-401", 502),
    ("context_length", "context-length", 400),
]
RETRIES = 1
#: How often the first and the spare upstream are asked under each strategy.
ASKED = {"retry": (1 + RETRIES, 1), "failover": (1, 1), "fail": (1, 0)}


def cases(faults: list[tuple[str, str, int]]) -> list[tuple[str, str, int, str]]:
    return [(name, model, status, str(strategy)) for name, model, status in faults for strategy in STRATEGIES[name]]


@pytest.mark.parametrize("engine", ["actors", "relay"])
@pytest.mark.parametrize(("fault", "model", "status", "strategy"), cases(FAULTS))
async def test_what_follows_a_fault_is_chosen_by_its_setting(
    fault: str, model: str, status: int, strategy: str, engine: str, simulator: Simulator, spare: Simulator
) -> None:
    # Only silence has a short deadline, and only the silent upstream: on a slow machine any other answer would miss it as well, and
    # that would be another fault. Half a second is for the request to get there before it is given up.
    short = {"first_token": 0.5} if fault == "first_token_timeout" else {}
    route = RouteSettings(model="*", upstreams=(UpstreamRef("first", model), UpstreamRef("spare", "ok")))
    settings = settings_for(
        {"first": upstream_of(simulator, timers=short), "spare": spare},
        engine=engine,
        routes=[route],
        retry={"retries": RETRIES},
        recovery={fault: strategy},
    )
    async with running_proxy(settings, simulator, spare) as proxy:
        answer = await proxy.client.ask("anything")
        assert answer.status == (status if strategy == "fail" else 200)
        assert (len(simulator.observer.seen), len(spare.observer.seen)) == ASKED[strategy]


@pytest.mark.parametrize("engine", ["actors", "relay"])
@pytest.mark.parametrize(("fault", "strategy"), [("connect", s) for s in STRATEGIES["connect"]] + [("tls", s) for s in STRATEGIES["tls"]])
async def test_what_follows_a_connection_that_cannot_be_had(
    fault: str, strategy: str, engine: str, simulator: Simulator, spare: Simulator, unused_port: int
) -> None:
    # A TLS handshake with a server that speaks plain HTTP fails; a port without a listener refuses.
    broken = f"http://127.0.0.1:{unused_port}/v1" if fault == "connect" else simulator.base_url.replace("http:", "https:")
    settings = settings_for({"first": broken, "spare": spare}, engine=engine, retry={"retries": RETRIES}, recovery={fault: str(strategy)})
    async with running_proxy(settings, simulator, spare) as proxy:
        answer = await proxy.client.ask("ok")
        assert (answer.status, answer.error["code"] if strategy == "fail" else None) == (
            (502, f"upstream_{fault}_error") if strategy == "fail" else (200, None)
        )
        assert answer.header("x-evenflow-attempts") == str(sum(ASKED[str(strategy)]))
        assert proxy.circuit("first").failures == ASKED[str(strategy)][0]


async def test_a_route_has_its_own_setting(simulator: Simulator, spare: Simulator) -> None:
    routes = [
        RouteSettings(
            model="strict", upstreams=(UpstreamRef("first", "http-500"), UpstreamRef("spare", "ok")), recovery={"server_error": "fail"}
        ),
        RouteSettings(model="*", upstreams=(UpstreamRef("first", "http-500"), UpstreamRef("spare", "ok"))),
    ]
    async with running_proxy(settings_for({"first": simulator, "spare": spare}, routes=routes), simulator, spare) as proxy:
        assert (await proxy.client.ask("strict")).status == 500
        assert (await proxy.client.ask("other")).status == 200


@pytest.mark.parametrize("strategy", STRATEGIES["bad_chunk"])
async def test_row_15_skipping_a_torn_chunk_is_opt_in(strategy: str, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, recovery={"bad_chunk": str(strategy)}), simulator) as proxy:
        answer = await proxy.client.ask("torn-chunk")
        if strategy == "skip":
            assert answer.done
        else:
            assert answer.error["code"] == "upstream_bad_chunk"


@pytest.mark.parametrize("strategy", STRATEGIES["reasoning_cut"])
async def test_asking_again_after_reasoning_alone_can_be_switched_off(strategy: str, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, recovery={"reasoning_cut": str(strategy)}), simulator) as proxy:
        answer = await proxy.client.ask("reasoning-cut")
        if strategy == "replay":
            assert answer.done
        else:
            assert answer.error["code"] == "upstream_disconnected"
        assert len(simulator.observer.seen) == (2 if strategy == "replay" else 1)
