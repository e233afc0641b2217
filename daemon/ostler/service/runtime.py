"""The services of one host at work: records, reports, periodic tasks and the group itself, put together."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable, Sequence

from ostler.aio import TaskOwner
from ostler.errors import StoreError, describe
from ostler.periodic import PeriodicScheduler
from ostler.service.capability_report import CapabilityReporter
from ostler.service.group import ServiceGroup
from ostler.service.host_view import HostView
from ostler.service.lifecycle import Service
from ostler.service.operations import ServiceOperations
from ostler.service.report import Reporter, StoreOutage
from ostler.service.spec import Host, ServiceSpec, Surroundings
from ostler.service.state_events import StateEvents
from ostler.store import CapabilityRecords, PeriodicRecords, ServiceRecords
from ostler.types import CapabilityReport, ServiceState, ServiceStatus

_log = logging.getLogger(__name__)
_KEEP_RUNS_EVERY = 30.0
"""Seconds between two writes of how periodic tasks went; a crash forgets no more than that."""
_FIRST_REPORTS = 2.0
"""Seconds that the start waits for what the services can do: an array that is slow to say must not hold it up."""
_LAST_WRITES = 2.0
"""Seconds that a stop gives to the last records: a database that is locked must not hold it up."""


class Runtime:
    """Runs services on what a host gives them; the daemon's and a test's host are built around one. On the loop.

    Args:
        specs: What the services are made from, enabled ones only.
        host: What they are given.
        on_end: Called with a reason when a task that should live for ever has ended.
        on_change: Called after the state of a service has changed.

    Raises:
        DependencyCycle: Services depend on each other in a circle.
    """

    def __init__(
        self,
        specs: Sequence[ServiceSpec],
        host: Host,
        *,
        on_end: Callable[[str], None],
        on_change: Callable[[Service], None],
    ) -> None:
        name, clock, _, store, _, client, _ = host
        self.host = name
        self.upgrades = client.upgrades
        self.store = store
        self.records = ServiceRecords(store, clock, name)
        self.capability_records = CapabilityRecords(store, clock, name)
        self.runs = PeriodicRecords(store, name)
        self._tasks = TaskOwner("services", on_end=on_end)
        self.periodic = PeriodicScheduler(clock=clock, owner=self._tasks)
        self._on_change = on_change
        self._runs_outage = StoreOutage(store, "the table of periodic runs", clock)
        self.events = StateEvents(host.notifications, name, clock)
        around = Surroundings(
            host=host,
            records=self.records,
            periodic=self.periodic,
            events=self.events,
            report_change=self._report_change,
            offer_changed=self._offer_changed,
        )
        self.group = ServiceGroup(specs, around, self._changed)
        self._specs = list(specs)
        self._start_timeout: float | None = None
        self.operations = ServiceOperations(self.group, lambda: self._specs, lambda: self._start_timeout)
        services = self.group.services.values
        self.view = HostView(
            name, services, store, self.records, self.capability_records, client.router, clock, self._live_reports
        )
        client.upgrades.read_from(self.view.members, store.aread)
        self.reporter = Reporter(services, store, self.records, clock)
        self.capability_reporter = CapabilityReporter(
            services, store, self.capability_records, self.records, client, clock, name, self.view.tells
        )
        self.capability_reporter.on_report = self.view.changed

    async def start(self, timeout: float | None = None) -> None:
        """Start reporting, then all services; what is known of earlier periodic runs is taken up again.

        Args:
            timeout: Seconds that each service may take; no limit by default.

        Raises:
            StartFailed: A required service failed, or is not up in time; the caller stops the runtime.
        """
        self._start_timeout = timeout
        try:
            self.periodic.restore(await self.store.aread(self.runs.list))
        except StoreError as error:
            self._runs_outage.failed(error)
        self._tasks.keep(self._keep_runs, name="keep periodic runs")
        self._tasks.keep(self.reporter.run, name="report state")
        self._tasks.keep(self.capability_reporter.run, name="report capabilities")
        await self.group.start(timeout)
        # Whoever is told that this host is ready may place work here: a scheduler knows by then what there is.
        await self.capability_reporter.flush(_FIRST_REPORTS)

    async def stop(self, timeout: float) -> list[str]:
        """Drain and stop all services, write their last state, end the reports; returns what hung, a line each."""
        await self.operations.close()
        hung = await self.group.stop(timeout)
        try:
            async with asyncio.timeout(_LAST_WRITES):
                await asyncio.gather(self.reporter.write(self.group), self._save_runs())
        except TimeoutError:
            hung.append("the last records of services and periodic tasks, which could not be written")
        await self.reporter.stop()
        await self.capability_reporter.stop()
        await self._tasks.cancel()
        return hung

    async def mark_gone(self, hosts: Collection[str]) -> None:
        """Have the table say which services are gone: what is not one of these, or of a host that is no peer.

        Args:
            hosts: The peers of this host.
        """
        topics = list(self.group.services)
        try:
            await self.store.awrite(lambda: self.records.mark_gone(topics, hosts), label="services that are gone")
            self.view.changed()
        except StoreError as error:
            _log.debug("what is gone could not be marked in the services table: %s", describe(error))
        self.upgrades.forget()

    def troubles(self) -> list[str]:
        """Return what is not well beside the states of the services, a line each.

        Periodic tasks, eternal tasks, drivers whose calls all fail, and what the managers say of their own objects.
        """
        drivers = [service.drivers for service in self.group if service.running and service.drivers is not None]
        failing = [line for of_one in drivers for line in of_one.troubles()]
        told = [
            f"service {service.topic}: {line}" for service in self.group if service.running for line in service.problems
        ]
        return [*self._tasks.troubles(), *self.periodic.troubles(), *failing, *told]

    async def reset(
        self,
        specs: Iterable[ServiceSpec],
        go_on: Callable[[], bool] = lambda: True,
        *,
        step: Callable[[str], object] = lambda _name: None,
        timeout: float = math.inf,
    ) -> list[str]:
        """Bring new options to all services, as far as that goes without a restart, and reset their managers.

        The drivers of all of them take their options over side by side: one that works, or hangs, holds up no other.
        One that has failed is started again: its reason may be gone. Whether that worked is in its state.

        Args:
            specs: The services as the new configuration wants them. Those that are new come with the restart, and those
                that are gone go with it.
            go_on: Asked before each service; False when the daemon is being stopped.
            step: Told what is begun, before something that may never come back.
            timeout: Seconds that the `reset` of one manager may take.

        Returns:
            What went wrong, a line each.
        """
        self._specs = list(specs)
        problems: list[str] = []
        drivers: list[asyncio.Future[list[str]]] = []
        try:
            for spec in self._specs:
                service = self.group.services.get(spec.topic)
                if service is None:
                    continue
                if not go_on():
                    problems.append(f"service {spec.topic} was not reset: the daemon is being stopped")
                    continue
                step(f"reset of service {spec.topic}")
                problems += await service.reset(spec, timeout)
                # Its intervals may have changed.
                self.reporter.poke(service)
                self.capability_reporter.poke(spec.topic)
                drivers.append(asyncio.ensure_future(service.renew_drivers(spec)))
            step("new options of drivers")
            for each in drivers:
                problems += await each
        finally:
            for each in drivers:
                each.cancel()
        await self._start_failed(go_on, step)
        step("")
        self.view.changed()
        return problems

    async def _start_failed(self, go_on: Callable[[], bool], step: Callable[[str], object]) -> None:
        """Start again what has failed, each after what it needs."""
        for service in list(self.group):
            if service.states.state is ServiceState.FAILED and go_on():
                step(f"start of service {service.topic}")
                await self.operations.start_soon(service.topic)

    def pending(self) -> list[str]:
        """Return what a reload brought that waits for work under way, a line each."""
        return [line for service in self.group for line in service.pending()]

    async def rows(self) -> list[ServiceStatus]:
        """Return every service as this daemon sees it; see `HostView`."""
        return await self.view.rows()

    async def _keep_runs(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_RUNS_EVERY)
            await self._save_runs()

    async def _save_runs(self) -> None:
        runs = self.periodic.changed_runs()
        if not runs:
            return
        try:
            await self.store.awrite(lambda: self.runs.save(runs), label="periodic runs")
        except StoreError as error:
            self._runs_outage.failed(error)
        else:
            self._runs_outage.worked()

    def _changed(self, service: Service) -> None:
        self.upgrades.forget()
        self.view.changed()
        self.reporter.poke(service)
        self.events.service(service.topic, service.states.state, service.states.why, service.states.since)
        self.capability_reporter.offer_changed(service.topic)
        self._on_change(service)

    def _live_reports(self) -> list[CapabilityReport]:
        return self.capability_reporter.live()

    def _report_change(self, topic: str, backend: str, lease: str, released: bool) -> None:
        self.capability_reporter.changed(topic, backend, lease, released)

    def _offer_changed(self, topic: str) -> None:
        self.capability_reporter.offer_changed(topic)
