"""Which of the services in the table count when it is asked what version of their calls may be used."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ostler.availability import absence_reason
from ostler.clock import Clock
from ostler.types import MemberVersion, ServiceState, ServiceStatus

_ENDED = (ServiceState.STOPPED, ServiceState.FAILED)


class MemberVersions:
    """Judges whether a service counts. A stale record pins nobody: what is gone does not, after a grace time.

    How long a service has been gone or disabled is at least as long as we have seen it so. Nothing else is known of one
    that has failed on a host that is well; and the wall clock, by which it is known when a service of this host was
    disabled, may have been set since. Safe on any thread.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[tuple[str, str], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def members(self, services: Iterable[ServiceStatus], grace: float) -> dict[str, list[MemberVersion]]:
        """Return the RPC version of every service, by topic and by `topic.namespace`, and whether it counts.

        One that is there and enabled counts; one that is not, for a grace time after it has gone or was disabled.

        Args:
            services: The view of all services.
            grace: That time in seconds.
        """
        found: dict[str, list[MemberVersion]] = {}
        for status in services:
            counts, why = self.of(status, grace)
            for topic, version in versions_of(status):
                member = MemberVersion(host=status.host, version=version, counts=counts, why=why)
                found.setdefault(topic, []).append(member)
        return found

    def of(self, status: ServiceStatus, grace: float) -> tuple[bool, str]:
        """Return whether a service counts, and what it is.

        Args:
            status: The view of the service.
            grace: Seconds for which one still counts that is gone.
        """
        if status.state is ServiceState.GONE:
            return False, "gone, and does not count"
        if absence_reason(status):
            why = str(status.state) if status.state in _ENDED else "down"
            gone = max(status.age, self._seen(status, "gone"))
        elif not status.enabled:
            why = f"disabled{f': {status.disabled_reason}' if status.disabled_reason else ''}"
            known = self._clock.wall() - status.enabled_at if status.here and status.enabled_at else 0.0
            gone = max(known, self._seen(status, "disabled"))
        else:
            self._seen(status, "")
            return True, str(status.state)
        if gone <= grace:
            return True, f"{why}, and counts for {grace - gone:.0f} s more"
        return False, f"{why}, and does not count"

    def _seen(self, status: ServiceStatus, what: str) -> float:
        """Return for how many seconds a service has been seen so."""
        key, now = (status.topic, status.host), self._clock.monotonic()
        with self._lock:
            before = self._since.get(key)
            if before is None or before[0] != what:
                before = self._since[key] = what, now
        return now - before[1]


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
