"""Stores the last reports of services, and the leases of space promised since."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

import msgspec

from ostler import CapabilityReport, format_seconds
from ostler_scheduler.api_types import Candidate
from ostler_scheduler.leases import Leases

_MAX_FORMER_INSTANCES = 8
"""How many earlier runs of a reporting daemon are remembered, whose late reports are ignored."""


class _StoredReport(msgspec.Struct):
    report: CapabilityReport
    enabled: bool
    received: float
    """Time of the local monotonic clock: wall clocks of other hosts are not trusted."""
    gone: str = ""
    former_instances: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=_MAX_FORMER_INSTANCES))


class Candidates:
    """The backends that have reported, by topic and host. Thread-safe; all times are of one monotonic clock.

    Args:
        stale_after: Seconds after which a report is stale.
        forget_after: Seconds after which a stale report is no longer shown.
        lease_timeout: Seconds after which promised space is released if it was neither used nor returned.
    """

    def __init__(self, stale_after: float, forget_after: float, lease_timeout: float = 60.0) -> None:
        self.stale_after = stale_after
        self.forget_after = forget_after
        self.leases = Leases(lease_timeout)
        self._reports: dict[tuple[str, str], _StoredReport] = {}
        self._lock = threading.Lock()

    def update(self, report: CapabilityReport, now: float) -> bool:
        """Store a report that has just arrived, and replace the previous one of the service.

        Leases remain, except those that the report says have ended. A report that is older than the stored one, or of
        an earlier run of the daemon, is ignored.

        Returns:
            Whether it was stored.
        """
        with self._lock:
            taken = self._store_report(report, now, enabled=report.enabled)
            if taken:
                self.leases.apply_report(report.leases, now)
            return taken

    def merge_stored(self, reports: Iterable[CapabilityReport], asked_at: float, now: float) -> None:
        """Store the reports of the daemon that are newer than those that arrived directly.

        Args:
            reports: The reports that the daemon has stored; those that are stale, or of a service that is down, count
                as gone.
            asked_at: When the daemon was queried; reports that arrived directly since are newer than its result.
            now: The current time.
        """
        with self._lock:
            for report in reports:
                self._merge_report(report, asked_at, now)

    def _merge_report(self, report: CapabilityReport, asked_at: float, now: float) -> None:
        key = report.topic, report.host
        known = self._reports.get(key)
        if known is not None and known.received > asked_at:
            return
        down = "" if report.up else "its service is down"
        if known is not None and not self._is_newer(known, report):
            # The report is known: its age continues. Its service may have been disabled, or gone down, since.
            known.enabled, known.gone = report.enabled, down or (known.gone if report.stale else "")
            return
        gone = down or ("its report was already stale when this scheduler received it" if report.stale else "")
        if self._store_report(report, now, enabled=report.enabled, gone=gone):
            self.leases.apply_report(report.leases, now)

    def _store_report(self, report: CapabilityReport, now: float, *, enabled: bool, gone: str = "") -> bool:
        key = report.topic, report.host
        known = self._reports.get(key)
        if known is None:
            self._reports[key] = _StoredReport(report, enabled, now, gone)
            return True
        if not self._is_newer(known, report):
            return False
        if known.report.instance != report.instance:
            known.former_instances.append(known.report.instance)
        known.report, known.enabled, known.received, known.gone = report, enabled, now, gone
        return True

    @staticmethod
    def _is_newer(known: _StoredReport, report: CapabilityReport) -> bool:
        if known.report.instance != report.instance:
            return report.instance not in known.former_instances
        if report.instance:
            return report.sequence > known.report.sequence
        return known.report.reported_at != report.reported_at

    def current(self, now: float, topic: str = "") -> list[Candidate]:
        """Return the backends of a topic, or all, by topic, host and name; stale ones are marked as gone."""
        with self._lock:
            for key in [key for key, kept in self._reports.items() if now - kept.received > self.forget_after]:
                del self._reports[key]
            self.leases.expire(now)
            return [
                self._candidate(key, kept, backend, now)
                for key, kept in sorted(self._reports.items(), key=lambda item: item[0])
                for backend in sorted(kept.report.backends)
                if topic in {"", key[0]}
            ]

    def _candidate(self, key: tuple[str, str], stored: _StoredReport, backend: str, now: float) -> Candidate:
        # The age of the facts starts when the backend was queried, before the report was sent.
        age = max(0.0, now - stored.received) + stored.report.ages.get(backend, 0.0)
        gone = stored.gone
        if not gone and age > self.stale_after:
            limit = format_seconds(self.stale_after)
            gone = f"its last report is {format_seconds(round(age))} old, the limit is {limit}"
        return Candidate(
            topic=key[0],
            host=key[1],
            backend=backend,
            facts=dict(stored.report.backends[backend]),
            enabled=stored.enabled,
            age=age,
            promised=self.leases.promised_bytes((*key, backend)),
            gone=gone,
        )

    def grant_lease(self, topic: str, host: str, backend: str, size: int, now: float) -> str:
        """Count bytes as promised, and return the id of the lease; empty if there is nothing to count."""
        with self._lock:
            if not size or (topic, host) not in self._reports:
                return ""
            return self.leases.grant((topic, host, backend), size, now)

    def release_lease(self, lease: str) -> bool:
        """Release a lease that was not used. Return whether it existed."""
        with self._lock:
            return self.leases.release(lease)

    def withheld_backends(self, topic: str) -> list[tuple[str, str, str]]:
        """Return the backends of a topic that their services do not offer now: host, backend and reason."""
        with self._lock:
            return [
                (host, backend, why)
                for (of, host), kept in sorted(self._reports.items(), key=lambda item: item[0])
                if of == topic
                for backend, why in sorted(kept.report.withheld.items())
            ]

    def hosts_without_backends(self, topic: str) -> list[str]:
        """Return the hosts of a topic that have reported no backend."""
        with self._lock:
            return sorted(
                host for (of, host), kept in self._reports.items() if of == topic and not kept.report.backends
            )
