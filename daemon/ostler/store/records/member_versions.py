"""Which services in the table count for the version of calls that may be used."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ostler.availability import absence_reason
from ostler.clock import Clock
from ostler.time_text import format_duration
from ostler.types import MemberVersion, ServiceState, ServiceStatus

_ENDED_STATES = (ServiceState.STOPPED, ServiceState.FAILED)


class MemberVersions:
    """Decides whether a service counts. A stale record holds no version back: it does not count after a grace time.

    A service has been gone or disabled for at least as long as it was seen so here. Nothing else is known of a service
    that failed on a working host; and the wall clock, which says when a service of this host was disabled, may have
    been set since. Safe on any thread.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[tuple[str, str], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def members(self, services: Iterable[ServiceStatus], grace: float) -> dict[str, list[MemberVersion]]:
        """Return the RPC version of every service, by topic and by `topic.namespace`, and whether it counts.

        A running and enabled service counts; any other for a grace time after it stopped or was disabled.

        Args:
            services: The view of all services.
            grace: That time in seconds.
        """
        found: dict[str, list[MemberVersion]] = {}
        for status in services:
            counts, why = self.evaluate(status, grace)
            for topic, version in service_versions(status):
                member = MemberVersion(host=status.host, version=version, counts=counts, why=why)
                found.setdefault(topic, []).append(member)
        return found

    def evaluate(self, status: ServiceStatus, grace: float) -> tuple[bool, str]:
        """Return whether a service counts, and its state in words.

        Args:
            status: The view of the service.
            grace: Seconds for which it still counts after it has stopped.
        """
        if status.state is ServiceState.GONE:
            return False, "removed, not counted"
        if absence_reason(status):
            why = str(status.state) if status.state in _ENDED_STATES else "down"
            gone = max(status.age, self._seconds_in_state(status, "gone"))
        elif not status.enabled:
            why = f"disabled{f': {status.disabled_reason}' if status.disabled_reason else ''}"
            known = self._clock.wall() - status.enabled_at if status.here and status.enabled_at else 0.0
            gone = max(known, self._seconds_in_state(status, "disabled"))
        else:
            self._seconds_in_state(status, "")
            return True, str(status.state)
        if gone <= grace:
            return True, f"{why}, counted for another {format_duration(grace - gone)}"
        return False, f"{why}, not counted"

    def _seconds_in_state(self, status: ServiceStatus, what: str) -> float:
        """Return for how many seconds a service has been seen in that state."""
        key, now = (status.topic, status.host), self._clock.monotonic()
        with self._lock:
            before = self._since.get(key)
            if before is None or before[0] != what:
                before = self._since[key] = what, now
        return now - before[1]


def service_versions(status: ServiceStatus) -> Iterator[tuple[str, str]]:
    """Return the version of a service under its topic, and that of each namespace under `topic.namespace`."""
    yield status.topic, status.rpc_version
    for namespace, version in sorted(status.namespaces.items()):
        yield f"{status.topic}.{namespace}", version


def encode_namespaces(namespaces: Mapping[str, str]) -> str:
    """Return the versions of namespaces in their stored form."""
    return msgspec.json.encode(dict(namespaces), order="sorted").decode() if namespaces else ""


def decode_namespaces(text: str) -> dict[str, str]:
    """Return the versions of namespaces from their stored form."""
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}
