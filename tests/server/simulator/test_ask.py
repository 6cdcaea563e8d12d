"""The grammar of model names."""

from __future__ import annotations

import pytest

from server.simulator.ask import BadRequest, Value, parse_model
from server.simulator.faults import MODELS


@pytest.mark.parametrize(
    ("spec", "name", "expected"),
    [
        ("ok", "ok", {"text": "", "pace": -1.0, "times": 0}),
        ("cut", "cut", {"after": 6}),
        ("cut:5", "cut", {"after": 5}),
        ("cut:after=5,times=1", "cut", {"after": 5, "times": 1}),
        ("cut:5,pace=2.5", "cut", {"after": 5, "pace": 2.5}),
        ("slow-first-token:2.5", "slow-first-token", {"seconds": 2.5}),
        ("http:status=429,retry_after=2", "http", {"status": 429, "retry_after": "2"}),
        ("http-503:date", "http-503", {"status": 503, "retry_after": "date"}),
        ("ok:text=a%2C b%3Dc", "ok", {"text": "a, b=c"}),
        ("ok:text=a=b", "ok", {"text": "a=b"}),
        ("recording:a b.sse", "recording", {"name": "a b.sse"}),
        ("nonce:envelope=usage", "nonce", {"envelope": "usage"}),
        ("vendor/ok:pace=0", "vendor/ok", {"pace": 0.0}),
    ],
)
def test_names_and_their_arguments(spec: str, name: str, expected: dict[str, Value]) -> None:
    model, options = parse_model(spec, MODELS)
    assert model is MODELS[name]
    assert {key: options[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nope", "no fault model 'nope'"),
        ("ok:5", "'ok' has no argument '5'"),
        ("cut:5,6", "'cut' has no argument '6'"),
        ("cut:after", "after: a number"),
        ("cut:after=-1", "after: a number"),
        ("cut:after=1.5", "after: a number"),
        ("stall:seconds=inf", "seconds: a number"),
        ("ok:envelope=paper", "envelope is one of constant, nonce, usage, dashscope"),
    ],
)
def test_what_is_wrong_is_said(spec: str, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_model(spec, MODELS)
    assert said in str(caught.value)
