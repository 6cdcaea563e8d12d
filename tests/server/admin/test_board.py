"""What the dashboard knows: seconds, news, live and ended streams, and that all of it has an end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as some

from actors import End, Fault, FaultKind, Outcome, Party, Phase, Tally
from server.admin.board import KEPT, Board
from server.admin.snapshot import shown

if TYPE_CHECKING:
    from server.services import Processor


class Running:
    """A processor as the board sees one."""

    def __init__(self, started: float) -> None:
        self.tally = Tally(started=started)
        self.state = "normal flow"
        self.upstream = "main"


def begin(board: Board, name: str = "ev-1", started: float = 100.0) -> Running:
    running = Running(started)
    board.stream_begins(of(running), running.tally, {"id": name, "model": "qwen3", "client": "", "engine": "actors"})
    return running


def of(running: Running) -> Processor:
    return running  # type: ignore[return-value]  # the board asks a processor for its state, its upstream and its tally


def end(board: Board, running: Running, now: float, fault: Fault | None = None) -> None:
    running.tally.ended = now
    kind = End.DONE if fault is None else End.ERROR
    shown = board.stream_leaves(of(running))
    assert shown is not None
    board.stream_ended(shown, Outcome(kind, Party.NOBODY, Phase.NONE, 200, fault, "main", running.tally), now, board.wall())


def test_a_second_holds_what_was_counted_in_it() -> None:
    board = Board(lambda: 5000.0)
    board.look(100.0, 100)
    one, other = begin(board, "ev-1"), begin(board, "ev-2")
    one.tally.events, one.tally.bytes_out, one.tally.first_token = 30, 3000, 100.25
    other.tally.events, other.tally.holds, other.tally.longest_hold = 10, 1, 0.02
    end(board, other, 100.8)
    board.look(101.0, 101)
    one.tally.events = 35
    board.look(103.0, 103)
    points = board.news(0)["series"]
    assert [(point.tick, point.span) for point in points] == [(100, 1), (101, 1), (103, 2)]
    first, second, third = (shown([point]) for point in points)
    assert (first["streams"], first["events"]) == (0, 0)
    assert (second["streams"], second["events"], second["bytes"], second["first_token"], second["held"]) == (1, 40, 3000, 0.25, 0.02)
    assert (third["events"], third["first_token"]) == (2.5, None)


def test_news_are_told_once() -> None:
    board = Board(lambda: 5000.0)
    running = begin(board)
    running.tally.tell(100.4, "fault", "main: disconnected")
    running.tally.tell(100.5, "state", "initial -> recovering")
    board.look(101.0, 101)
    news = board.news(0)
    [fault] = news["happened"]
    assert (fault["kind"], fault["text"], fault["at"]) == ("fault", "main: disconnected (qwen3)", 4999.4)
    assert board.news(news["serial"])["happened"] == []
    running.tally.tell(101.5, "repair", "A1 after 20 ms")
    end(board, running, 101.6)
    later = board.news(news["serial"])
    assert [entry["kind"] for entry in later["happened"]] == ["repair"]
    [stream] = later["ended"]
    assert [kind for _, kind, _ in stream["story"]] == ["fault", "state", "repair"]
    assert later["totals"]["done"] == 1


def test_an_error_that_no_attempt_had_is_news_too() -> None:
    board = Board(lambda: 5000.0)
    end(board, begin(board), 101.0, Fault(FaultKind.BUSY, "no place"))
    [entry] = board.news(0)["happened"]
    assert entry["text"] == "busy (qwen3)"


def test_live_streams_are_counted_and_the_oldest_listed() -> None:
    board = Board(lambda: 5000.0)
    running = [begin(board, f"ev-{n}", 100.0 + n / 1000) for n in range(1000)]
    running[3].state = "stuttering"
    running[3].tally.repairs = Counter(A1=2)
    live = board.live(110.0)
    assert live["streams_active"] == 1000
    assert live["states"] == {"normal flow": 999, "stuttering": 1}
    assert [stream["id"] for stream in live["streams"]] == [f"ev-{n}" for n in range(50)]
    assert live["streams"][3]["repairs"] == "A1:2"


def test_everything_has_an_end() -> None:
    board = Board(lambda: 5000.0)
    for turn in range(3 * KEPT):
        running = begin(board, f"ev-{turn}")
        for n in range(300):
            running.tally.tell(100.0, "repair", f"A1 {n}")
        board.circuit_changed("main", "closed", "open", "")
        end(board, running, 101.0)
        board.look(float(turn), turn)
    news = board.news(0)
    assert len(news["series"]) == KEPT
    assert len(news["happened"]) <= 200
    assert len(news["transitions"]) <= 200
    assert len(news["ended"]) <= 40
    assert max(len(stream["story"]) for stream in news["ended"]) <= 100
    assert board.live(0.0)["streams_active"] == 0


@given(some.lists(some.sampled_from(["begin", "end", "look", "story", "read"]), max_size=60))
def test_a_reader_that_asks_often_sees_each_entry_once_and_in_order(steps: list[str]) -> None:
    board = Board(lambda: 5000.0)
    running: list[Running] = []
    serial, now, seen = 0, 100.0, []
    for step in [*steps, "look", "read"]:
        now += 0.5
        if step == "begin":
            running.append(begin(board, f"ev-{now}", now))
        elif step == "end" and running:
            end(board, running.pop(), now)
        elif step == "story" and running:
            running[0].tally.tell(now, "fault", f"{now}")
        elif step == "look":
            board.look(now, int(now))
        elif step == "read":
            news = board.news(serial)
            serial = news["serial"]
            entries = [entry["serial"] for name in ("happened", "ended", "transitions") for entry in news[name]]
            seen += sorted(entries + [point.serial for point in news["series"]])
    assert seen == list(range(1, serial + 1))
