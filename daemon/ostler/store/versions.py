"""Which of the services in the table count when it is asked what version of their calls may be used."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import msgspec

from ostler.clock import Clock
from ostler.types import ServiceState, ServiceStatus

_GONE = (ServiceState.STOPPED, ServiceState.FAILED)


class Standings:
    """Judges whether a service counts. A stale record pins nobody: what is gone does not, after a grace time.

    How long ago a service was disabled is only known by the wall clock, which may have been set since: it is at least
    as long as we have seen it so. Safe on any thread.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._disabled: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def of(self, status: ServiceStatus, age: float, enabled_at: float, grace: float) -> tuple[bool, str]:
        """Return whether a service counts, and what it is.

        Args:
            status: The service.
            age: Seconds since its last report.
            enabled_at: The wall time when it was enabled or disabled.
            grace: Seconds for which one still counts that is gone.
        """
        disabled = self._disabled_for(status, enabled_at)
        if status.state is ServiceState.GONE:
            return False, "gone, and does not count"
        if status.state in _GONE:
            gone, why = age, str(status.state)
        elif not status.up:
            gone, why = age, "down"
        elif not status.enabled:
            gone, why = disabled, f"disabled{f': {status.disabled_reason}' if status.disabled_reason else ''}"
        else:
            return True, str(status.state)
        if gone <= grace:
            return True, f"{why}, and counts for {grace - gone:.0f} s more"
        return False, f"{why}, and does not count"

    def _disabled_for(self, status: ServiceStatus, enabled_at: float) -> float:
        key, now = (status.topic, status.host), self._clock.monotonic()
        with self._lock:
            if status.enabled:
                self._disabled.pop(key, None)
                return 0.0
            seen = self._disabled.setdefault(key, now)
        # Other hosts do not tell when: then it is since we have seen it.
        return max(now - seen, self._clock.wall() - enabled_at if enabled_at else 0.0)


def versions_of(status: ServiceStatus) -> Iterator[tuple[str, str]]:
    """Return the version of a service under its topic, and that of each namespace under `topic.namespace`."""
    yield status.topic, status.rpc_version
    for namespace, version in sorted(status.namespaces.items()):
        yield f"{status.topic}.{namespace}", version


def packed(namespaces: Mapping[str, str]) -> str:
    """Return the versions of namespaces as they stand in the table."""
    return msgspec.json.encode(dict(namespaces), order="sorted").decode() if namespaces else ""


def unpacked(text: str) -> dict[str, str]:
    """Return the versions of namespaces from what stands in the table."""
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}
