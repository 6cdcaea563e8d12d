"""How long an upstream asks to wait, in all the forms in which upstreams say it.

Owns the spellings; refuses to know what is believed of them: every ceiling is the caller's (`retry.retry_after_max`,
`breaker.retry_after_max`).
"""

from __future__ import annotations

import email.utils
import math
import re
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Durations as Go writes them, which OpenAI's and Google's texts took over: `1m2.5s`, `340ms`.
_DURATION: Final = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?", re.ASCII)
_UNITS: Final = (3600.0, 60.0, 1.0, 0.001)
_IN_WORDS: Final = re.compile(
    r"(?:try again|retry|retry your request|available again) (?:in|after) ([\dhms.]{1,24}) ?(m?s\b|seconds?\b)?", re.ASCII
)


def parse_retry_after(headers: Mapping[str, str], now_wall: float) -> float | None:
    """Seconds to wait as the headers state them, or None.

    Reads `retry-after-ms` (OpenAI, Azure), then `Retry-After` as seconds, as one of the three HTTP dates (RFC 9110, 5.6.7), or as a
    duration such as `20s`. A date in the past and a negative number are 0; what cannot be read is None, so that the default back-off
    applies (FAULTS row 9).

    Args:
      headers: lower-case names.
      now_wall: seconds since the epoch.
    """
    if milliseconds := _number(headers.get("retry-after-ms")):
        return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    if (seconds := _number(value)) is not None:
        return max(0.0, seconds)
    if (seconds := _duration(value.strip())) is not None:
        return seconds
    try:
        date = email.utils.parsedate_to_datetime(value)
        # The oldest of the three forms names no zone; HTTP's dates are all of UTC.
        return max(0.0, (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp() - now_wall)
    except (ValueError, TypeError, OverflowError):
        return None


def wait_in_body(error: Mapping[str, Any], message: str) -> float | None:
    """Seconds to wait as an error object states them: `retry_after`, Google's `retryDelay`, or words such as "try again in 1.5s"."""
    value = error.get("retry_after")
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return max(0.0, float(value))
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and (seconds := _duration(delay)) is not None:
            return seconds
    if found := _IN_WORDS.search(message.lower()):
        amount, unit = found.group(1).rstrip("."), found.group(2) or ""
        if (seconds := _number(amount)) is not None and unit:
            return seconds / 1000 if unit == "ms" else seconds
        return _duration(amount + unit)
    return None


def _duration(text: str) -> float | None:
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        return None
    return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part is not None)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
