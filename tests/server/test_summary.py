"""What is said at the start follows from the settings, fits a screen, can be pasted, and shows no key."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

from server.settings_sources import Flags
from server.summary import dev_summary, example_model, serve_summary
from server.terminal import Style

from .settings_files import CANARY, MAIN, SPARE, read

if TYPE_CHECKING:
    from pathlib import Path

URL, ADMIN = "http://127.0.0.1:8143/v1", "http://127.0.0.1:8144"


def told(tmp_path: Path, text: str | None, environ: dict[str, str] | None = None, flags: Flags | None = None) -> str:
    return serve_summary(read(tmp_path, text, environ, flags).settings, URL, ADMIN, Style())


def pasted(text: str) -> tuple[list[str], dict[str, object]]:
    """The words of the curl line, and the body it sends."""
    words = shlex.split(text[text.index("curl -N") :].replace("\\\n", " ").splitlines()[0])
    return words, json.loads(words[words.index("-d") + 1])


def test_one_upstream_and_nothing_else(tmp_path: Path) -> None:
    text = told(tmp_path, None, flags=Flags(upstream="http://127.0.0.1:11434/v1"))
    assert text.splitlines()[:6] == [
        f"{text.split(' listens')[0]} listens on {URL}",
        "  clients    anybody on this machine",
        "  routes     * -> default",
        "  upstreams  default  http://127.0.0.1:11434/v1  without a key",
        "  engine     actors; stutter: repair; loops: observe",
        f"  admin      {ADMIN}/dashboard  {ADMIN}/status  {ADMIN}/metrics",
    ]
    for missing in ("a second upstream", "streaming.resume", "client_keys"):
        assert missing in text
    assert f"curl {URL}/models" in text  # nobody has named a model yet
    words, body = pasted(text)
    assert words[2] == f"{URL}/chat/completions"
    assert body["model"] == "MODEL"
    assert "\x1b" not in text


def test_what_is_configured_is_not_said_to_be_missing(tmp_path: Path) -> None:
    text = told(
        tmp_path,
        f"client_keys = ['{CANARY}']\nstreaming.resume = 'align'\n{MAIN}key_env = 'KEY'\nslots = 2\n{SPARE}auth = 'client'\n"
        "[[routes]]\nmodel = 'coder'\nupstreams = ['main', {upstream = 'spare', model = 'x'}]\n",
        {"KEY": CANARY},
    )
    assert "not set" not in text
    assert "whoever has one of the 1 client_keys" in text
    assert "coder -> main then spare as x" in text
    assert "main   http://main/v1  with a key, 2 at once" in text
    assert "spare  http://spare/v1  with the caller's own key" in text
    words, body = pasted(text)
    assert "authorization: Bearer $KEY" in words
    assert body["model"] == "coder"
    assert "canary" not in text


def test_an_upstream_that_is_asked_over_http2_is_said_to_be(tmp_path: Path) -> None:
    text = told(tmp_path, "[upstreams.main]\nbase_url = 'https://main/v1'\nhttp2 = true\n")
    assert "main  https://main/v1  without a key, over HTTP/2" in text


def test_an_open_listener_is_called_open(tmp_path: Path) -> None:
    text = told(tmp_path, MAIN, flags=Flags(bind="0.0.0.0:8143", allow_anonymous=True))
    assert "anybody who can reach it: there are no client_keys" in text


@pytest.mark.parametrize(
    ("line", "engine"),
    [
        ("streaming.engine = 'relay'", "relay: bytes are copied, nothing is repaired"),
        (
            "streaming = {engine = 'relay', shadow = true}",
            "relay: bytes are copied, nothing is repaired; shadow: what actors would have done",
        ),
        ("streaming.rollout_percent = 5", "actors for 5 % of the streams, relay for the others; stutter: repair"),
    ],
)
def test_the_engine(tmp_path: Path, line: str, engine: str) -> None:
    assert f"engine     {engine}" in told(tmp_path, f"{line}\n{MAIN}")


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (MAIN, "MODEL"),
        (MAIN + "models = ['qwen3:8b']\n", "qwen3:8b"),
        (MAIN + "models = ['llama', 'qwen3:8b']\n[[routes]]\nmodel = 'qwen*'\nupstreams = ['main']\n", "qwen3:8b"),
        (MAIN + "[[routes]]\nmodel = 'a*'\nupstreams = ['main']\n[[routes]]\nmodel = 'b'\nupstreams = ['main']\n", "b"),
    ],
)
def test_the_example_asks_for_a_model_that_a_route_takes(tmp_path: Path, text: str, model: str) -> None:
    settings = read(tmp_path, text).settings
    assert example_model(settings) == model
    assert model == "MODEL" or settings.route_table().find(model) is not None


def test_a_model_of_any_spelling_can_be_pasted(tmp_path: Path) -> None:
    text = told(tmp_path, MAIN + """[[routes]]\nmodel = "it's $HOME/\\"x\\""\nupstreams = ['main']\n""")
    assert pasted(text)[1]["model"] == 'it\'s $HOME/"x"'


def test_dev_names_its_faults(tmp_path: Path) -> None:
    text = dev_summary(URL, ADMIN, "http://127.0.0.1:9/v1", Style(coloured=True))
    assert f"\x1b[1m{URL}\x1b[0m" in text
    assert "stutter-b1" in text
    assert pasted(text)[1]["stream"] is True
