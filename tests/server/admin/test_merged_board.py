"""The snapshots of several workers as one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from server.admin.board import KEPT
from server.admin.fan_out import WorkerStatistics
from server.admin.merged_board import LATE, MergedBoard
from server.admin.snapshot import Point, Snapshot


def second(tick: int, *, streams: int = 1, events: float = 10.0, span: int = 1, first: dict[float, int] | None = None) -> Point:
    return Point(tick, float(tick), tick, span, streams, events, 100.0, first or {}, {})


def snapshot(*points: Point, **others: Any) -> Snapshot:
    empty: dict[str, Any] = {"serial": 1, "happened": [], "ended": [], "transitions": [], "totals": {}, "streams_active": 0, "states": {}}
    empty |= {"streams": [], "version": "1", "uptime": 5.0, "base_url": "http://a/v1", "ready": True, "engine": "actors", "fallback": ""}
    return Snapshot(**{**empty, "waiting": 0, "circuits": [], **others}, series=list(points))


def crew(*pids: int | None, restarts: int = 0) -> dict[int, WorkerStatistics]:
    return {number: WorkerStatistics(pid, pid is not None, restarts) for number, pid in enumerate(pids, 1)}


BOTH = crew(101, 102)


def streams_of(news: dict[str, Any]) -> dict[int, int]:
    return {point["tick"]: point["streams"] for point in news["series"]}


def test_a_second_is_shown_when_both_have_told_it() -> None:
    board = MergedBoard()
    board.take(1, 101, snapshot(second(7, streams=3), second(8, streams=4)), 0.0)
    board.take(2, 102, snapshot(second(7, streams=30)), 0.0)
    assert streams_of(board.news(BOTH, 0.5)) == {7: 33}
    board.take(2, 102, snapshot(second(8, streams=40)), 1.0)
    assert streams_of(board.news(BOTH, 1.5)) == {8: 44}
    assert streams_of(board.news(BOTH, 1.6)) == {}


def test_one_that_does_not_answer_holds_nobody_up_and_fills_in_what_it_missed() -> None:
    board = MergedBoard()
    for worker, pid in ((1, 101), (2, 102)):
        board.take(worker, pid, snapshot(second(1), streams_active=1), 0.0)
    board.news(BOTH, 0.0)
    for tick in range(2, 7):
        board.take(1, 101, snapshot(second(tick, events=100.0), streams_active=1), float(tick))
    news = board.news(BOTH, 6.0)
    assert streams_of(news) == dict.fromkeys(range(2, 7), 1)
    assert [(row["state"], row["streams"]) for row in news["workers"]] == [("serving", 1), ("no answer", 0)]
    assert news["streams_active"] == 1
    # It was blocked from the second 2 to 5, and tells of that as one: its rate is one over all of them, its times were seen once.
    board.take(2, 102, snapshot(second(6, span=5, events=2.0, first={4.0: 3}), streams_active=1), 6.1)
    news = board.news(BOTH, 6.2)
    assert streams_of(news) == dict.fromkeys(range(2, 7), 2)
    assert {point["events"] for point in news["series"]} == {102.0}
    assert [point["first_token"] for point in news["series"]] == [None, None, None, None, 4.0]
    assert [row["state"] for row in news["workers"]] == ["serving", "serving"]


def test_one_that_dies_takes_its_streams_along_and_comes_back_anew() -> None:
    board = MergedBoard()
    mine: dict[str, Any] = {
        "streams": [{"id": "a", "age": 3.0}],
        "streams_active": 1,
        "circuits": [{"name": "main"}],
        "totals": {"done": 5},
    }
    ended = [{"serial": 2, "at": 50.0, "id": "b"}]
    board.take(1, 101, snapshot(second(7), **mine), 0.0)
    board.take(2, 102, snapshot(second(7), ended=ended, **mine), 0.0)
    news = board.news(BOTH, 0.5)
    assert [(row["id"], row["worker"]) for row in news["streams"]] == [("a", 1), ("a", 2)]
    assert [row["worker"] for row in news["circuits"]] == [1, 2]
    assert [(row["id"], row["worker"]) for row in news["ended"]] == [("b", 2)]
    assert news["totals"] == {"done": 10}

    gone = board.news(crew(101, None), 1.0)
    assert [row["worker"] for row in gone["streams"]] == [1]
    assert [row["state"] for row in gone["workers"]] == ["serving", "starting"]
    assert board.news(crew(101, 202), 1.0)["workers"][1]["state"] == "no answer"  # it serves, and was not asked yet

    board.take(1, 101, snapshot(second(8), second(9)), 2.0)
    board.take(2, 202, snapshot(second(9, streams=7)), 2.0)
    back = board.news(crew(101, 202, restarts=1), 2.0)
    assert streams_of(back) == {8: 1, 9: 8}
    assert [(row["state"], row["pid"], row["restarts"]) for row in back["workers"]] == [("serving", 101, 1), ("serving", 202, 1)]


def test_nobody_there_is_shown_as_nobody() -> None:
    news = MergedBoard().news(crew(None, None), 0.0)
    assert (news["ready"], news["streams_active"], news["circuits"], news["series"]) == (False, 0, [], [])
    assert [row["state"] for row in news["workers"]] == ["starting", "starting"]


def test_one_that_drains_and_one_that_fell_back_say_so() -> None:
    board = MergedBoard()
    board.take(1, 101, snapshot(ready=False), 0.0)
    board.take(2, 102, snapshot(fallback="12 % more errors"), 0.0)
    news = board.news(BOTH, 0.0)
    assert [row["state"] for row in news["workers"]] == ["draining", "serving"]
    assert (news["ready"], news["fallback"]) == (True, "worker 2: 12 % more errors")


def test_the_oldest_streams_of_all_are_listed() -> None:
    board = MergedBoard()
    for worker, pid in ((1, 101), (2, 102)):
        rows = [{"id": f"{worker}-{age}", "age": float(age + worker / 10)} for age in range(49, -1, -1)]
        board.take(worker, pid, snapshot(streams=rows, streams_active=400, states={"normal flow": 390 + worker}), 0.0)
    news = board.news(BOTH, 0.0)
    assert [row["id"] for row in news["streams"]] == [f"{worker}-{age}" for age in range(49, 24, -1) for worker in (2, 1)]
    assert (news["streams_active"], news["states"]) == (800, {"normal flow": 783})


def test_a_viewer_that_does_not_read_fills_no_memory() -> None:
    board = MergedBoard()
    for turn in range(1, 4):
        rows = [{"serial": n, "at": float(turn * 1000 + n)} for n in range(300)]
        points = [second(turn * KEPT + tick, span=4000) for tick in range(KEPT)]
        board.take(1, 101, snapshot(*points, happened=rows, ended=rows, transitions=rows), 0.0)
    news = board.news(BOTH, 0.0)
    assert [len(news[name]) for name in ("happened", "ended", "transitions")] == [200, 40, 200]
    assert news["happened"][-1]["at"] == 3299.0
    assert list(streams_of(news)) == list(range(3 * KEPT, 4 * KEPT))


STEPS = some.lists(some.tuples(some.integers(1, 3), some.integers(1, 4), some.sampled_from(["look", "ask", "die", "show"])), max_size=80)


@given(STEPS)
def test_a_viewer_ends_up_with_the_sum_of_what_the_workers_saw(steps: list[tuple[int, int, str]]) -> None:
    """However they are late, asked, and die: each second that is shown last is what all had seen of it."""
    board, now = MergedBoard(), 0.0
    pids = {1: 1, 2: 2, 3: 3}
    untold: dict[int, list[Point]] = {1: [], 2: [], 3: []}
    ticked = dict.fromkeys(pids, 0)
    told: dict[int, dict[int, int]] = {}
    screen: dict[int, int] = {}
    for worker, seconds, what in [*steps, *((number, 1, "ask") for number in pids), (1, 1, "show")]:
        if what == "look":
            ticked[worker] += seconds
            untold[worker].append(second(ticked[worker], streams=worker, span=seconds))
        elif what == "ask":
            for point in untold[worker]:
                for tick in range(point.tick - point.span + 1, point.tick + 1):
                    told.setdefault(tick, {})[worker] = point.streams
            board.take(worker, pids[worker], snapshot(*untold[worker]), now)
            untold[worker] = []
        elif what == "die":
            pids[worker] += 10
            untold[worker] = []
        else:
            now += seconds
            screen |= streams_of(board.news({n: WorkerStatistics(pid, True, 0) for n, pid in pids.items()}, now))
    screen |= streams_of(board.news({n: WorkerStatistics(pid, True, 0) for n, pid in pids.items()}, now + LATE))  # nobody waits any more
    assert screen == {tick: sum(counts.values()) for tick, counts in told.items()}
