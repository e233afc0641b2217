"""Keeps what services last reported, and what was promised since."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

import msgspec

from ostler import CapabilityReport, Json, format_seconds
from ostler_scheduler.wire import Candidate

Backends = Mapping[str, Mapping[str, Json]]


class _Kept(msgspec.Struct):
    backends: Backends
    enabled: bool
    received: float
    """Moment of our own monotonic clock: wall clocks of other hosts are not to be trusted."""
    reported_at: float
    """The sender's wall clock; only compared for being the same, which tells one report from the next."""
    gone: str = ""
    promised: dict[str, int] = {}


class Candidates:
    """The backends that have reported, by topic and host. Safe on any thread; every time is of one monotonic clock.

    Args:
        stale_after: Seconds after which a report does not count any more.
        forget_after: Seconds after which it is not even shown any more.
    """

    def __init__(self, stale_after: float, forget_after: float) -> None:
        self.stale_after = stale_after
        self.forget_after = forget_after
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._lock = threading.Lock()

    def update(
        self, topic: str, host: str, backends: Backends, *, reported_at: float, enabled: bool, now: float
    ) -> None:
        """Take a report that has just come in; what was promised is in it now."""
        with self._lock:
            self._kept[topic, host] = _Kept(backends, enabled, now, reported_at)

    def take_kept(self, reports: Iterable[CapabilityReport], asked: float, now: float) -> None:
        """Take over what the daemon keeps, as far as it is newer than what came in directly.

        Args:
            reports: What the daemon keeps; those that are stale, or whose service is down, count as gone.
            asked: When the daemon was asked; what came in directly since is newer than its answer.
            now: The present.
        """
        with self._lock:
            for report in reports:
                self._take_one(report, asked, now)

    def _take_one(self, report: CapabilityReport, asked: float, now: float) -> None:
        key = report.topic, report.host
        known = self._kept.get(key)
        if known is not None and known.received > asked:
            return
        down = "" if report.up else "its service is down"
        if known is not None and known.reported_at == report.reported_at:
            # The report we have: its age goes on counting. Its service may have been disabled, or be down, since.
            known.enabled, known.gone = report.enabled, down or (known.gone if report.stale else "")
            return
        gone = down or ("it was stale when this scheduler first saw it" if report.stale else "")
        self._kept[key] = _Kept(report.backends, report.enabled, now, report.reported_at, gone)

    def known(self, now: float, topic: str = "") -> list[Candidate]:
        """Return the backends of a topic, or all, in order of topic, host and name; stale ones are marked as gone."""
        with self._lock:
            for key in [key for key, kept in self._kept.items() if now - kept.received > self.forget_after]:
                del self._kept[key]
            return [
                self._candidate(key, kept, backend, now)
                for key, kept in sorted(self._kept.items(), key=lambda item: item[0])
                for backend in sorted(kept.backends)
                if topic in {"", key[0]}
            ]

    def _candidate(self, key: tuple[str, str], kept: _Kept, backend: str, now: float) -> Candidate:
        age = max(0.0, now - kept.received)
        gone = kept.gone
        if not gone and age > self.stale_after:
            limit = format_seconds(self.stale_after)
            gone = f"its last report is {format_seconds(round(age))} old, and counts for {limit}"
        return Candidate(
            topic=key[0],
            host=key[1],
            backend=backend,
            facts=dict(kept.backends[backend]),
            enabled=kept.enabled,
            age=age,
            promised=kept.promised.get(backend, 0),
            gone=gone,
        )

    def promise(self, topic: str, host: str, backend: str, size: int) -> None:
        """Count bytes as given away until the next report of this service."""
        with self._lock:
            kept = self._kept.get((topic, host))
            if kept is not None and size:
                kept.promised[backend] = kept.promised.get(backend, 0) + size

    def silent(self, topic: str) -> list[str]:
        """Return the hosts of a topic that have reported without naming any backend."""
        with self._lock:
            return sorted(host for (of, host), kept in self._kept.items() if of == topic and not kept.backends)
