"""What the endpoints decide: models, embeddings, echoes, refusals, paces, scenarios; and that nothing sent can break them."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.simulator import FAULTS, Recording, Scenario, parse_scenario
from server.simulator.endpoints import Endpoints, Reply, Request
from server.simulator.wire import Send

CHAT = "/v1/chat/completions"


def endpoints(scenario: str = "", **recordings: bytes) -> Endpoints:
    parsed = parse_scenario(scenario) if scenario else Scenario()
    loaded = {name: Recording.of(body) for name, body in recordings.items()}
    return Endpoints(pace=0.02, seed=0, scenario=parsed, recordings=loaded, now=100.0)


def post(body: object, path: str = CHAT, **headers: str) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", path, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def written(reply: Reply) -> bytes:
    return b"".join(step.data for step in islice(reply.answer.steps, 2_000) if isinstance(step, Send))


def status_of(reply: Reply) -> int:
    return int(written(reply).split(b" ", 2)[1])


def json_of(reply: Reply) -> Any:
    return json.loads(written(reply).partition(b"\r\n\r\n")[2])


def paces(reply: Reply) -> set[float]:
    return {step.wait for step in reply.answer.steps if isinstance(step, Send) and step.wait}


def test_every_model_is_listed_with_its_description() -> None:
    listed = json_of(endpoints(hello=b"").reply(Request("GET", "/v1/models", {}, b""), 0))["data"]
    assert {row["id"]: row["description"] for row in listed} == {**FAULTS, "recording:hello": "a recorded stream"}


@pytest.mark.parametrize(("name", "status"), [("ok", 200), ("vendor/ok", 200), ("vendor%2Fok", 200), ("cut:after=5", 200), ("nope", 404)])
def test_one_model(name: str, status: int) -> None:
    reply = endpoints().reply(Request("GET", f"/v1/models/{name}", {}, b""), 0)
    assert status_of(reply) == status


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("GET", CHAT, 405), ("DELETE", "/v1/models", 405), ("POST", "/chat/completions", 404), ("GET", "/", 404), ("GET", "//[", 404)],
)
def test_what_is_not_served(method: str, target: str, status: int) -> None:
    reply = endpoints().reply(Request(method, target, {}, b"{}"), 0)
    assert status_of(reply) == status
    assert json_of(reply)["error"]["message"]


BAD_BODIES = {
    "empty": b"",
    "cut": b"{",
    "array": b"[]",
    "null": b"null",
    "string": b'"x"',
    "no text": b"\xff",
    "deep": b"[" * 100_000,
    "no model": b"{}",
    "model a number": b'{"model":1}',
    "stream a number": b'{"model":"ok","stream":1}',
    "n zero": b'{"model":"ok","n":0}',
    "n true": b'{"model":"ok","n":true}',
    "messages an object": b'{"model":"ok","messages":{}}',
    "unknown argument": b'{"model":"ok:nope=1"}',
    "no number": b'{"model":"cut:after=x"}',
    "pace below zero": b'{"model":"ok:pace=-1"}',
    "pace nan": b'{"model":"ok:pace=nan"}',
    "count too large": b'{"model":"count:99999999999"}',
    "unknown envelope": b'{"model":"ok:envelope=odd"}',
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_requests_are_refused(name: str) -> None:
    reply = endpoints().reply(post(BAD_BODIES[name]), 0)
    assert status_of(reply) == 400
    assert json_of(reply)["error"]["type"] == "invalid_request_error"


def test_an_unknown_model_is_a_404_that_says_where_to_look() -> None:
    reply = endpoints().reply(post({"model": "gpt-9"}), 0)
    assert (status_of(reply), reply.model) == (404, "gpt-9")
    assert "GET /v1/models" in json_of(reply)["error"]["message"]


def test_an_unknown_recording_is_a_404_that_lists_those_there_are() -> None:
    reply = endpoints(one=b"data: 1\n\n").reply(post({"model": "recording:two"}), 0)
    assert status_of(reply) == 404
    assert "loaded: one" in json_of(reply)["error"]["message"]


def test_embeddings_are_small_and_the_same_every_time() -> None:
    asked = post({"model": "e", "input": ["a", "b", "a"]}, "/v1/embeddings")
    first, second = (json_of(endpoints().reply(asked, 0)) for _ in range(2))
    assert first == second
    a, b, again = (row["embedding"] for row in first["data"])
    assert len(a) == 8
    assert a == again != b


@pytest.mark.parametrize("body", [b'{"x":1}', b"\x00\xff", b""])
def test_any_other_path_echoes(body: bytes) -> None:
    told = json_of(endpoints().reply(post(body, "/v1/audio/speech", content_type="x/y"), 0))
    assert (told["path"], told["bytes"], told["content_type"]) == ("/v1/audio/speech", len(body), "x/y")


def test_any_other_path_breaks_too_when_the_model_says_so() -> None:
    assert status_of(endpoints().reply(post({"model": "http-503"}, "/v1/embeddings"), 0)) == 503


@pytest.mark.parametrize(
    ("model", "header", "scenario", "pace"),
    [
        ("count:count=3", None, "", 0.02),
        ("count:count=3", None, "pace_ms = 7", 0.007),
        ("count:count=3", None, 'pace_ms = 7\n[[step]]\nanswer = "count:3"\npace_ms = 9', 0.009),
        ("count:count=3", "5", "pace_ms = 7", 0.005),
        ("count:count=3,pace=3", "5", "pace_ms = 7", 0.003),
        ("big:events=3", "5", "", None),
    ],
)
def test_who_says_the_pace(model: str, header: str | None, scenario: str, pace: float | None) -> None:
    headers = {} if header is None else {"x_simulator_pace_ms": header}
    reply = endpoints(scenario).reply(post({"model": model, "stream": True}, **headers), 0)
    assert paces(reply) == (set() if pace is None else {pace})


@pytest.mark.parametrize("header", ["soon", "-1", "nan", "1e99"])
def test_a_pace_that_is_none(header: str) -> None:
    assert status_of(endpoints().reply(post({"model": "ok"}, x_simulator_pace_ms=header), 0)) == 400


def test_a_scenario_answers_by_order() -> None:
    desk = endpoints(
        """
        text = "from the file"
        [[step]]
        model = "gpt-*"
        answer = "http-503"
        times = 2
        [[step]]
        model = "gpt-*"
        answer = "http-429"
        times = 1
        [[step]]
        model = "gpt-*"
        answer = "ok"
        """
    )
    told = [desk.reply(post({"model": "gpt-4o"}), 0) for _ in range(5)]
    assert [status_of(reply) for reply in told] == [503, 503, 429, 200, 200]
    assert [reply.answered_by for reply in told[2:4]] == ["http-429", "ok"]
    assert told[0].model == "gpt-4o"
    assert json_of(told[4])["choices"][0]["message"]["content"] == "from the file"
    assert json_of(told[4])["model"] == "gpt-4o"
    assert (
        json_of(desk.reply(post({"model": "echo:text=x", "messages": [{"content": "own name"}]}), 0))["choices"][0]["message"]["content"]
        == "own name"
    )
    desk.reset(0)
    assert status_of(desk.reply(post({"model": "gpt-4o"}), 0)) == 503


def test_equal_steps_are_used_up_one_by_one() -> None:
    step = '[[step]]\nmodel = "m"\nanswer = "http-503"\ntimes = 1\n'
    desk = endpoints(step + step + '[[step]]\nmodel = "m"\nanswer = "ok"\n')
    assert [status_of(desk.reply(post({"model": "m"}), 0)) for _ in range(4)] == [503, 503, 200, 200]


def test_flapping_follows_the_clock() -> None:
    desk = endpoints()
    assert [status_of(desk.reply(post({"model": "flap:2"}), 100.0 + at)) for at in (0, 1.9, 2.1, 3.9, 4.1)] == [200, 200, 503, 503, 200]


def test_the_same_request_gets_the_same_bytes() -> None:
    asked = post({"model": "nonce", "stream": True})
    assert written(endpoints().reply(asked, 0)) == written(endpoints().reply(asked, 0))


def test_usage_is_told_when_asked_for() -> None:
    plain, end, each = (
        written(endpoints().reply(post({"model": "count:2", "stream": True, "stream_options": options}), 0))
        for options in (None, {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True})
    )
    assert plain.count(b'"usage"') == 0
    assert end.count(b'"usage"') == 1
    assert b'"choices":[],"usage":{' in end
    assert each.count(b'"usage"') == 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
arguments = st.sampled_from(
    ["", ":", ":1", ":after=0", ":after=99", ":text=%0d%0a,pace=0", ":status=99", ":x=", ":seconds=1e9", ":times=1", ":text=河"]
)
models = st.one_of(st.builds(str.__add__, st.sampled_from(sorted(FAULTS)), arguments), st.text())


@given(
    path=st.sampled_from([CHAT, "/v1/completions", "/v1/embeddings", "/v1/x", "/v1/models", "/"]),
    body=st.one_of(
        st.binary(),
        json_values.map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries(
            {"model": models, "stream": st.booleans()},
            optional=dict.fromkeys(("messages", "prompt", "input", "n", "stream_options", "logprobs"), json_values),
        ).map(lambda value: json.dumps(value).encode()),
    ),
)
def test_nothing_that_is_sent_breaks_it(path: str, body: bytes) -> None:
    reply = endpoints(r=b"data: 1\n\n").reply(post(body, path), 101.0)
    assert all(step is not None for step in islice(reply.answer.steps, 200))
