"""Every service as this daemon sees it, and its reports to other daemons."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ostler.availability import capability_lifetime, observed
from ostler.messaging.interface.versions import Members
from ostler.service.table_cache import TableCache
from ostler.store import CapabilityRecords, ServiceRecords, Store
from ostler.store.records.member_versions import MemberVersions
from ostler.types import CapabilityReport, HostReport, ServiceState, ServiceStatus

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.messaging.network.routing import Router
    from ostler.service.lifecycle import Service

_NOT_REGISTERED_STATES = (ServiceState.STARTING, ServiceState.STOPPED, ServiceState.FAILED)
_BATCH_DELAY = 0.05
"""Seconds to wait for further changes after a change, so that they are reported together."""

_REPORT_MAX_AGE = 0.25
"""Seconds for which an unchanged report to other daemons is reused, though heartbeats may be newer."""


class HostView:
    """The one view of all services. On the loop, unless stated otherwise.

    The services of this daemon report themselves; those of other daemons are known by their daemon's last report and
    the link to it, and all others by the services table. `ostler.availability` evaluates this view for all callers.

    Args:
        host: The name of this host.
        services: The services of this daemon.
        store: The database.
        records: The services table.
        capability_records: The table of capabilities.
        router: Has the links to other daemons.
        clock: The source of time.
        live_reports: Returns what the services of this host offer now, as far as they have reported.
    """

    def __init__(
        self,
        host: str,
        services: Callable[[], Iterable[Service]],
        store: Store,
        records: ServiceRecords,
        capability_records: CapabilityRecords,
        router: Router,
        clock: Clock,
        live_reports: Callable[[], Iterable[CapabilityReport]],
    ) -> None:
        self._host = host
        self._services = services
        self._store = store
        self._records = records
        self._capability_records = capability_records
        self._router = router
        self._live_reports = live_reports
        self._subscribers: Counter[str] = Counter()
        self._member_versions = MemberVersions(clock)
        self._instance = os.urandom(6).hex()
        self._sequence = 0
        self._last_report: HostReport | None = None
        self._last_report_at = 0.0
        self._change_event = asyncio.Event()
        self._service_cache: TableCache[list[ServiceStatus]] = TableCache(self._read_rows, [], lambda: self._sequence)
        self._capability_cache: TableCache[list[CapabilityReport]] = TableCache(
            self._read_capabilities, [], lambda: self._sequence
        )

    def on_change(self) -> None:
        """Notify other daemons of a change of a service's state, the operator override, or capabilities."""
        self._sequence += 1
        changed, self._change_event = self._change_event, asyncio.Event()
        changed.set()

    async def rows(self) -> list[ServiceStatus]:
        """Return every service; while the table cannot be read, with its last known content."""
        table = await self._service_cache.get()
        return self._merge_rows(self._live_rows(), table)

    async def _read_rows(self) -> list[ServiceStatus]:
        return await self._store.aread(self._records.list)

    def members(self, grace: float) -> Members:
        """Return the versions of all services, and which of them count. Any thread but the loop's: it reads the table.

        Args:
            grace: Seconds for which a removed one still counts.

        Raises:
            StoreError: The table cannot be read.
        """
        return self._member_versions.members(self._merge_rows(self._live_rows(), self._records.list()), grace)

    async def capabilities(self) -> list[CapabilityReport]:
        """Return the last known capabilities of all services, in order of topic and host.

        Services of this host report themselves, those of others come from their daemons; of a service without a report
        the stored one is returned, and while the database cannot be read, its last known content.
        """
        found = {(each.topic, each.host): each for each in [*await self._own_capabilities(), *self._router.reports()]}
        return [found[key] for key in sorted(found)]

    async def _read_capabilities(self) -> list[CapabilityReport]:
        options = {service.topic: service.options for service in self._services()}
        limits = {topic: capability_lifetime(each.capability_interval) for topic, each in options.items()}
        down_times = {topic: each.down_time for topic, each in options.items()}
        return await self._store.aread(lambda: self._capability_records.list(limits, down_times))

    async def _own_capabilities(self) -> list[CapabilityReport]:
        kept = await self._capability_cache.get()
        live = {(each.topic, each.host): each for each in self._live_reports()}
        # The operator override is in the table before it is in the next report.
        now = [replace(live.pop((row.topic, row.host), row), enabled=row.enabled) for row in kept]
        return [*now, *live.values()]

    async def report(self) -> HostReport:
        """Return the report of this host for other daemons; computed once for all callers within a moment."""
        now = asyncio.get_running_loop().time()
        told = self._last_report
        if told is None or told.sequence != self._sequence or now - self._last_report_at > _REPORT_MAX_AGE:
            told = self._last_report = await self._build_report()
            self._last_report_at = now
        return told

    async def _build_report(self) -> HostReport:
        # Taken first: a change meanwhile has a higher number.
        sequence = self._sequence
        rows = [row for row in await self.rows() if row.here]
        capabilities = [each for each in await self._own_capabilities() if each.host == self._host]
        return HostReport(
            host=self._host, instance=self._instance, sequence=sequence, services=rows, capabilities=capabilities
        )

    async def watch(self, host: str = "") -> AsyncGenerator[HostReport, None]:
        """Yield the report of this host for other daemons: now, and after each change.

        Args:
            host: The listening host; empty if unknown.
        """
        seen = -1
        self._subscribers[host] += 1
        try:
            while True:
                if seen == self._sequence:
                    await self._change_event.wait()
                    await asyncio.sleep(_BATCH_DELAY)
                told = await self.report()
                seen = told.sequence
                yield told
        finally:
            self._subscribers[host] -= 1

    def has_subscriber(self, host: str) -> bool:
        """Return whether the daemon of another host listens to the reports of this one."""
        return host != self._host and self._subscribers[host] > 0

    def _live_rows(self) -> list[ServiceStatus]:
        return [service.status() for service in list(self._services())]

    def _merge_rows(self, live: Sequence[ServiceStatus], table: Sequence[ServiceStatus]) -> list[ServiceStatus]:
        others = self._router.services()
        known = {(row.topic, row.host) for row in others}
        rest = [row if row.here or (row.topic, row.host) in known else self._recorded_status(row) for row in table]
        return merge_service_rows(live, rest, others)

    def _recorded_status(self, row: ServiceStatus) -> ServiceStatus:
        """Return the view of a service of another host that is known by its record only."""
        link, addressable = self._router.missing_reason(row.topic, row.host), self._router.is_peer(row.host)
        return observed(replace(row, link=link, addressable=addressable))


def merge_service_rows(
    live: Sequence[ServiceStatus], table: Sequence[ServiceStatus], remote: Sequence[ServiceStatus] = ()
) -> list[ServiceStatus]:
    """Return one row per service: the live ones with what only the table knows, then those that run elsewhere.

    Args:
        live: The services of this process.
        table: The rows of the services table, those of other hosts included.
        remote: The services of other hosts as reported by their daemons; they take precedence over the table.
    """
    rows = {(row.topic, row.host): row for row in table}
    merged = []
    for row in live:
        kept = rows.pop((row.topic, row.host), None)
        if kept is None:
            merged.append(row)
            continue
        merged.append(
            replace(
                row,
                enabled=kept.enabled,
                disabled_reason=kept.disabled_reason,
                disabled_by=kept.disabled_by,
                enabled_at=kept.enabled_at,
                # Until it has registered it does not know itself.
                frozen=row.frozen or (kept.frozen if row.state in _NOT_REGISTERED_STATES else None),
                beat=kept.beat,
                last_report=kept.last_report,
            )
        )
    rows |= {(row.topic, row.host): row for row in remote}
    elsewhere = [row if not row.here else replace(row, here=False) for row in rows.values()]
    return merged + sorted(elsewhere, key=lambda row: (row.host, row.topic))
