"""Reports the state of every service: the heartbeat."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from ostler.aio import TaskOwner
from ostler.clock import Clock
from ostler.errors import StoreError
from ostler.service.lifecycle import Service
from ostler.service.signs import SignCollector
from ostler.service.store_outage import StoreOutage
from ostler.store import ServiceRecords, ServiceReport, Store

_log = logging.getLogger(__name__)
_MIN_REPORT_INTERVAL = 0.05
"""The least seconds between two reports: simultaneous changes are written together."""
_IDLE_INTERVAL = 60.0
"""Seconds to wait when nothing is due; a change wakes the reporter."""


class HeartbeatReporter:
    """Writes the state of every service at its `report_interval`, all that are due in one write.

    Health checks run concurrently and never delay a report, which contains what is known at its time. An unreachable
    database is logged once, and once when it works again.

    Args:
        services: The services to report.
        store: The database.
        records: The services table.
        clock: The source of time, for messages; intervals are measured in the loop's time.
        signs: Collects the signs of work that each report carries.
    """

    def __init__(
        self,
        services: Callable[[], Iterable[Service]],
        store: Store,
        records: ServiceRecords,
        clock: Clock,
        signs: SignCollector,
    ) -> None:
        self._signs = signs
        self._services = services
        self._store = store
        self._records = records
        self._due_times: dict[str, float] = {}
        self._triggered = asyncio.Event()
        self._outage = StoreOutage(store, "writing the services table", clock)
        self.written_count = self.failed_count = 0
        """How many reports of services were written, and how many could not be."""
        self.lateness = 0.0
        """By how many seconds the last report that was due came late."""
        self._check_tasks = TaskOwner("health checks")
        self._topics_in_check: set[str] = set()
        self._check_finished = asyncio.Event()
        """Set when checks have started or one has ended; then replaced."""

    def trigger(self, service: Service) -> None:
        """Report a service at once, because its state has changed. On the loop."""
        self._due_times[service.topic] = 0.0
        self._triggered.set()

    async def run(self) -> None:
        """Report indefinitely. On the loop."""
        loop = asyncio.get_running_loop()
        while True:
            # Cleared first: a service that changes during the write is reported after it.
            self._triggered.clear()
            now = loop.time()
            due = [s for s in self._services() if s.is_registered and self._due_times.get(s.topic, 0.0) <= now]
            for service in due:
                due_at = self._due_times.get(service.topic, 0.0)
                lateness = now - due_at if due_at else 0.0  # a change is due at once, whenever that is
                self.lateness = lateness if due_at else self.lateness
                service.signs = self._signs.collect(service.topic, service.pool, service.drivers, lateness)
                self._due_times[service.topic] = now + service.options.report_interval
            if due:
                await self.write(due)
                self._start_checks(due)
                self._notify_check_finished()
            await self._wait_until_due()

    async def write(self, services: Iterable[Service]) -> None:
        """Write the state of these services now; an unreachable database is logged, never raised."""
        rows = [
            ServiceReport(
                topic=s.topic,
                state=s.state_tracker.state,
                why=s.state_tracker.why,
                since=s.state_tracker.since,
                frozen=s.frozen,
                signs=s.signs,
            )
            for s in services
            if s.is_registered
        ]
        if not rows:
            return
        try:
            await self._store.awrite(lambda: self._records.save_reports(rows), label="report state", urgent=True)
        except StoreError as error:
            self.failed_count += len(rows)
            self._outage.failed(error)
        else:
            self.written_count += len(rows)
            self._outage.worked()

    async def _wait_until_due(self) -> None:
        await asyncio.sleep(_MIN_REPORT_INTERVAL)
        now = asyncio.get_running_loop().time()
        soonest = min(
            (self._due_times.get(s.topic, 0.0) for s in self._services() if s.is_registered),
            default=now + _IDLE_INTERVAL,
        )
        try:
            async with asyncio.timeout(max(0.0, soonest - now)):
                await self._triggered.wait()
        except TimeoutError:
            return

    def _start_checks(self, services: Iterable[Service]) -> None:
        for service in services:
            if service.is_running and service.topic not in self._topics_in_check:
                self._topics_in_check.add(service.topic)
                self._check_tasks.spawn(self._check(service), name=f"health of {service.topic}")

    async def _check(self, service: Service) -> None:
        try:
            await service.check_health()
        finally:
            self._topics_in_check.discard(service.topic)
            self._notify_check_finished()

    async def wait_for_checks(self, timeout: float) -> None:
        """Wait for the health checks that a change has triggered, for `timeout` at most. On the loop.

        Only they can tell that a problem is over.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._topics_in_check or any(
                    self._due_times.get(s.topic) == 0.0 for s in self._services() if s.is_running
                ):
                    await self._check_finished.wait()

    def _notify_check_finished(self) -> None:
        moved, self._check_finished = self._check_finished, asyncio.Event()
        moved.set()

    async def stop(self) -> None:
        """End the health checks in progress."""
        await self._check_tasks.cancel(timeout=0.5)
