"""The SmartBuffer of each attempt, made to its upstream's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors import BufferPolicy, SmartBuffer, StutteringDetector, StutterPolicy

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
