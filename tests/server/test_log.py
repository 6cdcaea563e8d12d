from __future__ import annotations

import io
import json
import logging
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.outcome import End, Outcome, Party, Phase, Tally
from actors.sansio.faults import Fault, FaultKind
from server import log
from server.log import configure_logging, dropped_lines, is_plain, log_breaker_transition, printable, redact, register_secrets
from server.request_line import log_request, outcome_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

#: 22 November 2026, by the wall's clock.
AT = 1795338000.25
CANARY = "sk-canary-4f7d1c0a9e"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Logs(Protocol):
    def __call__(self, format: str = "json", level: str = "info") -> _Reader: ...


class _Reader:
    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def lines(self) -> list[str]:
        log.close_logging()
        return self._stream.getvalue().splitlines()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def logs() -> Iterator[Logs]:
    """Logging into memory; gives what was written, once everything was."""
    before = logging.getLogger().level

    def configure(format: Any = "json", level: str = "info") -> _Reader:
        stream = io.StringIO()
        configure_logging(format, level, stream)
        return _Reader(stream)

    yield configure
    log.close_logging()
    logging.getLogger().setLevel(before)


def make_outcome(end: End = End.DONE, fault: Fault | None = None, **changes: Any) -> Outcome:
    tally = Tally(
        started=100.0,
        first_token=100.01234,
        ended=103.4567,
        attempts=2,
        retries=1,
        bytes_in=5000,
        bytes_out=4000,
        events=40,
        holds=2,
        longest_hold=0.0312,
        skipped=1,
        keepalives=3,
        done_added=True,
        replayed=1,
        resumes=Counter({("align", "joined"): 1}),
        hedges=Counter({"won": 1}),
        repairs=Counter({"B1": 1}),
        loops=Counter({"observe": 1}),
    )
    values: dict[str, Any] = {
        "end": end,
        "party": Party.NOBODY,
        "phase": Phase.NONE,
        "status": 200,
        "fault": fault,
        "upstream": "local",
        "tally": tally,
    }
    return Outcome(**values | changes)


def write(outcome: Outcome, *, model: str = "qwen3", stream: bool = True) -> None:
    log_request(
        outcome_facts(outcome),
        AT,
        request_id="req-1",
        route="qwen*",
        model=model,
        engine="actors",
        endpoint="/v1/chat/completions",
        client="key-12345678",
        stream=stream,
    )


def test_the_canonical_line_says_everything_about_a_stream(logs: Logs) -> None:
    reader = logs()
    fault = Fault(FaultKind.IDLE_TIMEOUT, "upstream 'local': silent", upstream="local", setting="timers.idle")
    write(make_outcome(End.ERROR, fault, party=Party.UPSTREAM_SILENT, phase=Phase.DATA, cancel_latency=0.00123))
    (event,) = reader.events()
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "stream",
        "level": "warning",
        "id": "req-1",
        "outcome": "error",
        "termination": "uD",
        "status": 200,
        "endpoint": "chat/completions",
        "model": "qwen3",
        "route": "qwen*",
        "upstream": "local",
        "attempts": 2,
        "engine": "actors",
        "client": "key-12345678",
        "fault": "idle_timeout",
        "fault_message": "upstream 'local': silent",
        "setting": "timers.idle",
        "ttft_ms": 12.3,
        "total_ms": 3457,
        "cancel_ms": 1.2,
        "hedged": {"won": 1},
        "events": 40,
        "bytes_in": 5000,
        "bytes_out": 4000,
        "holds": 2,
        "longest_hold_ms": 31.2,
        "repairs": {"B1": 1},
        "loops": {"observe": 1},
        "skipped": 1,
        "keepalives": 3,
        "replayed": 1,
        "resumes": {"align joined": 1},
        "done_added": True,
    }


def test_every_line_has_the_same_fields(logs: Logs) -> None:
    reader = logs()
    write(make_outcome())
    write(Outcome(End.CANCELLED, Party.CLIENT, Phase.CONNECTING, 0, None, "", Tally()))
    rich, poor = reader.events()
    assert list(rich) == list(poor)
    assert poor["ttft_ms"] is poor["total_ms"] is poor["fault"] is None


@pytest.mark.parametrize(("end", "level"), [(End.DONE, "info"), (End.CANCELLED, "info"), (End.ERROR, "warning")])
def test_only_an_error_is_a_warning(logs: Logs, end: End, level: str) -> None:
    reader = logs()
    write(make_outcome(end))
    assert [event["level"] for event in reader.events()] == [level]


def test_a_request_without_a_stream_is_called_so(logs: Logs) -> None:
    reader = logs()
    write(make_outcome(), stream=False)
    assert [event["event"] for event in reader.events()] == ["request"]


def test_level_leaves_out_what_is_below_it(logs: Logs) -> None:
    reader = logs(level="warning")
    write(make_outcome())
    write(make_outcome(End.ERROR))
    assert [event["outcome"] for event in reader.events()] == ["error"]


@pytest.mark.parametrize(("after", "level"), [("open", "warning"), ("forced_open", "warning"), ("half_open", "info"), ("closed", "info")])
def test_a_circuit_that_opens_is_a_warning(logs: Logs, after: str, level: str) -> None:
    reader = logs()
    log_breaker_transition("local", "half_open", after, "5 failures in a row")
    (event,) = reader.events()
    assert (event["event"], event["level"], event["upstream"]) == ("breaker", level, "local")
    assert (event["before"], event["after"], event["reason"]) == ("half_open", after, "5 failures in a row")


@pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)])
def test_auto_is_readable_on_a_terminal_and_json_elsewhere(logs: Logs, stream: io.StringIO, is_json: bool) -> None:
    configure_logging("auto", "info", stream)
    write(make_outcome())
    (line,) = _Reader(stream).lines()
    assert line.startswith("{") is is_json


def test_no_color_is_respected(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, setting in (("TERM", "dumb"), ("NO_COLOR", "1")):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv(name, setting)
        terminal = Terminal()
        configure_logging("auto", "info", terminal)
        write(make_outcome())
        (line,) = _Reader(terminal).lines()
        assert "\x1b" not in line
    monkeypatch.delenv("NO_COLOR")
    terminal = Terminal()
    configure_logging("auto", "info", terminal)
    write(make_outcome())
    assert "\x1b[" in _Reader(terminal).lines()[0]


def test_text_says_nothing_about_nothing(logs: Logs) -> None:
    reader = logs("text")
    write(Outcome(End.CANCELLED, Party.CLIENT, Phase.CONNECTING, 0, None, "", Tally(ended=0.05)))
    (line,) = reader.lines()
    assert "termination=CC" in line
    assert "total_ms=50.0" in line
    assert "status=0" in line
    for absent in ("fault", "skipped", "holds", "ttft", "upstream"):
        assert absent not in line


@given(st.text(max_size=300))
def test_no_text_of_a_client_can_forge_a_line_or_reach_the_terminal(model: str) -> None:
    for format in ("text", "json"):
        stream = io.StringIO()
        configure_logging(format, "info", stream)
        write(make_outcome(), model=model)
        log.close_logging()
        written = stream.getvalue()
        assert written.count("\n") == 1
        assert written.endswith("\n")
        assert written[:-1].isprintable()
        if format == "json":
            assert len(json.loads(written)["model"]) <= 200 * len("\\U0010ffff")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("qwen/鍵-3:8b ü", "qwen/鍵-3:8b ü"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


class Opaque:
    def __str__(self) -> str:
        return f"<holds {CANARY}>"


@pytest.mark.parametrize("format", ["json", "text"])
def test_a_registered_secret_is_in_no_line_whoever_logs_it(logs: Logs, format: str) -> None:
    register_secrets([CANARY, 'quo"ted-canary'])
    reader = logs(format)
    fault = Fault(FaultKind.AUTH, f"Incorrect API key provided: {CANARY}")
    write(make_outcome(End.ERROR, fault), model=CANARY)
    write(make_outcome(), model="x" * 190 + CANARY)  # the cut at 200 would leave its first half
    other = logging.getLogger("somebody.else")
    other.warning("the header was %r", {"authorization": f"Bearer {CANARY}"})
    other.warning(Opaque())
    other.warning("body: %s", json.dumps({"error": 'bad key quo"ted-canary'}))
    try:
        raise RuntimeError(f"with {CANARY} in hand")
    except RuntimeError:
        other.exception("it broke")
    other.warning("where", stack_info=True)
    text = "\n".join(reader.lines())
    assert CANARY[:8] not in text
    assert "ted-canary" not in text
    assert text.count("****") >= 6
    assert "RuntimeError: with **** in hand" in text


def test_short_secrets_hide_themselves_but_no_words() -> None:
    register_secrets(["x", "", "tiny-canary", "tiny-canary-and-more"])
    assert redact("x") == "****"
    assert redact("exact") == "exact"
    assert redact("tiny-canary-and-more, tiny-canary") == "****, ****"


def test_a_traceback_in_text_stays_in_its_place(logs: Logs) -> None:
    reader = logs("text")
    try:
        raise ValueError("first\n12:00:00 [info     ] stream id=forged\x1b[2J")
    except ValueError:
        logging.getLogger("somebody").exception("it broke")
    head, *trace = reader.lines()
    assert "it broke" in head
    assert all(line.startswith("  | ") for line in trace)
    assert trace[-1] == "  | 12:00:00 [info     ] stream id=forged\\x1b[2J"


def leave_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the root logger what it is outside pytest, whose own handlers would raise, or stand in where there is none."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


def test_a_line_that_cannot_be_made_is_counted_and_breaks_nobody(
    logs: Logs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_pytest(monkeypatch)

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("not even a name")

    reader = logs()
    before = dropped_lines()
    logging.getLogger("somebody").warning("%d apples", "no number")
    logging.getLogger("somebody").warning("%s", Broken())
    assert dropped_lines() == before + 2
    logging.getLogger("somebody").warning("still here")
    assert [event["event"] for event in reader.events()] == ["still here"]
    assert capsys.readouterr().err == ""  # logging's own way would print the arguments, unredacted


def test_lost_lines_are_remembered_beyond_the_stream_that_lost_them(logs: Logs) -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    before = dropped_lines()
    stream.close()
    write(make_outcome())
    reader = logs()
    assert dropped_lines() == before + 1
    write(make_outcome())
    assert len(reader.events()) == 1


def test_libraries_are_quiet_about_single_requests(logs: Logs) -> None:
    reader = logs(level="debug")
    for name in ("httpx", "httpcore.http11", "hypercorn.access", "hpack.hpack"):
        logging.getLogger(name).info("GET /v1/models?key=secret")
        logging.getLogger(name).warning("warned by %s", name)
    assert [event["event"] for event in reader.events()] == [
        "warned by httpx",
        "warned by httpcore.http11",
        "warned by hypercorn.access",
        "warned by hpack.hpack",
    ]


def test_56_a_process_out_of_descriptors_does_not_fill_the_disk_with_it(logs: Logs) -> None:
    reader = logs()
    accept = logging.getLogger("trio.serve_listeners")
    for second in range(21):
        record = accept.makeRecord(accept.name, logging.ERROR, __file__, 1, "accept returned EMFILE", (), None)
        record.created = 1000.0 + second
        accept.handle(record)
    assert len(reader.lines()) == 3


def test_before_logging_is_configured_nothing_is_written(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    leave_pytest(monkeypatch)
    write(make_outcome(End.ERROR))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("latency", [float("inf"), float("nan")])
def test_a_time_that_is_none_breaks_no_line(logs: Logs, latency: float) -> None:
    reader = logs()
    write(make_outcome(cancel_latency=latency))
    assert [event["cancel_ms"] for event in reader.events()] == [None]


def test_every_field_and_every_letter_is_documented(logs: Logs) -> None:
    documented = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    reader = logs()
    write(make_outcome())
    (event,) = reader.events()
    log_part, _, rest = documented.partition("### Termination codes")
    assert [field for field in event if f"`{field}`" not in log_part] == ["timestamp", "level"]  # what any log line has
    who, _, where = rest.partition("| second |")
    assert all(f"\n| `{party.value}` |" in who for party in Party)
    assert all(f"\n| `{phase.value}` |" in where for phase in Phase)
    assert all(f"`{kind.value}`" in rest for kind in FaultKind)


@pytest.mark.parametrize("worker", [None, 2])
def test_the_canonical_line_is_made_as_every_other(logs: Logs, worker: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a way of its own to the sink; what comes out is what structlog and logging would have made of the same fields."""
    monkeypatch.setattr(log._State, "worker", worker)
    written = logs()
    register_secrets([CANARY])
    outcome = make_outcome(End.ERROR, Fault(FaultKind.SERVER_ERROR, "it said\nno", 503, "a"))
    log_request(
        outcome_facts(outcome),
        AT,
        request_id="r",
        route="*",
        model=f"m\x1b[2J {CANARY}",
        engine="actors",
        endpoint="/v1/x",
        client=None,
        stream=True,
    )
    ours = json.loads(written.lines()[0])
    fields = {name: value for name, value in ours.items() if name not in ("timestamp", "level", "event", "worker")}
    written = logs()
    log._logger.warning("stream", **{**fields, "model": f"m\x1b[2J {CANARY}"})
    (line,) = written.lines()
    theirs = json.loads(line)
    assert list(ours.items())[1:] == list(theirs.items())[1:]
    assert len(ours["timestamp"]) == len(theirs["timestamp"])
    assert CANARY not in line


WORDS = st.one_of(
    st.text(max_size=60), st.sampled_from(["gpt-4o", CANARY, f"a{CANARY}", CANARY[:-1], "k1", "k12", "\x7f", "\u202e", "é", " "])
)


@given(st.lists(st.one_of(st.none(), WORDS), max_size=6))
def test_what_is_plain_needs_no_cleaning(words: list[str | None]) -> None:
    register_secrets([CANARY, "k1"])
    if is_plain(*words):
        assert all(word is None or printable(word) == word for word in words)


def test_most_names_are_plain() -> None:
    register_secrets([CANARY])
    assert is_plain("ev-0123", "chat/completions", "meta-llama/Llama-3.1-8B-Instruct:free", "*", None, "cloud")


@pytest.mark.parametrize("text", [False, True])
def test_a_canonical_line_has_the_time_at_which_it_happened(logs: Logs, text: bool) -> None:
    reader = logs("text" if text else "json")
    write(make_outcome())
    (line,) = reader.lines()
    if text:
        assert line.startswith(datetime.fromtimestamp(AT).strftime("%H:%M:%S "))
    else:
        assert json.loads(line)["timestamp"] == "2026-11-22T09:00:00.250000Z"


@pytest.mark.parametrize(("level", "kept"), [("debug", 1), ("info", 1), ("warning", 0)])
def test_the_level_holds_for_the_canonical_line(logs: Logs, level: str, kept: int) -> None:
    written = logs(level=level)
    outcome = Outcome(End.DONE, Party.NOBODY, Phase.NONE, 200, None, "a", Tally(started=0.0, ended=1.0))
    log_request(
        outcome_facts(outcome), AT, request_id="r", route="*", model="m", engine="actors", endpoint="/v1/x", client=None, stream=False
    )
    assert len(written.lines()) == kept


@pytest.mark.parametrize("model", ["gpt-4o", "モデル", 'a"b\\c'])
def test_the_canonical_line_is_ascii_and_reads_as_it_was_said(logs: Logs, model: str) -> None:
    reader = logs()
    outcome = Outcome(End.DONE, Party.NOBODY, Phase.NONE, 200, None, "a", Tally(ended=1.5))
    log_request(
        outcome_facts(outcome), AT, request_id="r", route="*", model=model, engine="actors", endpoint="/v1/x", client=None, stream=True
    )
    (line,) = reader.lines()
    assert line.isascii()
    assert line == json.dumps(json.loads(line))  # in the form of every other line
    assert json.loads(line)["model"] == model
