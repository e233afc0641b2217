"""The state of a service, with its reason and since when."""

from __future__ import annotations

from collections.abc import Callable

from ostler.bounds import WHY_LIMIT, escape_surrogates, truncate
from ostler.clock import Clock
from ostler.redaction import redact
from ostler.types import ServiceState


class StateTracker:
    """The state of one service: its phase, and its problems while it is up.

    `up` with a problem is reported as `degraded`; every other state is reported unchanged.

    Args:
        clock: The source of time.
        on_change: Called on the loop after the state or its reason has changed.
    """

    def __init__(self, clock: Clock, on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._phase = ServiceState.STARTING
        self._phase_why = ""
        self._problems: dict[str, str] = {}
        self._last_notified = (ServiceState.STARTING, "", frozenset[str]())
        self.since = clock.wall()

    @property
    def state(self) -> ServiceState:
        """The state as reported."""
        if self._phase is ServiceState.UP and self._problems:
            return ServiceState.DEGRADED
        return self._phase

    @property
    def why(self) -> str:
        """The reason of the state; empty when there is none."""
        if self._phase is ServiceState.UP:
            return truncate("; ".join(self._problems.values()), 2 * WHY_LIMIT)
        return self._phase_why

    @property
    def problems(self) -> dict[str, str]:
        """Its problems, by subject."""
        return dict(self._problems)

    def enter(self, state: ServiceState, why: str = "") -> None:
        """Enter another phase. On the loop."""
        self._phase, self._phase_why = state, escape_surrogates(truncate(redact(why), WHY_LIMIT))
        self._notify_if_changed()

    def set_problem(self, key: str, why: str) -> None:
        """Set the problem of one subject (`driver local`), or clear it with an empty `why`. On the loop."""
        if why:
            self._problems[key] = escape_surrogates(truncate(redact(why), WHY_LIMIT))
        else:
            self._problems.pop(key, None)
        self._notify_if_changed()

    def _notify_if_changed(self) -> None:
        # The subjects count too: the text of many problems is cut, and one more would not change it.
        shown = (self.state, self.why, frozenset(self._problems))
        if shown == self._last_notified:
            return
        if shown[0] is not self._last_notified[0]:
            self.since = self._clock.wall()
        self._last_notified = shown
        self._on_change()
