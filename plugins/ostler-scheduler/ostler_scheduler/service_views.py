"""Which candidates may be chosen at all, by the daemon's view of their services and the daemon's own rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ostler import ServiceStatus, capability_lifetime, format_seconds, unavailable_reason
from ostler_scheduler.api_types import Candidate


class ServiceViews:
    """The daemon's view of all services. Thread-safe."""

    def __init__(self) -> None:
        self._rows: Mapping[tuple[str, str], ServiceStatus] | None = None

    def replace(self, rows: Iterable[ServiceStatus]) -> None:
        """Replace the view by a newer one."""
        self._rows = {(row.topic, row.host): row for row in rows}

    def get(self, topic: str, host: str) -> ServiceStatus | None:
        """Return the daemon's view of a service; None if it does not know the service, or nothing is known yet."""
        return (self._rows or {}).get((topic, host))

    def reason_unavailable(self, topic: str, host: str, backend: str) -> str:
        """Return why a backend must not be chosen according to the daemon; empty if there is no reason."""
        row = self.get(topic, host)
        return unavailable_reason(row, backend) if row is not None else ""

    def mark_unavailable(self, candidate: Candidate, stale_after: float) -> Candidate:
        """Return a candidate, marked as gone if it must not be chosen; unchanged while no services are known.

        Args:
            candidate: A backend that has reported.
            stale_after: Minimum age in seconds at which its report is stale, whatever interval its service has.
        """
        rows = self._rows
        if rows is None:
            return candidate
        row = rows.get((candidate.topic, candidate.host))
        if row is None:
            why = (
                f"{candidate.host} is unreachable from this host: it is not in [network.peers], "
                f"or has no service {candidate.topic}"
            )
            return msgspec.structs.replace(candidate, gone=why)
        gone = (
            unavailable_reason(row, candidate.backend) or candidate.gone or _stale_reason(candidate, row, stale_after)
        )
        return msgspec.structs.replace(candidate, gone=gone, enabled=row.enabled and candidate.enabled)


def _stale_reason(candidate: Candidate, row: ServiceStatus, stale_after: float) -> str:
    limit = max(stale_after, capability_lifetime(row.capability_interval))
    if candidate.age <= limit:
        return ""
    return f"its last report is {format_seconds(round(candidate.age))} old, the limit is {format_seconds(limit)}"
