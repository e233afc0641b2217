"""A driver whose calls all fail: what an operator is told of that."""

from __future__ import annotations

import time

from ostler.clock import Clock
from ostler.errors import DriverError, describe, is_expected

_FEWEST = 3
"""Calls that fail one after another before that is told: one may be its caller's fault."""
_CHECKS = frozenset({"is_working", "capabilities", "initialise", "cleanup"})
"""What is told by the state of the driver and the service already, and what works without the driver's being of use."""


class Failing:
    """Counts the calls that fail one after another. Used with the lane's lock held, but for `trouble`.

    A refusal of what was asked for (`RequestError` and other errors of ours that are not of drivers) is no failure of
    the driver, and no sign that it works either: most are found out before the device is asked.

    Args:
        clock: The source of wall time.
    """

    __slots__ = ("_clock", "_since", "_text", "times")

    def __init__(self, clock: Clock) -> None:
        self.times = 0
        self._clock = clock
        self._since = 0.0
        self._text = ""

    def failed(self, label: str, error: BaseException) -> None:
        """Take note of a call that raised."""
        if label in _CHECKS:
            return
        if is_expected(error) and not issubclass(type(error), DriverError):
            return  # neither: a driver whose device is dead still refuses what it refuses without asking the device
        if not self.times:
            self._since = self._clock.wall()
        self.times += 1
        self._text = f"{label}: {describe(error)}"

    def worked(self, label: str) -> None:
        """Take note of a call that came back with a result."""
        if label not in _CHECKS:
            self.times = 0

    def trouble(self, whose: object) -> str:
        """Return a line when all calls fail, with how many and since when; empty when they do not. Any thread."""
        if self.times < _FEWEST:
            return ""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._since))
        return f"{whose}: the last {self.times} calls failed, since {since}; the last one: {self._text}"
