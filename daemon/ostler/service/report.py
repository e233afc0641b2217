"""Report state: the heartbeat of every service, and what its managers can do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from ostler.aio import TaskOwner
from ostler.clock import Clock
from ostler.errors import OstlerError, StoreError, describe
from ostler.messaging import ServiceClient
from ostler.service.lifecycle import Service
from ostler.store import CapabilityRecords, Outage, Report, ServiceRecords, Store
from ostler.types import ServiceState

_log = logging.getLogger(__name__)
_RUNNING = (ServiceState.UP, ServiceState.DEGRADED)
_SOONEST = 0.05
"""Seconds between two reports at least: states that change together are written together."""


class Reporter:
    """Writes the state of every service at its `report_interval`, all that are due in one write.

    Checks of health run beside it, never in its way: a report says what is known, at its time. A database that cannot
    be reached is said once, and once when it is back.

    Args:
        services: The services to report.
        store: The database.
        records: The services table.
        clock: The source of time.
    """

    def __init__(
        self, services: Callable[[], Iterable[Service]], store: Store, records: ServiceRecords, clock: Clock
    ) -> None:
        self._services = services
        self._store = store
        self._records = records
        self._clock = clock
        self._due: dict[str, float] = {}
        self._poked = asyncio.Event()
        self._outage = Outage(_log, "the services table", clock)
        self._checks = TaskOwner("health checks")
        self._checking: set[str] = set()
        self.last_write = clock.monotonic()

    def poke(self, service: Service) -> None:
        """Have a service reported at once, because its state has changed. On the loop."""
        self._due[service.topic] = 0.0
        self._poked.set()

    async def run(self) -> None:
        """Report for ever. On the loop."""
        while True:
            now = self._clock.monotonic()
            due = [s for s in self._services() if s.registered and self._due.get(s.topic, 0.0) <= now]
            for service in due:
                self._due[service.topic] = now + service.options.report_interval
            if due:
                await self.write(due)
                self._start_checks(due)
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
            self.last_write = self._clock.monotonic()
            self._outage.worked()

    async def _sleep(self) -> None:
        soonest = min((self._due.get(s.topic, 0.0) for s in self._services() if s.registered), default=0.0)
        wait = max(_SOONEST, soonest - self._clock.monotonic()) if soonest else 1.0
        self._poked.clear()
        try:
            async with asyncio.timeout(wait):
                await self._poked.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_SOONEST)

    def _start_checks(self, services: Iterable[Service]) -> None:
        for service in services:
            if service.states.state in _RUNNING and service.topic not in self._checking:
                self._checking.add(service.topic)
                self._checks.spawn(self._check(service), name=f"health of {service.topic}")

    async def _check(self, service: Service) -> None:
        try:
            await service.check_health()
        finally:
            self._checking.discard(service.topic)

    async def stop(self) -> None:
        """End the health checks under way."""
        await self._checks.cancel(timeout=0.5)


class CapabilityReporter:
    """Asks the managers what they can do, keeps it in the store, and sends it to the schedulers.

    Args:
        services: The services to ask.
        store: The database.
        records: The table of capabilities.
        client: Reaches the schedulers.
        clock: The source of time.
        host: The name of this host.
    """

    def __init__(
        self,
        services: Callable[[], Iterable[Service]],
        store: Store,
        records: CapabilityRecords,
        client: ServiceClient,
        clock: Clock,
        host: str,
    ) -> None:
        self._services = services
        self._store = store
        self._records = records
        self._client = client
        self._clock = clock
        self._host = host
        self._due: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._tasks = TaskOwner("capability reports")
        self._outage = Outage(_log, "the table of capabilities", clock)

    def poke(self, topic: str) -> None:
        """Have the capabilities of a service reported soon, because something has changed. On the loop."""
        self._due[topic] = 0.0
        self._wake.set()

    async def run(self) -> None:
        """Report for ever. On the loop."""
        while True:
            now = self._clock.monotonic()
            for service in self._services():
                if service.states.state in _RUNNING and self._due.get(service.topic, 0.0) <= now:
                    self._ask(service, now)
            soonest = min((self._due.get(s.topic, now + 1.0) for s in self._services()), default=now + 60.0)
            self._wake.clear()
            try:
                async with asyncio.timeout(max(_SOONEST, soonest - now)):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(_SOONEST)

    def _ask(self, service: Service, now: float) -> None:
        self._due[service.topic] = now + service.options.capability_interval
        running = self._asking.get(service.topic)
        if running is None or running.done():
            self._asking[service.topic] = self._tasks.spawn(
                self.report(service), name=f"capabilities of {service.topic}"
            )

    async def report(self, service: Service) -> None:
        """Ask one service, keep and send what it says; what goes wrong is logged."""
        try:
            backends = {name: dict(facts) for name, facts in (await service.capabilities()).items()}
        except OstlerError as error:
            _log.warning("%s", error)
            return
        if not backends:
            return
        try:
            await self._store.awrite(
                lambda: self._records.put(service.topic, self._host, backends),
                label=f"capabilities of {service.topic}",
            )
            self._outage.worked()
        except StoreError as error:
            self._outage.failed(error)
        await self._send(service, backends)

    async def _send(self, service: Service, backends: dict[str, dict[str, object]]) -> None:
        try:
            await self._client.afanout(
                "scheduler", "update_capabilities",
                host=self._host, topic=service.topic, backends=backends, reported_at=self._clock.wall(), enabled=True,
            )  # fmt: skip
        except OstlerError as error:
            _log.warning("the capabilities of %s could not be sent to schedulers: %s", service.topic, describe(error))

    async def stop(self) -> None:
        """End the reports under way."""
        await self._tasks.cancel(timeout=0.5)
