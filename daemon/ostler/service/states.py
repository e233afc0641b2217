"""What a service says of itself, with why and since."""

from __future__ import annotations

from collections.abc import Callable

from ostler.bounds import WHY_LIMIT, cut, sendable
from ostler.clock import Clock
from ostler.redaction import redact
from ostler.types import ServiceState


class StateKeeper:
    """The state of one service: where its life stands, and what is not well while it is up.

    `up` with a complaint is `degraded`; every other state stands as it is.

    Args:
        clock: The source of time.
        on_change: Called on the loop after the state or its reason has changed.
    """

    def __init__(self, clock: Clock, on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._life = ServiceState.STARTING
        self._life_why = ""
        self._complaints: dict[str, str] = {}
        self._shown = (ServiceState.STARTING, "", frozenset[str]())
        self.since = clock.wall()

    @property
    def state(self) -> ServiceState:
        """The state as reported."""
        if self._life is ServiceState.UP and self._complaints:
            return ServiceState.DEGRADED
        return self._life

    @property
    def why(self) -> str:
        """Why it is in that state; empty when all is well."""
        if self._life is ServiceState.UP:
            return cut("; ".join(self._complaints.values()), 2 * WHY_LIMIT)
        return self._life_why

    @property
    def complaints(self) -> dict[str, str]:
        """What is not well with it, by what it is about."""
        return dict(self._complaints)

    def enter(self, state: ServiceState, why: str = "") -> None:
        """Go to another part of the life. On the loop."""
        self._life, self._life_why = state, sendable(cut(redact(why), WHY_LIMIT))
        self._note()

    def complain(self, about: str, why: str) -> None:
        """Say what is not well with one thing (`driver local`), or with an empty `why` that it is. On the loop."""
        if why:
            self._complaints[about] = sendable(cut(redact(why), WHY_LIMIT))
        else:
            self._complaints.pop(about, None)
        self._note()

    def _note(self) -> None:
        # What a complaint is about counts too: the text of many is cut, and one more would change nothing in it.
        shown = (self.state, self.why, frozenset(self._complaints))
        if shown == self._shown:
            return
        if shown[0] is not self._shown[0]:
            self.since = self._clock.wall()
        self._shown = shown
        self._on_change()
