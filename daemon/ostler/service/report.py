"""Report state: the heartbeat of every service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from ostler.aio import TaskOwner
from ostler.clock import Clock
from ostler.errors import StoreError
from ostler.service.lifecycle import Service
from ostler.store import Outage, Report, ServiceRecords, Store

_log = logging.getLogger(__name__)
_SOONEST = 0.05
"""Seconds between two reports at least: states that change together are written together."""
_IDLE = 60.0
"""Seconds to wait when there is nothing to report yet; whatever changes that wakes the reporter."""


class Reporter:
    """Writes the state of every service at its `report_interval`, all that are due in one write.

    Checks of health run beside it, never in its way: a report says what is known, at its time. A database that cannot
    be reached is said once, and once when it is back.

    Args:
        services: The services to report.
        store: The database.
        records: The services table.
        clock: The source of time, for messages; intervals are measured in the loop's time.
    """

    def __init__(
        self, services: Callable[[], Iterable[Service]], store: Store, records: ServiceRecords, clock: Clock
    ) -> None:
        self._services = services
        self._store = store
        self._records = records
        self._due: dict[str, float] = {}
        self._poked = asyncio.Event()
        self._outage = StoreOutage(store, "the services table", clock)
        self._checks = TaskOwner("health checks")
        self._checking: set[str] = set()
        self._moved = asyncio.Event()
        """Set when checks have begun or one has ended; then there is another one."""

    def poke(self, service: Service) -> None:
        """Have a service reported at once, because its state has changed. On the loop."""
        self._due[service.topic] = 0.0
        self._poked.set()

    async def run(self) -> None:
        """Report for ever. On the loop."""
        loop = asyncio.get_running_loop()
        while True:
            # Cleared before anything is looked at: a service that changes during the write is reported after it.
            self._poked.clear()
            now = loop.time()
            due = [s for s in self._services() if s.registered and self._due.get(s.topic, 0.0) <= now]
            for service in due:
                self._due[service.topic] = now + service.options.report_interval
            if due:
                await self.write(due)
                self._start_checks(due)
                self._has_moved()
            await self._sleep()

    async def write(self, services: Iterable[Service]) -> None:
        """Write the state of these services now; an unreachable database is noted, never raised."""
        rows = [
            Report(topic=s.topic, state=s.states.state, why=s.states.why, since=s.states.since)
            for s in services
            if s.registered
        ]
        if not rows:
            return
        try:
            await self._store.awrite(lambda: self._records.report(rows), label="report state", urgent=True)
        except StoreError as error:
            self._outage.failed(error)
        else:
            self._outage.worked()

    async def _sleep(self) -> None:
        await asyncio.sleep(_SOONEST)
        now = asyncio.get_running_loop().time()
        soonest = min((self._due.get(s.topic, 0.0) for s in self._services() if s.registered), default=now + _IDLE)
        try:
            async with asyncio.timeout(max(0.0, soonest - now)):
                await self._poked.wait()
        except TimeoutError:
            return

    def _start_checks(self, services: Iterable[Service]) -> None:
        for service in services:
            if service.running and service.topic not in self._checking:
                self._checking.add(service.topic)
                self._checks.spawn(self._check(service), name=f"health of {service.topic}")

    async def _check(self, service: Service) -> None:
        try:
            await service.check_health()
        finally:
            self._checking.discard(service.topic)
            self._has_moved()

    async def settle(self, seconds: float) -> None:
        """Wait for the checks of health that a change has called for, for so many seconds at most. On the loop.

        What was not well is known to be well again only then.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._checking or any(self._due.get(s.topic) == 0.0 for s in self._services() if s.running):
                    await self._moved.wait()

    def _has_moved(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def stop(self) -> None:
        """End the health checks under way."""
        await self._checks.cancel(timeout=0.5)


class StoreOutage:
    """Says once that a table cannot be reached, and once that it is back.

    Nothing is said while the store itself has said so: a database that is gone is one piece of news, not one per table.

    Args:
        store: The database.
        what: What is out of order, as the subject of a sentence.
        clock: The source of time.
    """

    def __init__(self, store: Store, what: str, clock: Clock) -> None:
        self._store = store
        self._outage = Outage(_log, what, clock)

    def failed(self, error: StoreError) -> None:
        """Take note that a write or a read failed."""
        if not self._store.outage.active:
            self._outage.failed(error)

    def worked(self) -> None:
        """Take note that it works."""
        self._outage.worked()
