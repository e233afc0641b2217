"""Counts the calls of a driver that fail, to detect one whose calls all do."""

from __future__ import annotations

from ostler.bounds import WHY_LIMIT, escape_surrogates, truncate
from ostler.clock import Clock
from ostler.errors import DriverError, FeatureNotSupported, error_line, is_expected
from ostler.redaction import redact

IGNORED_METHODS = frozenset({"is_working", "capabilities", "initialise", "cleanup"})
"""Not counted: failures are part of the state already, and success does not show that the driver works."""
STREAK_LIFETIME = 900.0
"""Seconds after its last failure for which a streak is held against a driver that is not called any more."""


class CallTotals:
    """What all instances of a driver have done; it goes on when one is abandoned, or gets other threads."""

    __slots__ = ("errors", "seconds")

    def __init__(self) -> None:
        self.errors = 0
        """Calls that failed since the start."""
        self.seconds = 0.0
        """How long the calls that have ended were in a thread, all together."""


class FailureStreak:
    """Counts failures, and those in a row. Used with the lane's lock held; what is read may be read on any thread.

    A refused request (`RequestError` and other Ostler errors that are not driver errors, and `FeatureNotSupported`) is
    not a failure of the driver, and not a sign that it works either: most are detected before the device is accessed.

    Args:
        clock: The source of time.
        totals: Where failures are counted as well.
    """

    __slots__ = ("_clock", "_failed_at", "_totals", "count", "last_error", "last_error_at", "last_success", "since")

    def __init__(self, clock: Clock, totals: CallTotals) -> None:
        self._clock, self._totals = clock, totals
        self._failed_at = 0.0
        self.count = 0
        """Failures since the last success."""
        self.last_error = ""
        self.last_error_at = 0.0
        self.since = 0.0
        """Wall time of the first failure in a row."""
        self.last_success: float | None = None
        """When a call last returned a result, by the monotonic clock."""

    def failed(self, label: str, error: BaseException) -> bool:
        """Record a call that raised; return whether it counts."""
        if label in IGNORED_METHODS:
            return False
        kind = type(error)
        if is_expected(error) and (not issubclass(kind, DriverError) or issubclass(kind, FeatureNotSupported)):
            return False  # neither: a driver with a broken device still refuses requests without accessing the device
        now = self._clock.wall()
        if not self.count:
            self.since = now
        self.count += 1
        self._totals.errors += 1
        self._failed_at = self._clock.monotonic()
        self.last_error, self.last_error_at = f"{label}: {error_line(error)}", now
        return True

    def worked(self) -> bool:
        """Record a call that returned a result; return whether a streak has ended with it."""
        was, self.count = self.count, 0
        return was > 0

    def is_failing(self, limit: int) -> bool:
        """Return whether the last `limit` calls failed, the last one not long ago."""
        return self.count >= limit and self._clock.monotonic() - self._failed_at < STREAK_LIFETIME

    def shown_error(self) -> str:
        """Return the last error, fit to be shown."""
        return escape_surrogates(truncate(redact(self.last_error), WHY_LIMIT))
