"""The age of stored items, although the wall clock may have been set."""

from __future__ import annotations

import logging

from ostler.clock import Clock

_log = logging.getLogger(__name__)
_AHEAD_WARNING_THRESHOLD = 3600.0
"""Seconds by which the wall clock must be ahead before it is reported: NTP corrects it by less."""
_HOLD_TIME = 86400.0
"""Seconds after the start in which nothing is removed if most has expired: time to set the clock."""
_MIN_PLAUSIBLE_TIME = 1_735_689_600.0
"""The beginning of 2025: an earlier clock is certainly wrong, as on a machine without a hardware clock."""
_REMOVAL_DIVISOR = 10
"""When more than half of something expires at once, only a tenth of it is removed: the clock may be wrong."""


class RetentionClock:
    """The time by which ages are measured, and how much may be removed because of its age. Any thread.

    A wall clock that is set forward makes everything old at once. So this time runs no faster than the boot-time clock,
    which cannot be set; when the wall clock was set back, it is the wall clock. A clock that was wrong when the daemon
    started cannot be told from a daemon that was off for long: then nothing is removed for a day, and little at a time
    after that.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held_back: dict[str, int] = {}
        self._has_warned_ahead = False
        self._started = clock.boot()
        self.trust_wall_clock()

    def trust_wall_clock(self) -> None:
        """Trust the wall clock, as at the start and after a reload."""
        self._trusted_wall, self._trusted_boot = self._clock.wall(), self._clock.boot()
        self._has_warned_ahead = False

    def now(self) -> float:
        """Return the wall time by which ages are measured."""
        self._adopt_corrected_clock()
        wall, steady = self._clock.wall(), self._trusted_wall + self._clock.boot() - self._trusted_boot
        if wall - steady > _AHEAD_WARNING_THRESHOLD and not self._has_warned_ahead:
            self._has_warned_ahead = True
            _log.warning("%s", _ahead_line(wall - steady))
        return min(wall, steady)

    def removal_limit(self, what: str, due: int, total: int, before: float) -> int:
        """Return how many may be removed now because of their age.

        Args:
            what: What they are, for messages: `entries of the audit log`.
            due: How many have expired.
            total: The number of all.
            before: The wall time before which an item has expired.
        """
        held = self._clock.boot() - self._started < _HOLD_TIME
        # Items added since the clock was wrong must not make the retained ones a minority.
        is_small = due * 2 <= total and not (held and what in self._held_back)
        # When the daemon itself has run for that long, expired items are certainly old.
        if due == 0 or is_small or before >= self._trusted_wall:
            self._held_back.pop(what, None)
            return due
        most = 0 if held else max(1, total // _REMOVAL_DIVISOR)
        left = due - most
        if left > 0 and what not in self._held_back:
            _log.warning("%s", _held_back_line(what, left))
        if left > 0:
            self._held_back[what] = left
        else:
            self._held_back.pop(what, None)
        return most

    def problems(self) -> list[str]:
        """Return a line for each kind of item that is retained because the clock may be wrong."""
        lines = [_held_back_line(what, left) for what, left in self._held_back.copy().items()]
        self._adopt_corrected_clock()
        ahead = self._clock.wall() - (self._trusted_wall + self._clock.boot() - self._trusted_boot)
        return [_ahead_line(ahead), *lines] if ahead > _AHEAD_WARNING_THRESHOLD else lines

    def _adopt_corrected_clock(self) -> None:
        """Trust the clock if it was certainly wrong at the start, and has been set since."""
        if self._trusted_wall < _MIN_PLAUSIBLE_TIME <= self._clock.wall():
            self.trust_wall_clock()


def _ahead_line(seconds: float) -> str:
    return (
        f"the wall clock was set forward by {seconds / 86400:.1f} days; until a reload, the ages of audit entries and "
        "journaled events do not include that"
    )


def _held_back_line(what: str, left: int) -> str:
    return (
        f"{left} {what} have expired by the wall clock; they are kept for the first day, then removed gradually: "
        "check that the clock is right"
    )
