"""A defect of our own in one stream ends that stream, with an error its client understands, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actors.sansio.chunk_parser import ChunkParser

if TYPE_CHECKING:
    from .running_proxy import LogTap, RunningProxy


@pytest.fixture
def broken_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser with a defect: it crashes at one word."""
    feed = ChunkParser.feed

    def crash(self: ChunkParser, data: bytes) -> Any:
        if b"CRASH" in data:
            raise ZeroDivisionError("a defect")
        return feed(self, data)

    monkeypatch.setattr(ChunkParser, "feed", crash)


@pytest.mark.parametrize(("text", "status"), [("%43RASH%20at%20once", 500), ("first%20this%20and%20then%20a%20%43RASH%20comes", 200)])
async def test_row_57_a_crash_in_one_stream_is_that_streams_end(
    text: str, status: int, broken_parser: None, proxy: RunningProxy, log: LogTap
) -> None:
    async with proxy.client.open("count:60,pace=5") as neighbour:
        await neighbour.read_until(b"data: ")
        answer = await proxy.client.ask(f"ok:pace=5,text={text}")
        assert answer.status == status
        assert answer.error["code"] == "internal_error"
        assert "defect" not in answer.error["message"]
        assert (await neighbour.rest()).done
    await proxy.until_quiet()
    assert proxy.circuit("main").failures == 0
    crashed = next(line for line in log.requests() if line["model"].startswith("ok"))
    assert (crashed["outcome"], crashed["termination"][0], crashed["fault"]) == ("error", "P", "internal")
    assert log.take_crashes()[0]["event"]
