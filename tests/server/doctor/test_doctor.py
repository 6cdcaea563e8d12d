"""The doctor before simulated upstreams, over real sockets: what it finds, what it recommends, what it costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from actors import Upstream, open_upstream_client
from server.cli import evenflow
from server.doctor.findings import Diagnosis, diagnose
from server.doctor.probes import COSTS, Doctor, Probe, server_root
from server.simulator import Simulator, open_simulator
from server.simulator.wire import Answer, Hangup, Send, response_head, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from click.testing import Result

    from server.simulator.endpoints import Reply, Request

_ALL: tuple[Probe, ...] = ("leave", "prefix")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with open_simulator(pace=0.001) as running:
        yield running


async def examine(base_url: str, model: str, probes: tuple[Probe, ...] = (), patience: float = 5.0, **fields: Any) -> Diagnosis:
    upstream = Upstream("main", base_url, **fields)
    async with open_upstream_client((upstream, server_root(upstream))) as client:
        doctor = Doctor(client, upstream, patience=patience)
        await doctor.look()
        if not doctor.examination.unreachable:
            await doctor.ask(model, probes, lambda _: None)
        return diagnose(doctor.examination, {})


def found(diagnosis: Diagnosis, topic: str) -> list[tuple[str, str]]:
    return [(finding.level, finding.what) for finding in diagnosis.findings if finding.topic == topic]


async def test_a_good_upstream_is_healthy_and_its_profile_can_be_pasted(simulator: Simulator) -> None:
    diagnosis = await examine(simulator.base_url, "continues", _ALL)
    assert diagnosis.healthy
    assert found(diagnosis, "disconnect") == [("good", "stops generating when its client leaves")]
    assert found(diagnosis, "stutter") == [("good", "nothing came twice")]
    assert tomllib.loads(diagnosis.toml()) == {
        "upstreams": {"main": {"base_url": simulator.base_url, "continuation": "continue_final_message"}}
    }


@pytest.mark.parametrize(
    ("model", "level", "topic", "words"),
    [
        ("no-done", "note", "end", "without [DONE]; evenflow adds it"),
        ("truncated", "bad", "end", "neither [DONE] nor a finish_reason"),
        ("cut", "bad", "end", "was cut"),
        ("wrong-content-type", "note", "content-type", "'application/json'"),
        ("gzip", "bad", "encoding", "gzip"),
        ("crlf", "note", "line-ends", "CR LF"),
        ("comments", "note", "comments", "comment line"),
        ("one-packet", "bad", "buffering", "came at once"),
        ("usage-each", "good", "usage", "repeats can be proven"),
        ("error-mid", "bad", "stream", "inside the stream the error"),
        ("http-401", "bad", "auth", "HTTP 401"),
        ("http-404", "bad", "model", "no stream of http-404"),
        ("http-429", "bad", "quota", "asked too often"),
        ("http-500", "bad", "stream", "HTTP 500"),
        ("reset-before-headers", "bad", "stream", "got no answer"),
        ("empty", "bad", "text", "brought no text"),
        ("reasoning", "good", "reasoning", "a field of its own"),
        ("stutter-a1", "note", "stutter", "(A1"),
    ],
)
async def test_what_one_habit_is_called(simulator: Simulator, model: str, level: str, topic: str, words: str) -> None:
    diagnosis = await examine(simulator.base_url, model)
    assert any(seen == level and words in told for seen, told in found(diagnosis, topic)), diagnosis.findings
    assert diagnosis.healthy == all(finding.level != "bad" for finding in diagnosis.findings)


async def test_each_bad_finding_says_what_to_do(simulator: Simulator) -> None:
    for model in ("cut", "gzip", "http-401", "http-500", "one-packet", "error-mid", "truncated"):
        diagnosis = await examine(simulator.base_url, model)
        bad = [finding for finding in diagnosis.findings if finding.level == "bad"]
        assert bad
        assert all(finding.remedy for finding in bad)


async def test_an_upstream_that_is_not_there(unused_tcp_port: int) -> None:
    diagnosis = await examine(f"http://127.0.0.1:{unused_tcp_port}/v1", "any")
    assert not diagnosis.healthy
    [(level, told)] = found(diagnosis, "reach")
    assert level == "bad"
    assert "Connection refused" in told


async def test_a_silent_upstream_costs_the_patience_and_no_more(simulator: Simulator) -> None:
    began = trio.current_time()
    diagnosis = await examine(simulator.base_url, "silence", _ALL, patience=0.2)
    assert found(diagnosis, "stream") == [("bad", "a plain request for a stream got no answer: no answer began within 0.2 s")]
    assert trio.current_time() - began < 20.0


class _RunsOn(Simulator):
    """Says of itself that it goes on serving whoever left."""

    def respond(self, request: Request) -> tuple[Reply, bool]:
        reply, recorded = super().respond(request)
        if request.path == "/metrics":
            return type(reply)(whole(200, b"vllm:num_requests_running 1.0\n")), False
        return reply, recorded


async def test_an_upstream_that_goes_on_without_its_client(simulator: Simulator) -> None:
    simulator.__class__ = _RunsOn  # of a running one, whose connections go on asking it
    diagnosis = await examine(simulator.base_url, "ok", ("leave",))
    [(level, told)] = found(diagnosis, "disconnect")
    assert level == "bad"
    assert "goes on generating when its client leaves (by its own metrics)" in told


@pytest.mark.parametrize("answer", [Answer((Send(response_head(500, (("content-length", "9"),)) + b'{"err'), Hangup())), whole(500, b"")])
async def test_an_error_without_words_is_one(answer: Answer, simulator: Simulator) -> None:
    class Mumbles(Simulator):
        def respond(self, request: Request) -> tuple[Reply, bool]:
            reply, recorded = super().respond(request)
            return (type(reply)(answer) if request.method == "POST" else reply), recorded

    simulator.__class__ = Mumbles
    diagnosis = await examine(simulator.base_url, "ok")
    assert found(diagnosis, "stream") == [("bad", "a plain request for a stream is answered with HTTP 500: without a word")]


@pytest.mark.parametrize(
    ("count", "read"), [(b"1.0", True), (b"1", True), (b"1e0", True), (b"1.0 1763750000000", True), (b"1.2.3", False), (b"1e", False)]
)
async def test_what_a_server_may_say_of_itself(count: bytes, read: bool, simulator: Simulator) -> None:
    class Talks(Simulator):
        def respond(self, request: Request) -> tuple[Reply, bool]:
            reply, recorded = super().respond(request)
            if request.path == "/metrics":
                return type(reply)(whole(200, b"vllm:num_requests_running %s\n" % count)), False
            return reply, recorded

    simulator.__class__ = Talks
    diagnosis = await examine(simulator.base_url, "ok", ("leave",))
    assert any("by its own metrics" in told for _, told in found(diagnosis, "disconnect")) == read


async def test_prefix_where_it_is_refused_and_where_it_is_ignored(simulator: Simulator) -> None:
    for model in ("no-prefix", "ok"):
        diagnosis = await examine(simulator.base_url, model, ("prefix",))
        assert found(diagnosis, "prefix") == [("note", "does not go on from the beginning of an answer")]
        assert "continuation" not in diagnosis.profile
    configured = await examine(simulator.base_url, "ok", ("prefix",), continuation="partial")
    assert [level for level, _ in found(configured, "prefix")] == ["bad"]


async def test_no_request_may_cost_more_than_was_said(simulator: Simulator) -> None:
    await examine(simulator.base_url, "continues", _ALL)
    asked = [json.loads(seen.body)["max_tokens"] for seen in simulator.observer.seen if seen.method == "POST"]
    assert 0 < sum(asked) <= sum(COSTS.values())


@pytest.mark.parametrize(
    ("base_url", "profile"),
    [
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://portal.qwen.ai/v1", "portal"),
        ("https://notportal.qwen.ai.example/v1", None),
    ],
)
def test_known_hosts_get_their_stutter_profile(base_url: str, profile: str | None) -> None:
    from server.doctor.probes import Examination

    diagnosis = diagnose(Examination(Upstream("a b", base_url)), {"key_env": "KEY"})
    assert diagnosis.profile.get("stutter.profile") == profile
    assert tomllib.loads(diagnosis.toml())["upstreams"]["a b"]["key_env"] == "KEY"


def _doctor(*arguments: str, config: Path, **environ: str) -> Result:
    return CliRunner().invoke(evenflow, ["doctor", "--config", str(config), *arguments], env=environ)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """A configuration whose upstream is a simulator in a process of its own; the command blocks its own."""
    command = [sys.executable, "-m", "server", "simulate", "--bind", "127.0.0.1:0", "--pace", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = re.search(r"base_url (\S+),", process.stderr.readline())
        assert said is not None
        path = tmp_path / "evenflow.toml"
        path.write_text(f'[upstreams.main]\nbase_url = "{said[1]}"\n')
        yield path
        process.terminate()


def test_nothing_is_spent_where_nobody_can_agree(running: Path) -> None:
    result = _doctor("--model", "ok", config=running)
    assert result.exit_code == 2
    assert "at most 1,408 tokens of output" in result.stderr
    assert "add --yes" in result.stderr
    result = _doctor("--yes", config=running)
    assert result.exit_code == 2
    assert "say which model to ask for, with --model NAME; it lists ok, vendor/ok, ok-zh" in result.stderr


def test_the_report_and_its_json(running: Path) -> None:
    result = _doctor("--yes", "--model", "continues", config=running)
    assert result.exit_code == 0, result.output
    assert "ok    stops generating when its client leaves" in result.stdout
    assert 'continuation = "continue_final_message"' in result.stdout
    result = _doctor("--yes", "--model", "http-500", "--json", config=running)
    assert result.exit_code == 1
    [told] = json.loads(result.stdout)
    assert told["upstream"] == "main"
    assert told["healthy"] is False
    assert {"level": "bad", "topic": "stream"}.items() <= next(f for f in told["findings"] if f["level"] == "bad").items()


def test_an_upstream_that_is_not_configured(running: Path) -> None:
    result = _doctor("--upstream", "other", config=running)
    assert (result.exit_code, result.stderr) == (2, "evenflow: no upstream is called 'other'; configured: main\n")
