"""Every service as this daemon sees it, and what it tells other daemons of its own."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ostler.availability import absence_reason, capability_lifetime
from ostler.messaging.versions import Members
from ostler.service.table_copy import TableCopy
from ostler.store import CapabilityRecords, ServiceRecords, Store
from ostler.store.versions import MemberVersions
from ostler.types import CapabilityReport, HostReport, ServiceStatus

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.messaging.routing import Router
    from ostler.service.lifecycle import Service

_TOGETHER = 0.05
"""Seconds for which changes are waited for, once there is one: those that come together are told together."""

_MOMENT = 0.25
"""Seconds for which what other daemons are told is good enough while nothing has changed: heartbeats may be newer."""


class HostView:
    """The one view of all services. On the loop, where nothing else is said.

    Those of this daemon speak for themselves, those of other daemons by what these said last and by the link to them,
    and all others by the services table. `ostler.availability` judges what is in here, for whoever asks.

    Args:
        host: The name of this host.
        services: The services of this daemon.
        store: The database.
        records: The services table.
        capability_records: The table of capabilities.
        router: Knows the other daemons.
        clock: The source of time.
        live_reports: Returns what the services of this host offer now, of those that have said anything.
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
        self._listeners: Counter[str] = Counter()
        self._versions = MemberVersions(clock)
        self._instance = os.urandom(6).hex()
        self._sequence = 0
        self._told: HostReport | None = None
        self._told_at = 0.0
        self._changed = asyncio.Event()
        self._table: TableCopy[list[ServiceStatus]] = TableCopy(self._read_rows, [], lambda: self._sequence)
        self._kept: TableCopy[list[CapabilityReport]] = TableCopy(self._read_kept, [], lambda: self._sequence)

    def changed(self) -> None:
        """Have other daemons told of a change: of the state of a service, the operator's word, or capabilities."""
        self._sequence += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def rows(self) -> list[ServiceStatus]:
        """Return every service; while the table cannot be read, with what it said last."""
        table = await self._table.get()
        return self._merged(self._live(), table)

    async def _read_rows(self) -> list[ServiceStatus]:
        return await self._store.aread(self._records.list)

    def members(self, grace: float) -> Members:
        """Return the versions of all services, and which of them count. Any thread but the loop's: it reads the table.

        Args:
            grace: Seconds for which one still counts that is gone.

        Raises:
            StoreError: The table cannot be read.
        """
        return self._versions.members(self._merged(self._live(), self._records.list()), grace)

    async def capabilities(self) -> list[CapabilityReport]:
        """Return what all services last said they can do, in order of topic and host.

        Services of this host speak for themselves, those of others by what their daemons say; of one that has said
        nothing yet, what is kept, and while that cannot be read, what was kept last.
        """
        found = {(each.topic, each.host): each for each in [*await self._own_capabilities(), *self._router.reports()]}
        return [found[key] for key in sorted(found)]

    async def _read_kept(self) -> list[CapabilityReport]:
        options = {service.topic: service.options for service in self._services()}
        limits = {topic: capability_lifetime(each.capability_interval) for topic, each in options.items()}
        down_times = {topic: each.down_time for topic, each in options.items()}
        return await self._store.aread(lambda: self._capability_records.list(limits, down_times))

    async def _own_capabilities(self) -> list[CapabilityReport]:
        kept = await self._kept.get()
        live = {(each.topic, each.host): each for each in self._live_reports()}
        # The operator's word is in the table before the next report of it.
        now = [replace(live.pop((row.topic, row.host), row), enabled=row.enabled) for row in kept]
        return [*now, *live.values()]

    async def report(self) -> HostReport:
        """Return what other daemons are told of this host now; put together once for all who ask within a moment."""
        now = asyncio.get_running_loop().time()
        told = self._told
        if told is None or told.sequence != self._sequence or now - self._told_at > _MOMENT:
            told = self._told = await self._put_together()
            self._told_at = now
        return told

    async def _put_together(self) -> HostReport:
        # Before anything is looked at: what changes meanwhile has a number above this.
        sequence = self._sequence
        rows = [row for row in await self.rows() if row.here]
        capabilities = [each for each in await self._own_capabilities() if each.host == self._host]
        return HostReport(
            host=self._host, instance=self._instance, sequence=sequence, services=rows, capabilities=capabilities
        )

    async def follow(self, host: str = "") -> AsyncGenerator[HostReport, None]:
        """Yield what other daemons are told of this host: now, and after each change.

        Args:
            host: Who listens; empty for nobody in particular.
        """
        seen = -1
        self._listeners[host] += 1
        try:
            while True:
                if seen == self._sequence:
                    await self._changed.wait()
                    await asyncio.sleep(_TOGETHER)
                told = await self.report()
                seen = told.sequence
                yield told
        finally:
            self._listeners[host] -= 1

    def tells(self, host: str) -> bool:
        """Return whether the daemon of another host listens to what is told of this one."""
        return host != self._host and self._listeners[host] > 0

    def _live(self) -> list[ServiceStatus]:
        return [service.status() for service in list(self._services())]

    def _merged(self, live: Sequence[ServiceStatus], table: Sequence[ServiceStatus]) -> list[ServiceStatus]:
        others = self._router.services()
        known = {(row.topic, row.host) for row in others}
        rest = [row if row.here or (row.topic, row.host) in known else self._recorded(row) for row in table]
        return merge_rows(live, rest, others)

    def _recorded(self, row: ServiceStatus) -> ServiceStatus:
        """Return what there is to see of a service of another host of which there is a record and nothing more."""
        link, addressable = self._router.missing(row.topic, row.host), self._router.is_peer(row.host)
        row = replace(row, link=link, addressable=addressable)
        return replace(row, up=not absence_reason(row))


def merge_rows(
    live: Sequence[ServiceStatus], table: Sequence[ServiceStatus], others: Sequence[ServiceStatus] = ()
) -> list[ServiceStatus]:
    """Return one row per service: the live ones with what only the table knows, then those that run elsewhere.

    Args:
        live: The services of this process.
        table: The rows of the services table, those of other hosts included.
        others: The services of other hosts, as their daemons tell of them: these go before the table.
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
                beat=kept.beat,
                last_report=kept.last_report,
            )
        )
    rows |= {(row.topic, row.host): row for row in others}
    elsewhere = [row if not row.here else replace(row, here=False) for row in rows.values()]
    return merged + sorted(elsewhere, key=lambda row: (row.host, row.topic))
