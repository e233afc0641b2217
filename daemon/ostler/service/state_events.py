"""Changes of state as notifications: of services, drivers and peers, each told once, with why and since when."""

from __future__ import annotations

import logging
from typing import Final, Protocol

from ostler.bounds import WHY_LIMIT, cut, sendable
from ostler.clock import Clock
from ostler.errors import OstlerError
from ostler.redaction import redact
from ostler.types import CONTROL_TOPIC, DriverState, DriverStatus, Json, ServiceState

_log = logging.getLogger(__name__)
_SERVICE: Final = {
    ServiceState.UP: "info",
    ServiceState.DEGRADED: "warn",
    ServiceState.DRAINING: "info",
    ServiceState.STOPPED: "info",
    ServiceState.FAILED: "error",
}
"""The states of a service that are told, each with its priority."""
_DRIVER: Final = {DriverState.READY: "info", DriverState.FAILED: "warn", DriverState.STUCK: "error"}
"""Those of a driver: between two tries it is initialising, which is no news."""
_PEER: Final = {"back": "info", "lost": "warn", "refused": "error"}


class Hub(Protocol):
    """What brings notifications to their sinks; see `Notifications.notify`."""

    def notify(
        self, topic: str, priority: str, event_type: str, payload: Json, context: None = None, *, in_log: bool = False
    ) -> None:
        """Tell a notification to the sinks of its priority."""
        ...


class StateEvents:
    """Tells of each change of state once, on the topic `ostler`. On the loop; never waits, never raises.

    Args:
        hub: Brings them to their sinks; None tells nobody.
        host: The name of this host.
        clock: The source of time.
    """

    def __init__(self, hub: Hub | None, host: str, clock: Clock) -> None:
        self._hub = hub
        self._host = host
        self._clock = clock
        self._told: dict[tuple[str, ...], str] = {}

    def service(self, topic: str, state: ServiceState, why: str, since: float) -> None:
        """Take note of the state of a service; another reason for it is no news, nor that it starts with the daemon."""
        key = ("service", topic)
        if state is ServiceState.UP and key not in self._told:
            self._told[key] = str(state)
        elif (priority := _SERVICE.get(state)) is not None:
            self._change(key, str(state), priority, {"topic": topic, "why": why, "since": since})

    def driver(self, topic: str, status: DriverStatus) -> None:
        """Take note of the state of a driver. That it is ready is news after it was not, and no news at the start."""
        priority, key = _DRIVER.get(status.state), ("driver", topic, status.name)
        if status.state is DriverState.STOPPED:
            self._told.pop(key, None)  # with its service, which is told
        elif status.state is DriverState.READY and key not in self._told:
            self._told[key] = str(status.state)
        elif priority is not None:
            facts: dict[str, Json] = {"topic": topic, "driver": status.name, "why": status.why, "since": status.since}
            self._change(key, str(status.state), priority, facts)

    def peer(self, host: str, state: str, why: str, since: float) -> None:
        """Take note of what is known of a peer: it is `back`, `lost` or `refused`."""
        self._change(("peer", host), state, _PEER[state], {"peer": host, "why": why, "since": since})

    def operator(self, topic: str, what: str, by: str, why: str = "") -> None:
        """Tell what an operator has said of a service: it is `enabled`, `disabled`, `drained` or `forgotten`."""
        facts: dict[str, Json] = {"topic": topic, "by": by, "why": why, "since": self._clock.wall()}
        self._tell(f"service.{what}", "info", facts)

    def _change(self, key: tuple[str, ...], state: str, priority: str, facts: dict[str, Json]) -> None:
        was = self._told.get(key, "")
        if was == state:
            return
        self._told[key] = state
        self._tell(f"{key[0]}.{state}", priority, {**facts, "was": was})

    def _tell(self, event_type: str, priority: str, facts: dict[str, Json]) -> None:
        if self._hub is None:
            return
        facts["why"] = sendable(cut(redact(str(facts["why"])), WHY_LIMIT))
        try:
            self._hub.notify(CONTROL_TOPIC, priority, event_type, {"host": self._host, **facts}, in_log=True)
        except OstlerError as error:
            _log.warning("%s was not told: %s", event_type, error)
