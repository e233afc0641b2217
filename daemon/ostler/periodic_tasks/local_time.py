"""The local time of this machine: how far it is ahead of UTC, and when that changes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

UtcOffset = Callable[[float], int]
_SEARCH_STEP = 86400 // 4


def local_utc_offset(at: float) -> int:
    """Return how many seconds the local time is ahead of UTC at a moment, in the time zone of this machine."""
    return time.localtime(at).tm_gmtoff


def refresh_time_zone(utc_offset: UtcOffset) -> None:
    """Read the time zone of the machine again, which may have changed; nothing for an offset from elsewhere."""
    if utc_offset is local_utc_offset:
        time.tzset()


def first_offset_change(utc_offset: UtcOffset, begin: float, end: float) -> float | None:
    """Return the first time after `begin` and up to `end` at which the offset changes; None when it does not.

    Args:
        utc_offset: Seconds that the local time is ahead of UTC at a moment.
        begin: Seconds since 1970.
        end: Seconds since 1970.
    """
    offset = utc_offset(begin)
    while begin < end:
        step = min(begin + _SEARCH_STEP, end)
        if utc_offset(step) != offset:
            return _bisect_offset_change(utc_offset, begin, step, offset)
        begin = step
    return None


def _bisect_offset_change(utc_offset: UtcOffset, low: float, high: float, offset: int) -> float:
    before, after = math.floor(low), math.ceil(high)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if utc_offset(middle) == offset else (before, middle)
    return float(after)
