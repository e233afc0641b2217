"""Which candidates may be chosen at all: the daemon's view of their services, judged as the daemon itself does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ostler import ServiceStatus, capability_lifetime, format_seconds, unavailable_reason
from ostler_scheduler.wire import Candidate


class Views:
    """The daemon's view of all services. Safe on any thread."""

    def __init__(self) -> None:
        self._rows: Mapping[tuple[str, str], ServiceStatus] | None = None

    def take(self, rows: Iterable[ServiceStatus]) -> None:
        """Take over what the daemon sees now, in place of what it saw before."""
        self._rows = {(row.topic, row.host): row for row in rows}

    def of(self, topic: str, host: str) -> ServiceStatus | None:
        """Return what the daemon sees of a service; None when it sees none, or nothing is known."""
        return (self._rows or {}).get((topic, host))

    def why_not(self, topic: str, host: str, backend: str) -> str:
        """Return why a backend must not be chosen, as the daemon sees it; empty when nothing is known against it."""
        row = self.of(topic, host)
        return unavailable_reason(row, backend) if row is not None else ""

    def judged(self, candidate: Candidate, stale_after: float) -> Candidate:
        """Return a candidate marked as gone when it must not be chosen; as it is while nothing is known of services.

        Args:
            candidate: A backend that has reported.
            stale_after: Seconds for which its report counts at least, whatever interval its service has.
        """
        rows = self._rows
        if rows is None:
            return candidate
        row = rows.get((candidate.topic, candidate.host))
        if row is None:
            why = (
                f"{candidate.host} cannot be reached from here: it is not in [network.peers], "
                f"or has no service {candidate.topic}"
            )
            return msgspec.structs.replace(candidate, gone=why)
        gone = unavailable_reason(row, candidate.backend) or candidate.gone or _stale(candidate, row, stale_after)
        return msgspec.structs.replace(candidate, gone=gone, enabled=row.enabled and candidate.enabled)


def _stale(candidate: Candidate, row: ServiceStatus, stale_after: float) -> str:
    limit = max(stale_after, capability_lifetime(row.capability_interval))
    if candidate.age <= limit:
        return ""
    return f"its last report is {format_seconds(round(candidate.age))} old, and counts for {format_seconds(limit)}"
