"""Due times of a cron expression, with daylight saving time.

Imported where it is needed: most daemons have no cron task.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

from ostler.periodic_tasks.local_time import UtcOffset, first_offset_change, local_utc_offset, refresh_time_zone

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - local times are counted from here in seconds, without a zone
_HOUR = 3600
_DAY = 86400
_MAX_OFFSET_CHANGE = 2 * _DAY
"""No change of the local time is larger than a day: a change further away than this cannot affect a due time."""
_MAX_SEARCH_STEPS = 1000
_IGNORED_SET_BACK = 3 * _HOUR
"""A clock set back by less than this does not make tasks of a fixed time run again (as cron does)."""


class CronSchedule:
    """The due times of a cron expression (five fields, or six with seconds first) in local time.

    A task that runs in every hour follows elapsed time: it runs in both passes of a repeated hour, and not for a
    skipped one. Any other task runs once at each matching local time: in the first pass of a repeated hour, and once
    right after a gap for all matching times within the gap.

    Args:
        text: The expression.
        utc_offset: Seconds that the local time is ahead of UTC at a moment.

    Raises:
        ValueError: The expression is not valid, or never matches.
    """

    def __init__(self, text: str, utc_offset: UtcOffset = local_utc_offset) -> None:
        self._text = text
        self._utc_offset = utc_offset
        try:
            self.is_hourly = set(range(24)) <= CronSim(text, _EPOCH).hours
            self._next_local(0)
        except CronSimError as error:
            raise ValueError(f"is not valid: {error}") from None

    def next_due(self, after: float) -> float:
        """Return the first due time that is later than `after`, both in seconds since 1970.

        Raises:
            ValueError: There is none within the range of the calendar.
        """
        refresh_time_zone(self._utc_offset)
        at = float(math.floor(after))
        local = math.floor(at) + self._utc_offset(at)
        for _ in range(_MAX_SEARCH_STEPS):
            offset = self._utc_offset(at)
            due_local = self._next_local(local)
            due = due_local - offset
            change = self._first_offset_change(at, min(due, at + _MAX_OFFSET_CHANGE))
            if change is None and due > at + 2 * _MAX_OFFSET_CHANGE:
                at = due - _MAX_OFFSET_CHANGE
                local = max(local, math.floor(at) + self._utc_offset(at) - 1)
                continue
            change = self._first_offset_change(at, due) if change is None else change
            if change is None:
                again_until = 0 if self.is_hourly else self._repeated_hour_end(due, due_local)
                if not again_until:
                    return due
                local, at = again_until - 1, float(again_until - 1 - offset)
            elif self._is_caught_up(due_local, change + offset, change + self._utc_offset(change)):
                return change
            else:
                at, local = change, math.floor(change) + self._utc_offset(change) - 1
        raise ValueError("never matches")

    def offset_at(self, moment: float) -> int:
        """Return how far the local time is ahead of UTC at a moment, in the current time zone of the machine."""
        refresh_time_zone(self._utc_offset)
        return self._utc_offset(moment)

    def after_set_back(self, wall: float, done: float) -> float:
        """Return the time from which due times count again after the clock was set back to `wall`.

        Args:
            wall: The current wall time.
            done: The last due time that has been run, 0 for none.
        """
        return done if not self.is_hourly and wall < done <= wall + _IGNORED_SET_BACK else wall

    def _is_caught_up(self, due_local: int, begin: float, end: float) -> bool:
        """Return whether a due time is in a gap of the local time and is run right after it."""
        by_elapsed_time = self.is_hourly and end - begin == _HOUR
        return begin <= due_local < end and not by_elapsed_time

    def _next_local(self, local: int) -> int:
        """Return the first local time that matches and is later than `local`."""
        try:
            found = next(CronSim(self._text, _EPOCH + timedelta(seconds=local)))
        except (StopIteration, OverflowError):
            raise ValueError("never matches") from None
        return int((found - _EPOCH).total_seconds())

    def _repeated_hour_end(self, due: float, due_local: int) -> int:
        """Return the local time at which a repeated hour ends; 0 when `due` is not in its second pass."""
        back = due
        while (change := self._last_offset_change(back, due - _MAX_OFFSET_CHANGE)) is not None:
            before = math.floor(change) + self._utc_offset(change - 1)
            if due_local < before and change + self._utc_offset(change) <= due_local:
                return before
            back = change - 1
        return 0

    def _last_offset_change(self, at: float, begin: float) -> float | None:
        found, change = None, self._first_offset_change(begin, at)
        while change is not None:
            found, change = change, self._first_offset_change(change, at)
        return found

    def _first_offset_change(self, begin: float, end: float) -> float | None:
        return first_offset_change(self._utc_offset, begin, end)
