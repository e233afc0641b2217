"""Report state: the heartbeat of every service, and what its managers can do."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable

from ostler.aio import TaskOwner
from ostler.bounds import shown
from ostler.clock import Clock
from ostler.errors import NotFound, OstlerError, StoreError, describe
from ostler.messaging import ServiceClient
from ostler.redaction import SECRETS
from ostler.service.lifecycle import Service
from ostler.store import CapabilityRecords, Outage, Report, ServiceRecords, Store
from ostler.types import Json

_log = logging.getLogger(__name__)
_SOONEST = 0.05
"""Seconds between two reports at least: states that change together are written together."""
_IDLE = 60.0
"""Seconds to wait when there is nothing to report yet; whatever changes that wakes the reporter."""
_FIRST_PAUSE = 1.0
"""Seconds after which capabilities that could not be had or kept are asked for again; twice as long each time."""
_AGAIN = 1.0
"""Seconds after which capabilities are asked for again that changed while they were being asked for."""


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

    async def stop(self) -> None:
        """End the health checks under way."""
        await self._checks.cancel(timeout=0.5)


class CapabilityReporter:
    """Asks the managers what they can do, keeps it in the store, and sends it to the schedulers.

    Args:
        services: The services to ask.
        store: The database.
        records: The table of capabilities.
        table: The services table, where the operator's word is kept.
        client: Reaches the schedulers.
        clock: The source of time.
        host: The name of this host.
    """

    def __init__(
        self,
        services: Callable[[], Iterable[Service]],
        store: Store,
        records: CapabilityRecords,
        table: ServiceRecords,
        client: ServiceClient,
        clock: Clock,
        host: str,
    ) -> None:
        self._services = services
        self._store = store
        self._records = records
        self._table = table
        self._enabled: dict[str, bool] = {}
        self._client = client
        self._clock = clock
        self._host = host
        self._due: dict[str, float] = {}
        self._pauses = _Pauses()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._tasks = TaskOwner("capability reports")
        self._outage = StoreOutage(store, "the table of capabilities", clock)
        self.on_report: Callable[[], None] = lambda: None
        """Called after a report has been kept, on the loop."""

    async def first_reports(self, seconds: float) -> None:
        """Have each service that runs and has not been asked yet report now, and wait, for so many seconds at most."""
        now = asyncio.get_running_loop().time()
        for service in self._services():
            if service.running and service.topic not in self._asking:
                self._ask(service, now)
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=seconds)

    def poke(self, topic: str) -> None:
        """Have the capabilities of a service reported soon, because something has changed. On the loop.

        Where they failed not long ago, after a pause: a failure changes the state too, and would call for itself.
        """
        self._due[topic] = min(self._due.get(topic, math.inf), self._pauses.until(topic))
        self._wake.set()

    async def run(self) -> None:
        """Report for ever. On the loop."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            working = [service for service in self._services() if service.running]
            for service in working:
                if self._due.get(service.topic, 0.0) <= now:
                    self._ask(service, now)
            await asyncio.sleep(_SOONEST)
            soonest = min((self._due.get(service.topic, 0.0) for service in working), default=now + _IDLE)
            try:
                async with asyncio.timeout(max(0.0, soonest - loop.time())):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _ask(self, service: Service, now: float) -> None:
        topic = service.topic
        running = self._asking.get(topic)
        if running is not None and not running.done():
            # What it says may be from before the change.
            self._due[topic] = now + min(_AGAIN, service.options.capability_interval)
            return
        self._due[topic] = now + service.options.capability_interval
        self._asking[topic] = self._tasks.spawn(self.report(service), name=f"capabilities of {topic}")

    async def report(self, service: Service) -> None:
        """Ask one service, keep and send what it says; what goes wrong with that makes the service degraded."""
        self._pauses.begin(service.topic, service.options.capability_interval)
        try:
            answer = await service.capabilities()
        except OstlerError as error:
            self._pauses.failed(service.topic)
            service.states.complain("capabilities", error.message)
            return
        try:
            backends = {str(name): SECRETS.redact_deep(dict(facts)) for name, facts in answer.items()}
        except Exception:  # noqa: BLE001 - the answer is a plugin's, and so are its methods
            what = f"capabilities of service {service.topic} returned no table of backends: {shown(answer, 80)}"
            self._pauses.failed(service.topic)
            service.states.complain("capabilities", what)
            return
        # Taken back only when it has been kept: each change of state asks again, and would say it again.
        if backends and not await self._keep(service, backends):
            return
        self._pauses.worked(service.topic)
        service.states.complain("capabilities", "")
        if backends:
            self.on_report()
            await self._send(service, backends)

    async def _keep(self, service: Service, backends: dict[str, dict[str, Json]]) -> bool:
        """Keep an answer; return False for one that can never be kept."""
        topic = service.topic

        def write() -> bool:
            self._records.put(topic, self._host, backends)
            try:
                return self._table.get(topic).enabled
            except NotFound:  # somebody has deleted the row; the next heartbeat brings it back, enabled
                return True

        try:
            self._enabled[topic] = await self._store.awrite(write, label=f"capabilities of {topic}")
            self._outage.worked()
        except StoreError as error:
            self._outage.failed(error)
        except OstlerError as error:  # what cannot be kept: no plain values
            self._pauses.failed(topic)
            service.states.complain("capabilities", error.message)
            return False
        return True

    async def _send(self, service: Service, backends: dict[str, dict[str, Json]]) -> None:
        enabled = self._enabled.get(service.topic, True)
        try:
            await self._client.afanout(
                "scheduler", "update_capabilities",
                on_host=self._host, topic=service.topic, backends=backends,
                reported_at=self._clock.wall(), enabled=enabled,
            )  # fmt: skip
        except OstlerError as error:
            _log.warning("the capabilities of %s could not be sent to schedulers: %s", service.topic, describe(error))

    async def stop(self) -> None:
        """End the reports under way."""
        await self._tasks.cancel(timeout=0.5)


class _Pauses:
    """How long each service is left alone after its capabilities failed: longer each time, up to its interval.

    Two answers in a row that are good end that: one alone may be each other one.
    """

    def __init__(self) -> None:
        self._intervals: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._good: set[str] = set()
        self._until: dict[str, float] = {}

    def begin(self, topic: str, interval: float) -> None:
        """Take note of the longest pause of a service."""
        self._intervals[topic] = interval

    def until(self, topic: str) -> float:
        """Return the loop's time before which a service is not asked again; 0 for at once."""
        return self._until.get(topic, 0.0)

    def failed(self, topic: str) -> None:
        """Take note of a failure."""
        self._good.discard(topic)
        times = self._failures[topic] = self._failures.get(topic, 0) + 1
        pause = min(self._intervals[topic], _FIRST_PAUSE * 2.0 ** min(times - 1, 30))
        self._until[topic] = asyncio.get_running_loop().time() + pause

    def worked(self, topic: str) -> None:
        """Take note of a good answer."""
        if topic not in self._failures:
            return
        if topic in self._good:
            self._good.discard(topic)
            del self._failures[topic], self._until[topic]
        else:
            self._good.add(topic)


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
