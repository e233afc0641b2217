"""The notation of moments: one for people, and one for programs; imports nothing heavy."""

from __future__ import annotations

import time
from typing import TypeGuard

_MAX_SECONDS = 253_402_300_800.0
"""The first second of the year 10000, which RFC 3339 cannot write. The value of a server may be no time at all."""


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
