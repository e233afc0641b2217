"""The notation of moments, one for people and one for programs, and of time spans; imports nothing heavy."""

from __future__ import annotations

import re
import time
from typing import TypeGuard

_MAX_SECONDS = 253_402_300_800.0
"""The first second of the year 10000, which RFC 3339 cannot write. The value of a server may be no time at all."""
_DURATION_PATTERN = re.compile(r" \(?for \d+(?:d|h|min|s)(?: \d+(?:h|min|s))?(?![\w.])\)?")
_SECONDS_BEYOND = 1e11
"""The limit of time spans that are shown."""


def is_moment(moment: float | None) -> TypeGuard[float]:
    """Return whether a number is a wall time that can be shown; 0 is never."""
    return moment is not None and 0 < moment < _MAX_SECONDS


def format_moment(moment: float) -> str:
    """Return a wall time for people, in the zone of this process: `2027-01-15 09:00:00`; `-` for 0 (never).

    Args:
        moment: Seconds since 1970.
    """
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if is_moment(moment) else "-"


def to_rfc3339(moment: float | None) -> str | None:
    """Return a wall time for programs, in UTC: `2027-01-15T08:00:00.000Z`; None for None, 0 (never) and invalid values.

    Args:
        moment: Seconds since 1970.
    """
    if not is_moment(moment):
        return None
    seconds, milliseconds = divmod(int(moment * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def format_seconds(seconds: float, units: int = 0) -> str:
    """Format seconds: `1h 30min`, `5min`, `45s`, `2.5s`, `200ms`; `-` for invalid values.

    Args:
        seconds: The time span.
        units: How many of the largest units to show, rounded; 0 for all of them, so that the text can be parsed again.
    """
    if not abs(seconds) < _SECONDS_BEYOND:
        return "-"
    if seconds < 0:
        return f"-{format_seconds(-seconds, units)}"
    if units:
        seconds = round(seconds, 3 if seconds < 1 else 1) if seconds < 10 else round(seconds)
    if 0 < seconds < 1:
        return f"{seconds * 1000:.4g}ms"
    parts: list[str] = []
    rest = seconds
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60)):
        count, rest = divmod(rest, factor)
        if count or parts:
            parts.append(f"{count:.0f}{unit}" if count else "")
    parts.append(f"{rest:.6g}s" if rest or not parts else "")
    return " ".join(part for part in parts[: units or None] if part)


def format_duration(seconds: float) -> str:
    """Format how long something has lasted, in whole seconds and two units at most: `12s`, `1min 5s`, `2h 3min`."""
    return format_seconds(round(seconds), 2) if abs(seconds) < _SECONDS_BEYOND else "-"


def remove_duration(text: str) -> str:
    """Return a text without how long something has lasted, as `format_duration` says it: ` for 1min 5s`."""
    return _DURATION_PATTERN.sub("", text)
