"""Workers that answer as they are told, for what the supervisor makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from server.admin.fan_out import WorkerStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.worker_channel import Answer, Ask


class Crew:
    """Several workers.

    Args:
      answers: what each says to whatever it is asked; None for one that is not there.

    Attributes:
      seen: what they were asked.
      known: each as the supervisor sees it.
      told: by worker, what it shows to a viewer; one without hangs.
      asked_after: the serial numbers that viewers asked from, by worker.
    """

    def __init__(self, answers: Mapping[int, Answer | None]) -> None:
        self.answers = answers
        self.seen: list[Ask] = []
        self.known = {number: WorkerStatistics(100 + number, answer is not None, 0) for number, answer in answers.items()}
        self.told: dict[int, bytes | None] = {}
        self.asked_after: dict[int, list[int]] = {number: [] for number in answers}

    def statistics(self) -> Mapping[int, WorkerStatistics]:
        return self.known

    async def ask(self, request: Ask, /) -> Mapping[int, Answer | None]:
        await trio.lowlevel.checkpoint()
        self.seen.append(request)
        return self.answers

    async def first_answer(self, request: Ask, /) -> Answer | None:
        return next((answer for answer in (await self.ask(request)).values() if answer is not None), None)

    async def snapshot(self, number: int, after: int, /) -> bytes | None:
        await trio.lowlevel.checkpoint()
        self.asked_after[number].append(after)
        if number not in self.told:
            await trio.sleep_forever()
        return self.told[number]
