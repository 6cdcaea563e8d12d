"""`evenflow replay`: a recording through the pipeline's decisions, and what is printed and written of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from actors import BufferPolicy, Complete, Failed, FaultKind, StutterPolicy
from server.replay import replay, run_replay

from ..fakes import DONE, choice, content, event, finish, reasoning, role

if TYPE_CHECKING:
    from pathlib import Path

HELLO = role() + content("Hello") + finish() + DONE
CUMULATIVE = ["The capital", "The capital of Norway", "The capital of Norway is", "The capital of Norway is Oslo, a city by the fjord."]
STUTTER = b"".join(content(text) for text in CUMULATIVE) + finish() + DONE


def test_a_clean_recording_comes_out_as_it_is() -> None:
    replayed = replay(HELLO)
    assert (replayed.body, replayed.status, replayed.end) == (HELLO, 200, Complete())
    assert replayed.decisions[-1].endswith("done (events 3)")
    assert any("StateInitial --FirstOutput--> StateNormalFlow" in line for line in replayed.decisions)


def test_a_repair_is_told_with_before_and_after() -> None:
    replayed = replay(STUTTER)
    told = "\n".join(replayed.decisions)
    assert "repaired A1: 'The capital of Norway' -> ' of Norway'" in told
    assert "StateNormalFlow --HoldBegan--> StateStuttering" in told
    assert "repairs A1 x3" in replayed.decisions[-1]
    assert replayed.tally.repairs == {"A1": 3}


def test_every_judgement_is_told_with_its_evidence_and_verdict() -> None:
    lines = [line.strip() for line in replay(STUTTER).decisions]
    first = next(place for place, line in enumerate(lines) if "choice 0 content 'The capital of Norway' (held)" in line)
    assert lines[first + 1].startswith("A1 possible: odds ")
    assert "of +3.0 = prior -2.5 text +" in lines[first + 1]
    assert lines[first + 1].endswith("proofs: 1 informative pair")
    (proven,) = [line for line in lines if line.startswith("A1 proven: ")]
    assert proven.count(" text +") == 2
    assert proven.endswith("proofs: 2 informative pairs")


def test_what_the_envelope_says_is_told() -> None:
    nonces = ["aQ3xZ81", "k9Lw0Pq", "k9Lw0Pq", "u7Yt5Rr", "c2Vb4Nn"]
    texts = ["One", " two", " two", " two", "."]
    said = b"".join(content(text, obfuscation=nonce) for text, nonce in zip(texts, nonces, strict=True))
    told = "\n".join(replay(said + finish() + DONE).decisions)
    assert "envelope: nonce +" in told
    assert "envelope: nonce never" in told
    assert "repaired D1: dropped ' two'" in told


def test_a_refuted_suspicion_and_what_the_serialiser_proves_are_told() -> None:
    told = "\n".join(replay(content("Hello") * 2 + content(" you") + content("!") + finish() + DONE).decisions)
    assert "B1 possible" in told
    assert "B1 refuted" in told
    assert "C1 refuted" in told
    head, rest = '{"choices":[{"finish_reason":null,"logprobs":null,"delta":{"content":"%s"}}]}', '{"choices":[{"delta":{"content":"%s"}}]}'
    portal = "".join(f"data: {text}\n\n" for text in (head % "**", head % "**", rest % "The", rest % " Weight")).encode()
    told = "\n".join(replay(portal + finish() + DONE).decisions)
    assert "B1 proven" in told
    assert "serialiser +" in told


def test_what_is_told_once_is_told_by_its_name() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    again = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": " "}}
    told = "\n".join(replay(event(choice(tool_calls=[call])) + event(choice(tool_calls=[again])) + finish() * 2 + DONE).decisions)
    assert "repaired G3: ' ' + id 'c1' + name 'f' -> ' '" in told
    assert "repaired H1: dropped finish of choice 0" in told


def test_the_pace_decides_how_long_something_is_held() -> None:
    ages = [replay(content("Hello") * 2 + content(" you") + DONE, pace=pace).tally.flushes["age"] for pace in (0.01, 1.0)]
    assert ages == [0, 1]


def test_the_policies_are_those_that_are_given() -> None:
    assert replay(STUTTER, stutter=StutterPolicy(mode="off")).body == STUTTER
    observed = replay(STUTTER, stutter=StutterPolicy(mode="observe"))
    assert observed.body == STUTTER
    assert observed.tally.repairs
    assert replay(content("Hello") * 2 + DONE, pace=0.01, buffer=BufferPolicy(hold=0.005)).tally.flushes["age"] == 1


@pytest.mark.parametrize(
    ("recording", "kind", "status"),
    [
        (b"", FaultKind.TRUNCATED, 502),
        (b"<html>", FaultKind.BAD_RESPONSE, 502),
        (role() + b'data: {"error":{"message":"busy","code":503}}\n\n', FaultKind.IN_BAND_ERROR, 503),
    ],
)
def test_what_is_refused_before_any_output_is_an_error_body(recording: bytes, kind: FaultKind, status: int) -> None:
    replayed = replay(recording)
    assert isinstance(replayed.end, Failed)
    assert (replayed.end.fault.kind, replayed.status) == (kind, status)
    assert json.loads(replayed.body)["error"]
    assert "refused before any output" in replayed.decisions[0]


@pytest.mark.parametrize(
    ("recording", "kept"),
    [
        (role() + content("Hello"), role() + content("Hello")),
        (role() + reasoning("Let me think"), role() + reasoning("Let me think")),  # nobody is there to try again
        (role() + reasoning("Let me") + b'data: {"error":"busy"}\n\n' + content("late"), role() + reasoning("Let me")),
        (content("a") + b'data: {"choices":[{"delta":{"content":"torn\n\n' + content("b"), content("a")),
    ],
)
def test_a_cut_recording_ends_in_an_error_frame(recording: bytes, kept: bytes) -> None:
    replayed = replay(recording)
    assert isinstance(replayed.end, Failed)
    assert replayed.status == 200
    assert replayed.body == kept + replayed.end.fault.to_frame()
    assert f"error {replayed.end.fault.code}" in replayed.decisions[-1]


def test_a_recording_longer_than_a_stream_may_last_ends_too() -> None:
    replayed = replay(content("a") + content("b") * 3 + DONE, pace=700.0)
    assert isinstance(replayed.end, Failed)
    assert replayed.end.fault.kind is FaultKind.TOTAL_TIMEOUT


# ---- the command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "clean.sse", tmp_path / "stutter.sse"]
    for path, data in zip(paths, (HELLO, STUTTER), strict=True):
        path.write_bytes(data)
    return paths


def test_it_prints_each_file_and_its_decisions(files: list[Path]) -> None:
    written: list[bytes] = []
    assert run_replay(files, write=written.append) == 0
    text = b"".join(written).decode()
    assert text.index("clean.sse\n") < text.index("done (events 3)") < text.index("stutter.sse\n") < text.index("repairs A1 x3")


def test_emit_writes_exactly_the_clients_bytes(files: list[Path]) -> None:
    written: list[bytes] = []
    assert run_replay(files[:1], emit=True, write=written.append) == 0
    assert b"".join(written) == HELLO


def test_emit_dir_writes_every_file_under_its_name(files: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    assert run_replay(files, emit_dir=target, write=lambda _: None) == 0
    assert (target / "clean.sse").read_bytes() == HELLO
    assert (target / "stutter.sse").read_bytes() == replay(STUTTER).body


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_replayed(files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    written: list[bytes] = []
    assert run_replay([files[0].with_name("absent.sse"), files[0]], write=written.append) == 1
    assert "absent.sse" in capsys.readouterr().err
    assert b"done (events 3)" in b"".join(written)


def test_for_scripts_there_is_one_line_per_recording(tmp_path: Path) -> None:
    chunk = '{"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}'
    (tmp_path / "good.sse").write_text(f"data: {chunk}\n\ndata: [DONE]\n\n", "utf-8")
    (tmp_path / "bad.sse").write_text('data: {"error": {"message": "no"}}\n\n', "utf-8")
    written: list[bytes] = []
    assert run_replay([tmp_path / "good.sse", tmp_path / "bad.sse"], as_json=True, write=written.append) == 0
    good, bad = map(json.loads, written)
    assert (good["file"], good["outcome"], good["status"], good["repairs"]) == ("good.sse", "done", 200, {})
    assert (bad["file"], bad["outcome"], bad["status"]) == ("bad.sse", "error", 502)
    assert bad["code"]
    assert good["decisions"]
