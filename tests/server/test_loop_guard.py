"""The loop guard as it is configured, counted, logged and replayed."""

from __future__ import annotations

import pytest

from actors import Failed, FaultKind, LoopPolicy
from server.buffers import guard_factory
from server.replay import replay
from server.settings import LoopGuardSettings, Settings, UpstreamSettings

from ..fakes import DONE, content, finish, role

LOOP = role() + content("I hope this helps! ") * 300 + finish() + DONE


def test_each_upstream_has_its_own_policy() -> None:
    upstreams = {
        "plain": UpstreamSettings(base_url="http://a/v1"),
        "strict": UpstreamSettings(base_url="http://b/v1", loop_guard={"action": "cut", "characters": 600}),
        "blind": UpstreamSettings(base_url="http://c/v1", loop_guard={"action": "off"}),
    }
    open_guard = guard_factory(Settings(configured_upstreams=upstreams, loop_guard=LoopGuardSettings(action="warn", repetitions=12)))
    plain, strict = open_guard("plain"), open_guard("strict")
    assert plain is not None
    assert strict is not None
    assert plain.policy == LoopPolicy(action="warn", repetitions=12)
    assert strict.policy == LoopPolicy(action="cut", repetitions=12, characters=600)
    assert open_guard("blind") is None
    assert open_guard("plain") is not plain, "an attempt must not see what another one said"


def test_the_default_only_observes() -> None:
    open_guard = guard_factory(Settings(configured_upstreams={"main": UpstreamSettings(base_url="http://a/v1")}))
    guard = open_guard("main")
    assert guard is not None
    assert guard.policy == LoopPolicy(action="observe")


def test_replay_tells_what_repeats_and_where() -> None:
    replayed = replay(LOOP)
    assert replayed.body == LOOP
    (line,) = [line for line in replayed.decisions if "the model repeats itself" in line]
    assert "19 characters" in line
    assert "up to character 1536" in line
    assert "help" in line
    assert "loops observe x1" in replayed.decisions[-1]


@pytest.mark.parametrize("action", ["warn", "cut"])
def test_replay_does_what_the_policy_says(action: str) -> None:
    replayed = replay(LOOP, loops=LoopPolicy(action="cut" if action == "cut" else "warn"))
    assert replayed.tally.loops == {action: 1}
    if action == "warn":
        assert b"\n\n: evenflow: the model repeats itself" in replayed.body
    else:
        assert isinstance(replayed.end, Failed)
        assert replayed.end.fault.kind is FaultKind.LOOP
        assert b'"code": "repetition_loop"' in replayed.body
        assert not replayed.body.endswith(DONE)
