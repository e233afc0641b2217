"""Detects a driver whose calls all fail, for the operator."""

from __future__ import annotations

import time

from ostler.clock import Clock
from ostler.errors import DriverError, error_line, is_expected

_MIN_FAILURES = 3
"""Consecutive failures before they are reported: one may be its caller's fault."""
_IGNORED_METHODS = frozenset({"is_working", "capabilities", "initialise", "cleanup"})
"""Not counted: failures are part of the state already, and success does not show that the driver works."""


class FailureStreak:
    """Counts consecutive failures. Used with the lane's lock held, except `problem`.

    A refused request (`RequestError` and other Ostler errors that are not driver errors) is not a failure of the
    driver, and not a sign that it works either: most are detected before the device is accessed.

    Args:
        clock: The source of wall time.
    """

    __slots__ = ("_clock", "_last_error", "_since", "count")

    def __init__(self, clock: Clock) -> None:
        self.count = 0
        self._clock = clock
        self._since = 0.0
        self._last_error = ""

    def failed(self, label: str, error: BaseException) -> None:
        """Record a call that raised."""
        if label in _IGNORED_METHODS:
            return
        if is_expected(error) and not issubclass(type(error), DriverError):
            return  # neither: a driver with a broken device still refuses requests without accessing the device
        if not self.count:
            self._since = self._clock.wall()
        self.count += 1
        self._last_error = f"{label}: {error_line(error)}"

    def worked(self, label: str) -> None:
        """Record a call that returned a result."""
        if label not in _IGNORED_METHODS:
            self.count = 0

    def problem(self, driver: object) -> str:
        """Return a line when all calls fail, with how many and since when; empty when they do not. Any thread."""
        if self.count < _MIN_FAILURES:
            return ""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._since))
        return f"{driver}: the last {self.count} calls failed, since {since}; the last error: {self._last_error}"
