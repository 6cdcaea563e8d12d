"""What is legal and dangerous is told where it was set, with what to do about it; its harmless neighbour is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .settings_files import CANARY, MAIN, SPARE, read

if TYPE_CHECKING:
    from pathlib import Path

LONG = "0123456789abcdef0123456789abcdef"
OPEN = 'bind = "0.0.0.0:8143"\n'
KEYED = MAIN.replace("http:", "https:") + 'key_env = "KEY"\n'
ROUTE = "[[routes]]\nmodel = '*'\nupstreams = ['main', 'spare']\n"

DANGEROUS = [
    (OPEN + "allow_anonymous = true\n" + KEYED, "evenflow.toml:2: allow_anonymous: whoever reaches 0.0.0.0:8143 spends the key of main"),
    (OPEN + "client_keys = ['hunter2']\n" + MAIN, "evenflow.toml:2: client_keys: a key of less than 16 characters"),
    ("edge.cors_origins = ['https://a.b']\n" + MAIN, "evenflow.toml:1: edge.cors_origins: pages of https://a.b may ask without a key"),
    (MAIN + "key_env = 'KEY'\n", "evenflow.toml:2: upstreams.main.base_url: the key goes to main in the clear"),
    (MAIN + "auth = 'client'\n", "evenflow.toml:2: upstreams.main.base_url: the key goes to main in the clear"),
    (MAIN + "headers.api-key = 'x'\n", "evenflow.toml:2: upstreams.main.base_url: the key goes to main in the clear"),
    ("timers.total = 0\ntimers.idle = 0\n" + MAIN, "evenflow.toml:2: timers.idle: and timers.total are both off"),
    ("timers.total = 0\ntimers.first_token = 0\n" + MAIN, "evenflow.toml:2: timers.first_token: and timers.total are both off"),
    (
        "timers.total = 60\ntimers.idle = 90\ntimers.first_token = 50\n" + MAIN,
        "evenflow.toml:2: timers.idle: can never fire: timers.total = 60",
    ),
    ("timers.client_stall = 0\n" + MAIN, "evenflow.toml:1: timers.client_stall: is off"),
    ("admission.max_body_bytes = 1000\n" + MAIN, "evenflow.toml:1: admission.max_body_bytes: is below max_request_body = 33554432"),
    (
        "timers.total = 500\n" + MAIN + SPARE,
        "timers.first_token: the tries of route '*' (1 of each upstream) may take 600 s, but timers.total = 500",
    ),
    (
        MAIN + SPARE + ROUTE + "timers.first_token = 400\nrecovery.first_token_timeout = 'retry'\n",
        "evenflow.toml:8: routes[0].timers.first_token: the tries of route '*' (3 of each upstream) may take 2400 s",
    ),
    (
        "timers = {total = 60, first_token = 60, idle = 60}\nretry = {retries = 3, backoff_cap = 30}\n" + MAIN,
        "evenflow.toml:2: retry.backoff_cap: backing off 3 times may take 90 s",
    ),
    (
        "retry = {budget_ratio = 0, budget_floor = 0}\n" + MAIN + SPARE + ROUTE + "hedge_after = 8\n",
        "evenflow.toml:9: routes[0].hedge_after: has no effect: a hedge is paid from the budget",
    ),
    ("buffer.max_age = 130\n" + MAIN, "evenflow.toml:1: buffer.max_age: holds events of main for 130 s, as long as its timers.idle = 120"),
    (MAIN + "buffer.max_age = 3\ntimers.idle = 0\n", "evenflow.toml:3: upstreams.main.buffer.max_age: holds events of main for up to 3 s"),
    (
        "loop_guard.action = 'cut'\nstreaming.engine = 'relay'\n" + MAIN,
        'evenflow.toml:1: loop_guard.action: is "cut", but streaming.engine',
    ),
    (
        "loop_guard.action = 'cut'\n" + MAIN + "stutter.mode = 'observe'\n",
        'evenflow.toml:1: loop_guard.action: is "cut" and ends streams of main',
    ),
    (MAIN + "loop_guard.action = 'cut'\nstutter.mode = 'observe'\n", "evenflow.toml:3: upstreams.main.loop_guard.action: "),
    ("recorder = {directory = 'x', text = 'full'}\n" + MAIN, 'evenflow.toml:1: recorder.text: is "full": everything that models answer'),
    ("workers = 3\n" + MAIN + "slots = 2\n", "evenflow.toml:4: upstreams.main.slots: counts per worker: with workers = 3 it gets up to 6"),
    ("breaker.mode = 'forced_open'\n" + MAIN, 'evenflow.toml:1: breaker.mode: is "forced_open" for every upstream'),
]


@pytest.mark.parametrize(("text", "expected"), DANGEROUS, ids=[expected[:60] for _, expected in DANGEROUS])
def test_a_dangerous_combination_warns_once_where_it_stands(tmp_path: Path, text: str, expected: str) -> None:
    (warning,) = read(tmp_path, text, {"KEY": CANARY}).warnings
    assert warning.startswith(expected)
    assert "; " in warning
    assert "canary" not in warning


@pytest.mark.parametrize(
    "text",
    [
        MAIN,
        OPEN + f"client_keys = ['{LONG}']\n" + KEYED,
        OPEN + "allow_anonymous = true\n" + MAIN,  # strangers can ask, but spend nobody's key
        "client_keys = ['hunter2']\n" + MAIN,  # on loopback
        f"admin_bind = '0.0.0.0:8144'\nadmin_keys = ['{LONG}']\n" + MAIN,
        f"edge.cors_origins = ['https://a.b']\nclient_keys = ['{LONG}']\n" + MAIN,
        MAIN.replace("main/", "127.0.0.1:8000/") + "key_env = 'KEY'\n",
        MAIN.replace("main/", "[::1]:8000/") + "key_env = 'KEY'\n",
        MAIN.replace("main/", "host.docker.internal:8000/") + "key_env = 'KEY'\n",
        MAIN + "headers.x-team = 'x'\n",
        "timers.total = 0\n" + MAIN,
        "timers.total = 600\n" + MAIN + SPARE,
        "recovery.first_token_timeout = 'fail'\ntimers.total = 500\n" + MAIN + SPARE,
        "admission.max_body_bytes = 0\n" + MAIN,
        "retry = {budget_ratio = 0}\n" + MAIN + SPARE + ROUTE + "hedge_after = 8\n",
        "buffer.max_age = 2\n" + MAIN,
        "recorder.directory = 'x'\n" + MAIN,
        "workers = 3\n" + MAIN,
        "recorder.text = 'full'\n" + MAIN,
        "loop_guard.action = 'cut'\n" + MAIN,
        "loop_guard.action = 'observe'\nstutter.mode = 'observe'\n" + MAIN,
        MAIN + "breaker.mode = 'forced_open'\n" + SPARE,
    ],
)
def test_its_harmless_neighbour_does_not(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text, {"KEY": CANARY}).warnings == ()
