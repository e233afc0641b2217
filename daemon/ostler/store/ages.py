"""How old something is, when the wall clock may have been set."""

from __future__ import annotations

import logging

from ostler.clock import Clock

_log = logging.getLogger(__name__)
_TOLD = 3600.0
"""Seconds by which the wall clock has to be ahead before that is said: NTP corrects it by less."""
_HOLD = 86400.0
"""Seconds after the start in which nothing goes of what is too old for the most part: time to set the clock."""
_WRITTEN = 1_735_689_600.0
"""The beginning of 2025: a clock that shows less is wrong for sure, as of a machine without a clock of its own."""
_PART = 10
"""When more than half of something is too old at once, the tenth part of it goes: the clock may be wrong."""


class Ages:
    """The time by which ages are judged, and how much may be removed for its age. Any thread.

    A wall clock that is set ahead makes everything old at once. So the time by which ages are judged goes no faster
    than the boot-time clock, which nobody sets; when the wall clock was set back, it is that one. A clock that was
    wrong when the daemon started is not to be told from a daemon that was off for long: then nothing is removed for a
    day, and little at a time after that.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: dict[str, int] = {}
        self._said_ahead = False
        self._started = clock.boot()
        self.believe()

    def believe(self) -> None:
        """Take the wall clock for right, as at the start and after a reload."""
        self._wall, self._boot = self._clock.wall(), self._clock.boot()
        self._said_ahead = False

    def now(self) -> float:
        """Return the wall time by which ages are judged."""
        self._leave_the_past()
        wall, steady = self._clock.wall(), self._wall + self._clock.boot() - self._boot
        if wall - steady > _TOLD and not self._said_ahead:
            self._said_ahead = True
            _log.warning("%s", _ahead(wall - steady))
        return min(wall, steady)

    def most(self, what: str, due: int, total: int, before: float) -> int:
        """Return how many may be removed now because of their age.

        Args:
            what: What they are, for people: `entries of the audit log`.
            due: How many are too old.
            total: How many there are.
            before: The wall time before which something is too old.
        """
        held = self._clock.boot() - self._started < _HOLD
        # What came since the clock was wrong must not make what is held the smaller part.
        is_small = due * 2 <= total and not (held and what in self._left)
        # What is older than the daemon is too old for sure when it has run for that long itself.
        if due == 0 or is_small or before >= self._wall:
            self._left.pop(what, None)
            return due
        most = 0 if held else max(1, total // _PART)
        left = due - most
        if left > 0 and what not in self._left:
            _log.warning("%s", _held_back(what, left))
        if left > 0:
            self._left[what] = left
        else:
            self._left.pop(what, None)
        return most

    def trouble(self) -> list[str]:
        """Return a line for each thing that is held back because the clock may be wrong."""
        lines = [_held_back(what, left) for what, left in self._left.copy().items()]
        self._leave_the_past()
        ahead = self._clock.wall() - (self._wall + self._clock.boot() - self._boot)
        return [_ahead(ahead), *lines] if ahead > _TOLD else lines

    def _leave_the_past(self) -> None:
        """Believe the clock when it began with a time that was wrong for sure, and has been set since."""
        if self._wall < _WRITTEN <= self._clock.wall():
            self.believe()


def _ahead(seconds: float) -> str:
    return (
        f"the wall clock was set ahead by {seconds / 86400:.1f} days; ages in audit log and journal are counted "
        "without that until a reload"
    )


def _held_back(what: str, left: int) -> str:
    return (
        f"{left} {what} are too old by this clock; they are kept for the first day, then removed little by little: "
        "is the clock right?"
    )
