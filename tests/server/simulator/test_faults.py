"""Every fault model, by the bytes it puts on a real socket."""

from __future__ import annotations

import pytest

from server.simulator import FAULTS, Ending, Recording, faults_table, open_simulator

from .fault_table import ABORTED, ON_THE_WIRE
from .raw_client import ask
from .test_fault_sequences import UNENDING
from .wire_checks import RECORDINGS, TEXT


def _spec(name: str, arguments: str) -> str:
    if "text=" in arguments or name in ("count", "nul", "line-breaks"):
        return f"{name}:{arguments}".rstrip(":")
    return f"{name}:{arguments},text={TEXT}" if arguments else f"{name}:text={TEXT}"


def test_every_fault_model_is_shown_on_the_wire() -> None:
    assert {*ON_THE_WIRE, *(name.partition(":")[0] for name in UNENDING)} == set(FAULTS)


def test_the_table_for_the_documentation_has_a_row_for_each() -> None:
    rows = faults_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(FAULTS)


LOADED = {name: Recording.of(body) for name, body in RECORDINGS.items()}


@pytest.mark.parametrize("name", ON_THE_WIRE)
async def test_bytes_of(name: str) -> None:
    arguments, check = ON_THE_WIRE[name]
    async with open_simulator(pace=0.0, recordings=LOADED) as simulator:
        wire = await ask(simulator, _spec(name, arguments))
        check(wire)
        [seen] = simulator.observer.seen
        assert seen.ending is (Ending.ABORTED_BY_FAULT if name in ABORTED else Ending.COMPLETED)


@pytest.mark.parametrize("name", ON_THE_WIRE)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_without_stream_there_is_one_answer(name: str, path: str) -> None:
    arguments, _ = ON_THE_WIRE[name]
    async with open_simulator(pace=0.0, recordings=LOADED) as simulator:
        wire = await ask(simulator, _spec(name, arguments), stream=False, path=path)
        [seen] = simulator.observer.seen
        assert seen.ending in (Ending.COMPLETED, Ending.ABORTED_BY_FAULT)
        if (
            seen.ending is Ending.COMPLETED
            and wire.status == 200
            and name not in ("recording", "until-close", "informational", "empty-body")
        ):
            assert wire.ended
            assert wire.headers["content-type"] in ("application/json", "none")
