"""Logs: JSON or readable lines on standard error, and the one canonical line per request.

Owns what a line looks like and what must never be in one. Two rules hold for everything that passes here, whoever logged it, the
standard library's loggers included: a registered secret becomes `****`, and no control character reaches a terminal. Headers, bodies, query
strings and keys are not logged at all; the redaction is the second line of defence.

How lines leave the process, and why a full disk stops nothing, is log_sink.py's business.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import re
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeAlias

import msgspec
import structlog

from .log_sink import LineSink
from .terminal import has_colours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping

LogFormat: TypeAlias = Literal["auto", "json", "text"]

#: Longest value of a field, in characters. A model name or a client's word has no business being longer.
FIELD_LIMIT: Final = 200

#: Longest text of a fault, of an event, of a traceback: what a person still reads.
_FAULT_LIMIT: Final = 500
_EVENT_LIMIT: Final = 2000
_TRACE_LIMIT: Final = 16_000

_FIRST: Final = ("timestamp", "level", "event")
_TRACES: Final = ("exception", "stack")
#: Of values of these types nothing needs to be made plain.
_PLAIN: Final = frozenset({type(None), bool, int, float})
_LIMITS: Final = {
    "event": _EVENT_LIMIT,
    "fault_message": _FAULT_LIMIT,
    "reason": _FAULT_LIMIT,
    "exception": _TRACE_LIMIT,
    "stack": _TRACE_LIMIT,
}

#: The time of a readable line; the others have the date as well, and UTC.
_CLOCK: Final = "%H:%M:%S"

#: They say per connection what the canonical line says per request (httpx at INFO, with the query), or whole headers (hpack at DEBUG).
_QUIET: Final = ("httpx", "httpcore", "hypercorn", "h2", "hpack")

#: Logs a traceback every 0.1 s while the process has no descriptor left (27 kB in 2 s were measured); once in so many seconds will do.
_REPEATS: Final = "trio.serve_listeners"
_REPEAT_INTERVAL: Final = 10.0

# Silent until configure_logging() was called: a process that does not want logs gets none, not structlog's or logging's own idea of them.
logging.getLogger("evenflow").addHandler(logging.NullHandler())
_logger: Final[structlog.stdlib.BoundLogger] = structlog.wrap_logger(
    logging.getLogger("evenflow"),
    wrapper_class=structlog.stdlib.BoundLogger,
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
)


class _State:
    """The process has one standard error, so this is one per process: where lines go, what must not be in them."""

    sink: LineSink | None = None
    as_json: bool = False  # what it takes
    dropped_before: int = 0  # by sinks that were replaced
    behind: tuple[Callable[[], None], ...] = ()  # who has lines that are not written yet
    worker: int | None = None  # which of several this process is
    secrets: frozenset[str] = frozenset()
    secrets_pattern: re.Pattern[str] | None = None


def configure_logging(format: LogFormat = "auto", level: str = "info", stream: TextIO | None = None) -> LineSink:
    """Send everything that is logged in this process to `stream`, in one form.

    May be called again; the earlier stream is flushed and left.

    Args:
      format: "json", "text", or "auto": text if `stream` is a terminal, else JSON.
      level: name of the lowest level that is written.
      stream: standard error if None.

    Returns:
      The sink; it counts the lines that were lost and can be flushed.
    """
    stream = sys.stderr if stream is None else stream
    as_text = format == "text" or (format == "auto" and stream.isatty())
    close_logging()
    _State.sink, _State.as_json = LineSink(stream), not as_text
    handler = _SinkHandler(_State.sink)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                structlog.processors.MaybeTimeStamper(fmt=_CLOCK if as_text else "iso", utc=not as_text),
                _clean_event,
                *(_text_renderers(colours=has_colours(stream)) if as_text else [structlog.processors.JSONRenderer()]),
            ],
        )
    )
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return _State.sink


def close_logging() -> None:
    """Write what is still queued and detach from the stream; for the end of the process, which does it by itself, and for tests."""
    _write_what_is_behind()
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _SinkHandler)]:
        root.removeHandler(handler)
    if _State.sink is not None:
        _State.sink.close()
        _State.dropped_before += _State.sink.dropped
        _State.sink = None


atexit.register(close_logging)


def flush_logging(timeout: float) -> None:
    """Wait until what was logged so far is written, for so many seconds at most."""
    _write_what_is_behind()
    if _State.sink is not None:
        _State.sink.flush(timeout)


@contextmanager
def before_flush(write: Callable[[], None]) -> Iterator[None]:
    """For the length of a block somebody holds lines back, and is asked for them before the log is flushed or closed.

    Args:
      write: has them written. Called in any thread, once the process ends by force.
    """
    _State.behind = (*_State.behind, write)
    try:
        yield
    finally:
        _State.behind = tuple(one for one in _State.behind if one is not write)


def _write_what_is_behind() -> None:
    for write in _State.behind:
        write()


def dropped_lines() -> int:
    """Lines lost since the process began."""
    return _State.dropped_before + (_State.sink.dropped if _State.sink is not None else 0)


def set_worker(number: int) -> None:
    """From now on every line says which worker wrote it."""
    _State.worker = number


def register_secrets(secrets: Iterable[str]) -> None:
    """Remember credentials that must never be seen; they add to those registered before. Empty ones are ignored."""
    _State.secrets |= {secret for secret in secrets if secret}
    # The longest first, so that a key which begins with another key goes whole. As JSON writes it too: an error body is quoted so.
    # A key of one to three letters ("x", for a local server that wants any) would eat words: only replaced where it is the whole value.
    spellings = {form for s in _State.secrets if len(s) > 3 for form in (s, json.dumps(s)[1:-1])}
    longest_first = sorted(spellings, key=len, reverse=True)
    _State.secrets_pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def redact(text: str) -> str:
    """`text` with every registered secret replaced by `****`."""
    if text in _State.secrets:
        return "****"
    return _State.secrets_pattern.sub("****", text) if _State.secrets_pattern is not None else text


def printable(text: str, limit: int = FIELD_LIMIT) -> str:
    """`text` as it may be shown on a terminal: secrets out, control characters as escapes, at most `limit` characters of it.

    Escaped is what Unicode calls control, format, surrogate, private use or separator, but for the plain space: terminal sequences,
    forged lines, and the bidirectional overrides that make a log say something else than it does.
    """
    text = redact(text)  # before the cut, else the first part of a key could survive it
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def log_at(at: float, level: Literal["info", "warning"], event: str, fields: Mapping[str, object], *, plain: bool) -> None:
    """Write a line about something that happened a moment ago.

    It goes straight into the sink: the way through structlog and logging to the same bytes takes ten times as long, a tenth of what a short
    request costs in all.

    Args:
      at: when, in seconds of the wall's clock.
      fields: ready for JSON.
      plain: nothing in them needs to be made so; see `is_plain`.
    """
    if _State.sink is None or not _State.as_json:
        (_logger.warning if level == "warning" else _logger.info)(event, timestamp=_timestamp(at), **fields)
    elif logging.getLogger("evenflow").isEnabledFor(logging.WARNING if level == "warning" else logging.INFO):
        line: dict[str, object] = {"timestamp": _timestamp(at), "level": level, "event": event}
        if _State.worker is not None:
            line["worker"] = _State.worker
        line |= fields
        cleaned = line if plain else _clean_event(None, "", line)
        text = msgspec.json.format(msgspec.json.encode(cleaned), indent=0)
        _State.sink.put(text.decode("ascii") if text.isascii() else json.dumps(cleaned))  # which takes three times as long


def is_plain(*words: str | None) -> bool:
    """Whether these, all together, could stand in a line as they are: `printable` would change none of them."""
    text = " ".join([word for word in words if word is not None])
    if len(text) > FIELD_LIMIT or not text.isprintable() or not _State.secrets.isdisjoint(words):
        return False
    return _State.secrets_pattern is None or _State.secrets_pattern.search(text) is None


def log_breaker_transition(upstream: str, before: str, after: str, reason: str) -> None:
    """Write that a circuit changed its state. A circuit that opens is a warning."""
    log = _logger.warning if after in ("open", "forced_open") else _logger.info
    log("breaker", upstream=upstream, before=before, after=after, reason=reason)


def log_stopping(signal: str, seconds: float, **waits_for: int) -> None:
    """Write that the process was told to end, and what it waits for: so many streams, or so many workers."""
    _logger.info("stopping", signal=signal, **waits_for, drain=seconds)


def log_worker_ended(worker: int, pid: int, reason: str, restart_in: float | None) -> None:
    """Write that a worker ended that was not told to.

    Args:
      reason: its exit code or the signal that killed it.
      restart_in: seconds until it is started again, None if it is not.
    """
    log = _logger.critical if restart_in is None else _logger.error
    log("worker_ended", worker=worker, pid=pid, reason=reason, restart_in=restart_in)


def log_reload(result: str, *, reason: str = "", needs_restart: Iterable[str] = (), warnings: Iterable[str] = ()) -> None:
    """Write what became of a new configuration: one line, one more for each warning.

    Args:
      reason: why it was refused.
      needs_restart: settings that differ and keep their old value until the next start.
    """
    for warning in warnings:
        _logger.warning("reload", warning=warning)
    if reason:
        _logger.error("reload", result=result, reason=reason)
    else:
        kept = ", ".join(needs_restart)
        (_logger.warning if kept else _logger.info)("reload", result=result, needs_restart=kept or None)


def log_blocked_loop(seconds: float, stack: str, untold: int) -> None:
    """Write that nothing else ran for so long.

    Args:
      stack: where the loop's thread was, "" if that is not known.
      untold: how often that happened since the last such line.
    """
    _logger.warning("loop_blocked", seconds=round(seconds, 2), untold=untold, stack=stack)


def log_memory(share: float, most: float, limit: int) -> None:
    """Write that new requests are turned away since the process holds so large a share of its memory."""
    _logger.warning("memory", share=round(share, 3), max_memory=most, limit_bytes=limit, consequence="new requests get 503")


def log_hard_exit(seconds: float, stack: str) -> None:
    """Write that the process is ended by force, and where its main thread was."""
    _logger.critical("hard_exit", reason=f"it had not ended {seconds:g} s after it was told to", stack=stack)


class _SinkHandler(logging.Handler):
    """The standard library's side of the sink."""

    def __init__(self, sink: LineSink) -> None:
        super().__init__()
        self._sink = sink
        self._last_repeat = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == _REPEATS:
            if abs(record.created - self._last_repeat) < _REPEAT_INTERVAL:
                return False
            self._last_repeat = record.created
        return bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        # A line that cannot be formatted (arguments that do not fit, a __str__ that raises) must not break the code that logged it.
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self._sink.put(line)

    def handleError(self, record: logging.LogRecord) -> None:
        # The inherited one prints the record's arguments, unredacted, on the very stream that may be broken.
        self._sink.refuse()


_EventDict: TypeAlias = "MutableMapping[str, Any]"  # structlog's own type: values are anything that was logged


def _text_renderers(*, colours: bool) -> list[structlog.typing.Processor]:
    return [
        _drop_empty,
        _indent_traces,
        # Plain tracebacks: the pretty ones show local variables, and those hold keys and prompts.
        structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, sort_keys=False, exception_formatter=structlog.dev.plain_traceback),
    ]


def _clean_event(_logger: object, _method: str, event: _EventDict) -> Mapping[str, Any]:
    """Make every value plain and printable; after it, nothing that a renderer meets has a repr of its own."""
    ordered = {key: event[key] for key in _FIRST if key in event}
    if _State.worker is not None:
        ordered["worker"] = _State.worker
    ordered |= event
    return {k: v if type(v) in _PLAIN else _clean(v, _LIMITS.get(k, FIELD_LIMIT), keep_lines=k in _TRACES) for k, v in ordered.items()}


def _clean(value: object, limit: int, *, keep_lines: bool = False) -> object:
    match value:
        case str() if keep_lines:
            return "\n".join(printable(line, limit) for line in redact(value)[-limit:].split("\n"))
        case str():
            return printable(value, limit)
        case None | bool() | int() | float():
            return value
        case dict():
            return {printable(str(key)): _clean(entry, limit) for key, entry in value.items()}
        case _:
            return printable(str(value), limit)


def _timestamp(at: float) -> str:
    if _State.sink is not None and not _State.as_json:
        return datetime.fromtimestamp(at).strftime(_CLOCK)  # of the machine's zone, as every readable line
    return f"{datetime.fromtimestamp(at, UTC).isoformat()[:-6]}Z"  # for +00:00


def _drop_empty(_logger: object, _method: str, event: _EventDict) -> Mapping[str, Any]:
    """On a terminal, a count of nothing says nothing. JSON keeps every field, so that its readers have a fixed form."""
    return {key: value for key, value in event.items() if value or key == "status"}


def _indent_traces(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """No line of an exception's text may look like a log line of its own."""
    for key in _TRACES:
        if key in event:
            event[key] = "\n".join("  | " + line for line in event[key].split("\n"))
    return event
