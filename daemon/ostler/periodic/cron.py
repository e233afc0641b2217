"""When a cron expression is due, on a time line that knows summer time.

Imported where it is needed: most daemons have no cron task.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

Offset = Callable[[float], int]
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - local times are counted from here in seconds, without a zone
_HOUR = 3600
_DAY = 86400
_NEAR = 2 * _DAY
"""No change of the local time is larger than a day: what is further away than this cannot touch a due time."""
_STEP = _DAY // 4
_STEPS = 1000
_SAME_DAY_WORK = 3 * _HOUR
"""A clock that is set back by less than this does not make tasks of a certain time run again (as cron does)."""


def local_offset(at: float) -> int:
    """Return how many seconds the local time is ahead of UTC at a moment, by the zone of this machine."""
    return time.localtime(at).tm_gmtoff


class CronSchedule:
    """The due times of a cron expression (five fields, or six with seconds first) in local time.

    A task that runs in every hour goes by elapsed time: it runs through both passes of an hour that comes twice, and
    an hour that is skipped is no hour for it. Any other task runs once at each local time it names: in the first pass
    of an hour that comes twice, and once right after a gap for all that it names within the gap.

    Args:
        text: The expression.
        offset: Seconds that the local time is ahead of UTC at a moment.

    Raises:
        ValueError: The expression is wrong, or names no moment that ever comes.
    """

    def __init__(self, text: str, offset: Offset = local_offset) -> None:
        self._text = text
        self._offset = offset
        try:
            self.is_hourly = set(range(24)) <= CronSim(text, _EPOCH).hours
            self._next_local(0)
        except CronSimError as error:
            raise ValueError(f"is wrong: {error}") from None

    def next(self, after: float) -> float:
        """Return the first due time that is later than `after`, both in seconds since 1970.

        Raises:
            ValueError: There is none that a calendar could hold.
        """
        if self._offset is local_offset:
            time.tzset()  # somebody may have changed the zone of the machine
        at = float(math.floor(after))
        local = math.floor(at) + self._offset(at)
        for _ in range(_STEPS):
            offset = self._offset(at)
            due_local = self._next_local(local)
            due = due_local - offset
            change = self._change(at, min(due, at + _NEAR))
            if change is None and due > at + 2 * _NEAR:
                at = due - _NEAR
                local = max(local, math.floor(at) + self._offset(at) - 1)
                continue
            change = self._change(at, due) if change is None else change
            if change is None:
                again_until = 0 if self.is_hourly else self._comes_again_until(due, due_local)
                if not again_until:
                    return due
                local, at = again_until - 1, float(again_until - 1 - offset)
            elif self._is_caught_up(due_local, change + offset, change + self._offset(change)):
                return change
            else:
                at, local = change, math.floor(change) + self._offset(change) - 1
        raise ValueError("names no moment that ever comes")

    def offset_at(self, moment: float) -> int:
        """Return how far the local time is ahead of UTC at a moment, in the zone that the machine has now."""
        if self._offset is local_offset:
            time.tzset()
        return self._offset(moment)

    def after_set_back(self, wall: float, done: float) -> float:
        """Return from when on due times count again after the clock was set back to `wall`.

        Args:
            wall: What the clock shows now.
            done: The last due time that has been run, 0 for none.
        """
        return done if not self.is_hourly and wall < done <= wall + _SAME_DAY_WORK else wall

    def _is_caught_up(self, due_local: int, begin: float, end: float) -> bool:
        """Return whether a due time lies in a gap of the local time and is run right after it."""
        by_elapsed_time = self.is_hourly and end - begin == _HOUR
        return begin <= due_local < end and not by_elapsed_time

    def _next_local(self, local: int) -> int:
        """Return the first local time that matches and is later than `local`."""
        try:
            found = next(CronSim(self._text, _EPOCH + timedelta(seconds=local)))
        except (StopIteration, OverflowError):
            raise ValueError("names no moment that ever comes") from None
        return int((found - _EPOCH).total_seconds())

    def _comes_again_until(self, due: float, due_local: int) -> int:
        """Return at which local time an hour ends that has come before; 0 when `due` is not in its second pass."""
        back = due
        while (change := self._last_change(back, due - _NEAR)) is not None:
            before = math.floor(change) + self._offset(change - 1)
            if due_local < before and change + self._offset(change) <= due_local:
                return before
            back = change - 1
        return 0

    def _last_change(self, at: float, begin: float) -> float | None:
        found, change = None, self._change(begin, at)
        while change is not None:
            found, change = change, self._change(change, at)
        return found

    def _change(self, begin: float, end: float) -> float | None:
        """Return the first moment after `begin` and up to `end` from which on another offset counts."""
        offset = self._offset(begin)
        while begin < end:
            step = min(begin + _STEP, end)
            if self._offset(step) != offset:
                return self._bisect(begin, step, offset)
            begin = step
        return None

    def _bisect(self, low: float, high: float, offset: int) -> float:
        before, after = math.floor(low), math.ceil(high)
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if self._offset(middle) == offset else (before, middle)
        return float(after)
