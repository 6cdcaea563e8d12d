"""SIGHUP: read the configuration anew and go on with it, or say why not and go on as before.

Owns what cannot change while the process runs, and that a bad configuration changes nothing. What a good one changes is done by the
proxy (proxy.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from actors import BreakerGone

from .log import log_reload
from .settings_checks import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .proxy import Proxy
    from .settings import Settings
    from .settings_loaded import Loaded

_logger: Final = logging.getLogger("evenflow.reload")

#: Belongs to a listening socket, a process or a thread, which exists already.
_NEEDS_RESTART: Final = ("bind", "admin_bind", "backlog", "workers", "recorder", "tracing")
#: The same, of `edge`: handed to every connection of a listener.
_EDGE_NEEDS_RESTART: Final = ("max_headers", "max_header_bytes", "max_target", "header_timeout", "keepalive_timeout")


def keep_what_needs_a_restart(running: Settings, wanted: Settings) -> tuple[Settings, tuple[str, ...]]:
    """`wanted`, but for what cannot change now; and the dotted names of what would have."""
    top = [name for name in _NEEDS_RESTART if getattr(running, name) != getattr(wanted, name)]
    edge = [name for name in _EDGE_NEEDS_RESTART if getattr(running.edge, name) != getattr(wanted.edge, name)]
    kept_edge = msgspec.structs.replace(wanted.edge, **{name: getattr(running.edge, name) for name in edge})
    kept = msgspec.structs.replace(wanted, edge=kept_edge, **{name: getattr(running, name) for name in top})
    return kept, (*top, *(f"edge.{name}" for name in edge))


class Reloader:
    """Applies the configuration anew, once for each call."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._one_at_a_time = trio.Lock()

    async def reload(self, load: Callable[[], Loaded]) -> bool:
        """Load, check, and go on with the result; never raises.

        Args:
          load: reads it from the same sources as at the start; may block.

        Returns:
          Whether it was accepted; if not, nothing has changed.
        """
        async with self._one_at_a_time:
            try:
                loaded = await trio.to_thread.run_sync(load)
                settings, restart = keep_what_needs_a_restart(self._proxy.services.settings, loaded.settings)
                await self._proxy.reconfigure(settings)
            except (SettingsError, OSError, BreakerGone) as exc:
                self.refuse(str(exc))
            except Exception as exc:  # a defect in here must not end the streams that run
                _logger.exception("a reload failed")
                self.refuse(f"{type(exc).__name__}; see the log")
            else:
                self._proxy.reloads.accepted += 1
                self._proxy.services.metrics.config_reloaded("accepted")
                log_reload("accepted", needs_restart=restart, warnings=loaded.warnings)
                return True
        return False

    def refuse(self, reason: str) -> None:
        """Note that a new configuration is no good."""
        self._proxy.reloads.refused += 1
        self._proxy.reloads.last_refusal = reason
        self._proxy.services.metrics.config_reloaded("refused")
        log_reload("refused", reason=reason)
