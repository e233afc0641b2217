"""Every service as this daemon sees it, and what it tells other daemons of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ostler.availability import absence_reason
from ostler.errors import StoreError
from ostler.messaging.versions import Members
from ostler.store import ServiceRecords, Store
from ostler.store.versions import MemberVersions
from ostler.types import CapabilityReport, HostReport, ServiceStatus

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.messaging.routing import Router
    from ostler.service.lifecycle import Service

_TOGETHER = 0.05
"""Seconds for which changes are waited for, once there is one: those that come together are told together."""
_READ_LIMIT = 0.5
"""Seconds that a table may take to be read before what was in it last is good enough: a change must not wait."""


class HostView:
    """The one view of all services. On the loop, where nothing else is said.

    Those of this daemon speak for themselves, those of other daemons by what these said last and by the link to them,
    and all others by the services table. `ostler.availability` judges what is in here, for whoever asks.

    Args:
        host: The name of this host.
        services: The services of this daemon.
        store: The database.
        records: The services table.
        offered: Returns what the services of this daemon last said they can do.
        router: Knows the other daemons.
        clock: The source of time.
    """

    def __init__(
        self,
        host: str,
        services: Callable[[], Iterable[Service]],
        store: Store,
        records: ServiceRecords,
        offered: Callable[[], Awaitable[list[CapabilityReport]]],
        router: Router,
        clock: Clock,
    ) -> None:
        self._host = host
        self._services = services
        self._store = store
        self._records = records
        self._offered = offered
        self._router = router
        self._versions = MemberVersions(clock)
        self._instance = os.urandom(6).hex()
        self._sequence = 0
        self._told: HostReport | None = None
        self._changed = asyncio.Event()
        self._table: list[ServiceStatus] = []

    def changed(self) -> None:
        """Have other daemons told of a change: of the state of a service, the operator's word, or capabilities."""
        self._sequence += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def rows(self) -> list[ServiceStatus]:
        """Return every service; while the table cannot be read, with what it said last."""
        live = self._live()
        try:
            async with asyncio.timeout(_READ_LIMIT):
                self._table = await self._store.aread(self._records.list)
        except (StoreError, TimeoutError):
            pass
        return self._merged(live, self._table)

    def members(self, grace: float) -> Members:
        """Return the versions of all services, and which of them count. Any thread but the loop's: it reads the table.

        Args:
            grace: Seconds for which one still counts that is gone.

        Raises:
            StoreError: The table cannot be read.
        """
        return self._versions.members(self._merged(self._live(), self._records.list()), grace)

    async def capabilities(self) -> list[CapabilityReport]:
        """Return what all services last said they can do, of other hosts as their daemons say; by topic and host."""
        found = {(each.topic, each.host): each for each in [*await self._offered(), *self._router.reports()]}
        return [found[key] for key in sorted(found)]

    async def report(self) -> HostReport:
        """Return what other daemons are told of this host now."""
        # Before anything is looked at: what changes meanwhile has a number above this.
        sequence = self._sequence
        rows = [row for row in await self.rows() if row.here]
        capabilities = [each for each in await self._offered() if each.host == self._host]
        return HostReport(
            host=self._host, instance=self._instance, sequence=sequence, services=rows, capabilities=capabilities
        )

    async def follow(self) -> AsyncIterator[HostReport]:
        """Yield what other daemons are told of this host: now, and after each change."""
        seen = -1
        while True:
            if seen == self._sequence:
                await self._changed.wait()
                await asyncio.sleep(_TOGETHER)
            if self._told is None or self._told.sequence != self._sequence:
                # Put together once for all who listen.
                self._told = await self.report()
            seen = self._told.sequence
            yield self._told

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
