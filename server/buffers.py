"""What watches the text of each attempt, made to its upstream's settings: the SmartBuffer with its detector, and the LoopGuard.

Owns the history of every upstream: one object each, as long as the process lives, handed to every detector of that upstream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors import BufferPolicy, LoopGuard, LoopPolicy, SmartBuffer, StutteringDetector, StutterPolicy, UpstreamHistory

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors import Learned, Trace

    from .settings import Settings


class Buffers:
    """Makes the buffers of all attempts; call it with an upstream's name.

    Args:
      settings: the effective ones.
      before: those of an earlier configuration; what they learned of upstreams that are watched in the same way is kept.
    """

    def __init__(self, settings: Settings, before: Buffers | None = None) -> None:
        self._parts: dict[str, tuple[StutterPolicy, UpstreamHistory, BufferPolicy]] = {}
        self._places = {name: (upstream.base_url, settings.stutter_of(name)) for name, upstream in settings.configured_upstreams.items()}
        for name in settings.configured_upstreams:
            stutter, buffer = settings.stutter_of(name), settings.buffer_of(name)
            policy = StutterPolicy(mode=stutter.mode, profile=stutter.profile, trailer=stutter.trailer)
            limits = BufferPolicy(hold=buffer.max_age, events=buffer.max_events, size=buffer.max_bytes)
            history = UpstreamHistory(stutter.forget, policy.prior)
            if before is not None and before._places.get(name) == self._places[name]:
                history = before._parts[name][1]
            self._parts[name] = (policy, history, limits)

    def __call__(self, upstream: str, trace: Trace | None = None) -> SmartBuffer:
        """A new buffer for one attempt at an upstream, watched by `trace`."""
        policy, history, limits = self._parts[upstream]
        return SmartBuffer(StutteringDetector(policy, history, trace), limits)

    def learned(self, now: float) -> dict[str, Learned]:
        """What is known of each upstream."""
        return {name: history.learned(now) for name, (_, history, _) in self._parts.items()}


def guard_factory(settings: Settings) -> Callable[[str], LoopGuard | None]:
    """A function from an upstream's name to a new guard for one attempt there, None where loops are not looked for."""
    policies = {name: LoopPolicy(**msgspec.structs.asdict(settings.loop_guard_of(name))) for name in settings.configured_upstreams}

    def open_guard(upstream: str) -> LoopGuard | None:
        policy = policies[upstream]
        return LoopGuard(policy) if policy.action != "off" else None

    return open_guard
