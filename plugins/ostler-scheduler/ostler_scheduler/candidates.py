"""Keeps what services last reported, and the leases of room that was promised since."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

import msgspec

from ostler import CapabilityReport, format_seconds
from ostler_scheduler.leases import Leases
from ostler_scheduler.wire import Candidate

_FORMER = 8
"""Earlier runs of a reporting daemon that are remembered: a report of one of them has been under way for too long."""


class _Kept(msgspec.Struct):
    report: CapabilityReport
    enabled: bool
    received: float
    """Moment of our own monotonic clock: wall clocks of other hosts are not to be trusted."""
    gone: str = ""
    former: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=_FORMER))


class Candidates:
    """The backends that have reported, by topic and host. Safe on any thread; every time is of one monotonic clock.

    Args:
        stale_after: Seconds after which a report does not count any more.
        forget_after: Seconds after which it is not even shown any more.
        lease_timeout: Seconds after which room that was promised and of which nothing was heard is free again.
    """

    def __init__(self, stale_after: float, forget_after: float, lease_timeout: float = 60.0) -> None:
        self.stale_after = stale_after
        self.forget_after = forget_after
        self.leases = Leases(lease_timeout)
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._lock = threading.Lock()

    def update(self, report: CapabilityReport, now: float) -> bool:
        """Take a report that has just come in, in place of what that service reported before.

        Leases outlive it, but for those that it says are over. One that was overtaken by a later one, or is of a run of
        the daemon before the last one known, is no news.

        Returns:
            Whether it was taken.
        """
        with self._lock:
            taken = self._take(report, now, enabled=report.enabled)
            if taken:
                self.leases.told(report.leases, now)
            return taken

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
        if known is not None and not self._is_news(known, report):
            # The report we have: its age goes on counting. Its service may have been disabled, or be down, since.
            known.enabled, known.gone = report.enabled, down or (known.gone if report.stale else "")
            return
        gone = down or ("it was stale when this scheduler first saw it" if report.stale else "")
        if self._take(report, now, enabled=report.enabled, gone=gone):
            self.leases.told(report.leases, now)

    def _take(self, report: CapabilityReport, now: float, *, enabled: bool, gone: str = "") -> bool:
        key = report.topic, report.host
        known = self._kept.get(key)
        if known is None:
            self._kept[key] = _Kept(report, enabled, now, gone)
            return True
        if not self._is_news(known, report):
            return False
        if known.report.instance != report.instance:
            known.former.append(known.report.instance)
        known.report, known.enabled, known.received, known.gone = report, enabled, now, gone
        return True

    @staticmethod
    def _is_news(known: _Kept, report: CapabilityReport) -> bool:
        if known.report.instance != report.instance:
            return report.instance not in known.former
        if report.instance:
            return report.sequence > known.report.sequence
        return known.report.reported_at != report.reported_at

    def known(self, now: float, topic: str = "") -> list[Candidate]:
        """Return the backends of a topic, or all, in order of topic, host and name; stale ones are marked as gone."""
        with self._lock:
            for key in [key for key, kept in self._kept.items() if now - kept.received > self.forget_after]:
                del self._kept[key]
            self.leases.expire(now)
            return [
                self._candidate(key, kept, backend, now)
                for key, kept in sorted(self._kept.items(), key=lambda item: item[0])
                for backend in sorted(kept.report.backends)
                if topic in {"", key[0]}
            ]

    def _candidate(self, key: tuple[str, str], kept: _Kept, backend: str, now: float) -> Candidate:
        # As old as the question that the facts answer, which was asked before the report was sent.
        age = max(0.0, now - kept.received) + kept.report.ages.get(backend, 0.0)
        gone = kept.gone
        if not gone and age > self.stale_after:
            limit = format_seconds(self.stale_after)
            gone = f"its last report is {format_seconds(round(age))} old, and counts for {limit}"
        return Candidate(
            topic=key[0],
            host=key[1],
            backend=backend,
            facts=dict(kept.report.backends[backend]),
            enabled=kept.enabled,
            age=age,
            promised=self.leases.promised((*key, backend)),
            gone=gone,
        )

    def promise(self, topic: str, host: str, backend: str, size: int, now: float) -> str:
        """Count bytes as given away, and return the id of the lease; empty when nothing has to be counted."""
        with self._lock:
            if not size or (topic, host) not in self._kept:
                return ""
            return self.leases.grant((topic, host, backend), size, now)

    def release(self, lease: str) -> bool:
        """Give a lease back: nothing was taken for it. Return whether it was there."""
        with self._lock:
            return self.leases.end(lease)

    def withheld(self, topic: str) -> list[tuple[str, str, str]]:
        """Return the backends of a topic that are not offered now: host, backend and why."""
        with self._lock:
            return [
                (host, backend, why)
                for (of, host), kept in sorted(self._kept.items(), key=lambda item: item[0])
                if of == topic
                for backend, why in sorted(kept.report.withheld.items())
            ]

    def silent(self, topic: str) -> list[str]:
        """Return the hosts of a topic that have reported without naming any backend."""
        with self._lock:
            return sorted(host for (of, host), kept in self._kept.items() if of == topic and not kept.report.backends)
