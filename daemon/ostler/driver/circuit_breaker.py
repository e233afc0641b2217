"""The circuit breaker of one driver: refuses calls at once after many failures in a row, and tries again."""

from __future__ import annotations

import random
from collections.abc import Callable

from ostler.clock import Clock
from ostler.driver.driver_executor import DriverLabel
from ostler.driver.failure_streak import FailureStreak
from ostler.errors import DriverCircuitOpen
from ostler.time_text import format_duration, format_moment
from ostler.types import BreakerState

_JITTER = 0.25
"""The part by which a wait is shortened at random, so that many drivers of one device do not try at the same time."""


class CircuitBreaker:
    """Decides which calls of a failing driver are let through. Used with the lock of the driver held.

        closed ──► open         so many calls in a row have failed
          ▲  ▲      │  ▲
          │  └──┐   ▼  │        the wait is over; the trial call has failed
          │    half open        the trial call has returned a result

    While it is open, calls are refused. When the wait is over it is half open: one call is let through as a trial, and
    the others are refused until its end. Each trial that fails doubles the wait. A call that was refused (`NotFound`)
    says nothing of the device: the next one is the trial.

    Args:
        clock: The source of time.
        rng: For the jitter of the waits.
        schedule: Called with the seconds after which `end_wait` is to be called with the number that goes with it.
        on_change: Called with each change of the state.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        schedule: Callable[[float, int], None],
        on_change: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._schedule = schedule
        self._on_change = on_change
        self._openings = 0
        self._wait_number = 0
        self.state = BreakerState.CLOSED
        self.since = 0.0
        """Wall time since which calls are refused; 0 while it is closed."""
        self.trial_at = 0.0
        """Wall time from which the next trial is let through; 0 unless it is open."""

    def on_failure(self, in_a_row: int, limit: int, wait: float, max_wait: float) -> None:
        """Record a call that failed and was no trial: opens the breaker when there were too many.

        Args:
            in_a_row: How many have failed in a row, this one included.
            limit: How many open it; 0 for never.
            wait: Seconds until the first trial.
            max_wait: The longest wait.
        """
        if self.state is BreakerState.CLOSED and 0 < limit <= in_a_row:
            self._open(wait, max_wait)

    def on_trial_failure(self, wait: float, max_wait: float) -> None:
        """Record that the trial call has failed: open again, for longer; see `on_failure`."""
        if self.state is BreakerState.HALF_OPEN:
            self._open(wait, max_wait)

    def close(self) -> bool:
        """Let all calls through: one has succeeded, the driver begins anew, or an operator wants it.

        Returns whether it was not closed.
        """
        was_closed = self.state is BreakerState.CLOSED
        self.state, self.since, self.trial_at, self._openings = BreakerState.CLOSED, 0.0, 0.0, 0
        self._wait_number += 1
        if not was_closed:
            self._on_change()
        return not was_closed

    def end_wait(self, number: int) -> None:
        """Let one call through as a trial; ignored when the breaker has changed since that wait began."""
        if self.state is BreakerState.OPEN and number == self._wait_number:
            self.state, self.trial_at = BreakerState.HALF_OPEN, 0.0
            self._on_change()

    def _open(self, wait: float, max_wait: float) -> None:
        seconds = min(max_wait, wait * 2.0 ** min(self._openings, 60))
        seconds *= 1.0 - _JITTER * self._rng.random()
        self._openings += 1
        self._wait_number += 1
        now = self._clock.wall()
        self.state, self.since, self.trial_at = BreakerState.OPEN, self.since or now, now + seconds
        self._schedule(seconds, self._wait_number)
        self._on_change()


def refusal_text(label: DriverLabel, breaker: CircuitBreaker, streak: FailureStreak) -> str:
    """Return why calls are refused; empty when the breaker is closed."""
    if breaker.state is BreakerState.CLOSED:
        return ""
    return (
        f"{label} refuses calls since {format_moment(breaker.since)}: its circuit breaker is {breaker.state}, "
        f"{streak.count} calls in a row have failed; the last error: {streak.shown_error()}"
    )


def refusal_error(
    label: DriverLabel, method: str, breaker: CircuitBreaker, streak: FailureStreak, now: float
) -> DriverCircuitOpen:
    """Return the error of a call that is refused; `now` is wall time."""
    wait = max(0.0, breaker.trial_at - now)
    following = (
        f"next trial in {format_duration(wait)}, at {format_moment(breaker.trial_at)}"
        if breaker.trial_at
        else "a trial is in progress"
    )
    return DriverCircuitOpen(
        f"{refusal_text(label, breaker, streak)}; {following}",
        hint=f"fix the device; `ostler driver reset {label.topic}/{label.driver}` lets calls through now",
        driver=label.driver,
        topic=label.topic,
        method=method,
        since=breaker.since,
        why=streak.shown_error(),
        retry_after=round(wait or 1.0, 3),
    )
