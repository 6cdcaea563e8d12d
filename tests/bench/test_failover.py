"""The sixteen faults as a command: what it judges, and that what is not as promised is told. At full length it is `make failover`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from bench.failover import CASES, Answer, Case, main, run_cases

if TYPE_CHECKING:
    from pathlib import Path

RIGHT = "Hello there"


def test_the_two_quickest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result.json"
    assert main(["--only", "500 once,content filter", "--json", str(result)]) == 0
    assert "all as promised" in capsys.readouterr().out
    once, filtered = json.loads(result.read_text("utf-8"))
    assert (once["got"], once["local"], once["hosted"]) == ("complete", 2, 0)
    assert (filtered["got"], filtered["local"], filtered["hosted"]) == ("error 400 content_filter", 1, 0)


async def test_what_is_not_as_promised_is_told() -> None:
    (result,) = await run_cases([Case("a rejection that was to be mended", "content-filter")])
    assert result.faults == ("error 400 content_filter, not complete",)


def streamed(*blocks: str) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, text="".join(f"{block}\n\n" for block in blocks))


def text(words: str, finish: str | None = None) -> str:
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": words}, "finish_reason": finish}]})


@pytest.mark.parametrize(
    ("blocks", "verdict"),
    [
        ((text("Hello"), text(" there", "stop"), "data: [DONE]"), "complete"),
        ((text("Hello"), text(" there"), "data: [DONE]"), "wrong, and looks complete"),
        ((text("Hello", "stop"), "data: [DONE]"), "wrong, and looks complete"),
        ((text("Hello"), text("Hello there", "stop"), "data: [DONE]"), "wrong, and looks complete"),
        ((text("Hello"), text(" there", "stop")), "truncated"),
        ((text("Hello"), "data: [DONE]", text(" there", "stop")), "truncated"),
        ((text("Hello"), 'data: {"error": {"code": "upstream_disconnected"}}'), "error 200 upstream_disconnected"),
    ],
)
def test_an_answer_is_complete_or_it_is_not(blocks: tuple[str, ...], verdict: str) -> None:
    assert Answer.of(streamed(*blocks)).verdict(RIGHT) == verdict


def test_who_took_an_answer_up_is_read_from_its_comment() -> None:
    taken = Answer.of(streamed(": evenflow resumed after disconnected on upstream 'hosted' (align)", text(RIGHT, "stop"), "data: [DONE]"))
    assert taken.resumed == "hosted (align)"
    assert Answer.of(streamed(text(RIGHT, "stop"), "data: [DONE]")).resumed == ""


def test_a_fault_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--only", "gremlins"])
    assert caught.value.code == 2
    assert "no such fault: gremlins" in capsys.readouterr().err
    assert len(CASES) == 16
