"""State changes of services, drivers and peers as notifications, each sent once, with its reason and time."""

from __future__ import annotations

import logging
from typing import Final, Protocol

from ostler.bounds import WHY_LIMIT, escape_surrogates, truncate
from ostler.clock import Clock
from ostler.errors import OstlerError
from ostler.redaction import redact
from ostler.types import (
    CONTROL_TOPIC,
    BreakerState,
    DriverState,
    DriverStatus,
    Json,
    PluginState,
    PluginStatus,
    ServiceState,
)

_log = logging.getLogger(__name__)
_SERVICE_PRIORITIES: Final = {
    ServiceState.UP: "info",
    ServiceState.DEGRADED: "warn",
    ServiceState.DRAINING: "info",
    ServiceState.STOPPED: "info",
    ServiceState.FAILED: "error",
}
"""The states of a service with a notification, each with its priority."""
_DRIVER_PRIORITIES: Final = {DriverState.READY: "info", DriverState.FAILED: "warn", DriverState.STUCK: "error"}
"""The same for a driver: between two attempts it is initialising, without a notification."""
_BREAKER_PRIORITIES: Final = {BreakerState.CLOSED: "info", BreakerState.OPEN: "warn", BreakerState.HALF_OPEN: "info"}
_PEER_PRIORITIES: Final = {"back": "info", "lost": "warn", "refused": "error"}


class NotificationHub(Protocol):
    """Delivers notifications to their sinks; see `Notifications.notify`."""

    def notify(
        self, topic: str, priority: str, event_type: str, payload: Json, context: None = None, *, in_log: bool = False
    ) -> None:
        """Send a notification to the sinks of its priority."""
        ...


class StateNotifier:
    """Sends one notification per state change, on the topic `ostler`. On the loop; never waits, never raises.

    Args:
        hub: Delivers them to their sinks; None to send none.
        host: The name of this host.
        clock: The source of time.
    """

    def __init__(self, hub: NotificationHub | None, host: str, clock: Clock) -> None:
        self._hub = hub
        self._host = host
        self._clock = clock
        self._last_states: dict[tuple[str, ...], str] = {}

    def notify_service(self, topic: str, state: ServiceState, why: str, since: float) -> None:
        """Record the state of a service; no notification for a new reason alone, nor for the start with the daemon."""
        key = ("service", topic)
        if state is ServiceState.UP and key not in self._last_states:
            self._last_states[key] = str(state)
        elif (priority := _SERVICE_PRIORITIES.get(state)) is not None:
            self._notify_change(key, str(state), priority, {"topic": topic, "why": why, "since": since})

    def notify_driver(self, topic: str, status: DriverStatus) -> None:
        """Record the state of a driver; no notification for becoming ready at the start."""
        self._notify_breaker(topic, status)
        priority, key = _DRIVER_PRIORITIES.get(status.state), ("driver", topic, status.name)
        if status.state is DriverState.STOPPED:
            self._last_states.pop(key, None)  # the notification of its service covers it
        elif status.state is DriverState.READY and key not in self._last_states:
            self._last_states[key] = str(status.state)
        elif priority is not None:
            facts: dict[str, Json] = {"topic": topic, "driver": status.name, "why": status.why, "since": status.since}
            self._notify_change(key, str(status.state), priority, facts)

    def _notify_breaker(self, topic: str, status: DriverStatus) -> None:
        state, key = status.breaker, ("breaker", topic, status.name)
        if state is BreakerState.CLOSED and key not in self._last_states:
            return
        facts: dict[str, Json] = {
            "topic": topic, "driver": status.name, "why": status.last_error, "since": status.breaker_since,
        }  # fmt: skip
        self._notify_change(key, state.replace(" ", "_"), _BREAKER_PRIORITIES[state], facts)

    def notify_peer(self, host: str, state: str, why: str, since: float) -> None:
        """Record what is known of a peer: it is `back`, `lost` or `refused`."""
        self._notify_change(("peer", host), state, _PEER_PRIORITIES[state], {"peer": host, "why": why, "since": since})

    def notify_plugin(self, status: PluginStatus) -> None:
        """Notify of a plugin that could not be loaded, or is quarantined; nothing for one in another state."""
        if status.state in (PluginState.FAILED, PluginState.QUARANTINED):
            facts: dict[str, Json] = {"plugin": status.name, "why": status.why, "since": status.since}
            self._notify_change(("plugin", status.name), str(status.state), "error", facts)

    def notify_operator(self, topic: str, what: str, by: str, why: str = "") -> None:
        """Notify of an operator's action on a service: `enabled`, `drained`, `frozen`, `deleted` and so on."""
        facts: dict[str, Json] = {"topic": topic, "by": by, "why": why, "since": self._clock.wall()}
        self._notify(f"service.{what}", "info", facts)

    def _notify_change(self, key: tuple[str, ...], state: str, priority: str, payload: dict[str, Json]) -> None:
        was = self._last_states.get(key, "")
        if was == state:
            return
        self._last_states[key] = state
        self._notify(f"{key[0]}.{state}", priority, {**payload, "was": was})

    def _notify(self, event_type: str, priority: str, payload: dict[str, Json]) -> None:
        if self._hub is None:
            return
        payload["why"] = escape_surrogates(truncate(redact(str(payload["why"])), WHY_LIMIT))
        try:
            self._hub.notify(CONTROL_TOPIC, priority, event_type, {"host": self._host, **payload}, in_log=True)
        except OstlerError as error:
            _log.warning("notification %s was not sent: %s", event_type, error)
