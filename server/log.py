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
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeAlias

import msgspec
import structlog

from actors import End

from .log_sink import LineSink
from .terminal import has_colours

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

    from actors import Outcome

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
                structlog.processors.TimeStamper(fmt="%H:%M:%S" if as_text else "iso", utc=not as_text),
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
    if _State.sink is not None:
        _State.sink.flush(timeout)


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


def outcome_facts(outcome: Outcome) -> dict[str, object]:
    """How a request ended and what was counted, ready for JSON: the part of its line that comes from the outcome alone."""
    tally, fault = outcome.tally, outcome.fault
    return {
        "outcome": outcome.end.value,
        "termination": outcome.termination,
        "status": outcome.status,
        "upstream": outcome.upstream,
        "attempts": tally.attempts,
        "fault": fault.kind.value if fault is not None else None,
        "fault_message": fault.message if fault is not None else None,
        "setting": (fault.setting or None) if fault is not None else None,
        "ttft_ms": _milliseconds(tally.first_token, tally.started),
        "total_ms": _milliseconds(tally.ended, tally.started),
        "cancel_ms": _milliseconds(outcome.cancel_latency),
        "hedged": dict(tally.hedges),
        "events": tally.events,
        "bytes_in": tally.bytes_in,
        "bytes_out": tally.bytes_out,
        "holds": tally.holds,
        "longest_hold_ms": _milliseconds(tally.longest_hold) if tally.holds else None,
        "repairs": dict(tally.repairs),
        "loops": dict(tally.loops),
        "skipped": tally.skipped,
        "keepalives": tally.keepalives,
        "replayed": tally.replayed,
        "resumes": {f"{strategy} {result}": count for (strategy, result), count in tally.resumes.items()},
        "done_added": tally.done_added,
    }


def log_outcome(
    outcome: Outcome,
    *,
    request_id: str,
    route: str,
    model: str,
    engine: str,
    endpoint: str,
    client: str | None,
    stream: bool,
) -> None:
    """Write the canonical line of one finished request: `stream`, or `request` if the client asked for no stream.

    Args:
      endpoint: path, with or without its `/v1/`.
      route: pattern of the route that served it.
      model: as the client named it.
      client: id of the client key, None without one.
    """
    fields: dict[str, object] = {
        "id": request_id,
        "endpoint": endpoint.removeprefix("/v1/"),
        "model": model,
        "route": route,
        "engine": engine,
        "client": client,
        **outcome_facts(outcome),
    }
    level, event = "warning" if outcome.end is End.ERROR else "info", "stream" if stream else "request"
    if _State.sink is None or not _State.as_json:
        (_logger.warning if level == "warning" else _logger.info)(event, **fields)
    elif logging.getLogger("evenflow").isEnabledFor(getattr(logging, level.upper())):
        # The one line that every request writes goes straight into the sink: the way through structlog and logging to the same bytes
        # takes four times as long, a tenth of what a short request costs in all.
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = {"timestamp": now, "level": level, "event": event, **fields}
        text = msgspec.json.format(msgspec.json.encode(cleaned := _clean_event(None, "", line)), indent=0)
        _State.sink.put(text.decode("ascii") if text.isascii() else json.dumps(cleaned))  # which takes three times as long


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


def _drop_empty(_logger: object, _method: str, event: _EventDict) -> Mapping[str, Any]:
    """On a terminal, a count of nothing says nothing. JSON keeps every field, so that its readers have a fixed form."""
    return {key: value for key, value in event.items() if value or key == "status"}


def _indent_traces(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """No line of an exception's text may look like a log line of its own."""
    for key in _TRACES:
        if key in event:
            event[key] = "\n".join("  | " + line for line in event[key].split("\n"))
    return event


def _milliseconds(end: float | None, start: float = 0.0) -> float | None:
    """To a tenth below 100 ms, where it matters; whole above."""
    if end is None or not math.isfinite(value := (end - start) * 1000):
        return None
    return round(value, 1) if value < 100 else round(value)
