"""What watches the text of each attempt, made to its upstream's settings: the SmartBuffer with its detector, and the LoopGuard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors import BufferPolicy, LoopGuard, LoopPolicy, SmartBuffer, StutteringDetector, StutterPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings import Settings


def buffer_factory(settings: Settings) -> Callable[[str], SmartBuffer]:
    """A function from an upstream's name to a new buffer for one attempt there."""
    limits = BufferPolicy(hold=settings.buffer.max_age, events=settings.buffer.max_events, size=settings.buffer.max_bytes)
    policies = {}
    for name in settings.configured_upstreams:
        stutter = settings.stutter_of(name)
        policies[name] = StutterPolicy(mode=stutter.mode, profile=stutter.profile)

    def open_buffer(upstream: str) -> SmartBuffer:
        return SmartBuffer(StutteringDetector(policies[upstream]), limits)

    return open_buffer


def guard_factory(settings: Settings) -> Callable[[str], LoopGuard | None]:
    """A function from an upstream's name to a new guard for one attempt there, None where loops are not looked for."""
    policies = {name: LoopPolicy(**msgspec.structs.asdict(settings.loop_guard_of(name))) for name in settings.configured_upstreams}

    def open_guard(upstream: str) -> LoopGuard | None:
        policy = policies[upstream]
        return LoopGuard(policy) if policy.action != "off" else None

    return open_guard
