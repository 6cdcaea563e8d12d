"""Colours and lines that are written over are for terminals, and only for those that want them."""

from __future__ import annotations

import io

import pytest

from server.terminal import Progress, Style


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_terminal_gets_colours() -> None:
    assert Style.of(Terminal()).bold("x") == "\x1b[1mx\x1b[0m"


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_one_that_wants_none_does_not(monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]) -> None:
    monkeypatch.setenv(*variable)
    style = Style.of(Terminal())
    assert [style.bold("x"), style.dim("x"), style.warning("x")] == ["x", "x", "x"]


def test_an_empty_no_color_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As https://no-color.org wants it: present and not empty."""
    monkeypatch.setenv("NO_COLOR", "")
    assert Style.of(Terminal()).coloured


def test_a_file_or_a_pipe_gets_neither() -> None:
    out = io.StringIO()
    assert not Style.of(out).coloured
    assert list(Progress(out, "replay").through("ab")) == ["a", "b"]
    assert out.getvalue() == ""


def test_progress_is_gone_when_it_is_through() -> None:
    out = Terminal()
    assert list(Progress(out, "replay").through("ab")) == ["a", "b"]
    shown = out.getvalue().split("\r\x1b[K")
    assert shown == ["", "replay 1/2", "replay 2/2", ""]


def test_progress_is_gone_as_well_when_it_breaks_off() -> None:
    out = Terminal()
    steps = Progress(out, "replay").through("ab")
    next(steps)
    del steps
    assert out.getvalue().endswith("\r\x1b[K")
