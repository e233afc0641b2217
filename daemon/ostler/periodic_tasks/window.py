"""The time of day in which a periodic task may run.

Imported where it is needed: most daemons have no task with a window.
"""

from __future__ import annotations

import math
import re

from ostler.periodic_tasks.local_time import UtcOffset, first_offset_change, local_utc_offset, refresh_time_zone

_DAY = 86400
_PATTERN = re.compile(r"([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})", re.ASCII)
_MAX_OFFSET_CHANGES = 16


class DailyWindow:
    """A part of each day in local time, over midnight when its end is before its beginning.

    It follows the local time that a clock on the wall shows: a window within the hour that is repeated in autumn opens
    twice, and one that begins within the hour that is skipped in spring opens right after it.

    Args:
        text: From when until when, `01:00-05:00`; the end does not belong to it.
        utc_offset: Seconds that the local time is ahead of UTC at a moment.

    Raises:
        ValueError: The text is not valid, or the window is empty.
    """

    def __init__(self, text: str, utc_offset: UtcOffset = local_utc_offset) -> None:
        self._utc_offset = utc_offset
        found = _PATTERN.fullmatch(text.strip())
        if found is None:
            raise ValueError("is not valid: it must be two times of day, such as 01:00-05:00")
        hours, minutes = found.group(1, 3), found.group(2, 4)
        self._begin, self._end = (
            _seconds_of_day(int(hour), int(minute)) for hour, minute in zip(hours, minutes, strict=True)
        )
        if self._begin % _DAY == self._end % _DAY:
            raise ValueError("ends when it begins; leave the window out for the whole day")

    def contains(self, wall: float) -> bool:
        """Return whether a moment (seconds since 1970) is within the window."""
        refresh_time_zone(self._utc_offset)
        return self._is_within(wall)

    def next_open(self, wall: float) -> float:
        """Return the first moment within the window that is not before `wall`, both in seconds since 1970.

        Raises:
            ValueError: There is none.
        """
        refresh_time_zone(self._utc_offset)
        if self._is_within(wall):
            return wall
        at = float(math.ceil(wall))
        for _ in range(_MAX_OFFSET_CHANGES):
            opens = at + (self._begin - (at + self._utc_offset(at))) % _DAY
            change = first_offset_change(self._utc_offset, at, opens)
            if change is None:
                return opens
            if self._is_within(change):
                return change
            at = change
        raise ValueError("its window never opens")

    def _is_within(self, wall: float) -> bool:
        local = (math.floor(wall) + self._utc_offset(wall)) % _DAY
        if self._begin < self._end:
            return self._begin <= local < self._end
        return local >= self._begin or local < self._end


def _seconds_of_day(hour: int, minute: int) -> int:
    if minute > 59 or hour > 24 or (hour == 24 and minute):
        raise ValueError(f"is not valid: {hour:02}:{minute:02} is not a time of day")
    return hour * 3600 + minute * 60
