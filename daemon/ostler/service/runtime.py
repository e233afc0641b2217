"""The running services of one host: records, reports, periodic tasks and the group itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ostler.aio import TaskOwner
from ostler.errors import StoreError, error_line
from ostler.locks import HostLocks
from ostler.manager_types import EventHandlerStatus
from ostler.service.capabilities.capability_reporter import CapabilityReporter
from ostler.service.heartbeat_reporter import HeartbeatReporter
from ostler.service.host_metrics import HostMetrics
from ostler.service.host_view import HostView
from ostler.service.lifecycle import Service
from ostler.service.owned_work import event_handler_key, periodic_key
from ostler.service.periodic_saver import PeriodicSaver
from ostler.service.service_actions import ServiceActions
from ostler.service.service_changes import (
    ReloadOptions,
    ReloadOutcome,
    ReversibleStep,
    ServiceChanges,
    carry_out,
    daemon_step_position,
)
from ostler.service.service_group import ServiceGroup
from ostler.service.service_plan import ServicePlan, make_plan
from ostler.service.service_spec import HostServices, ServiceContext, ServiceSpec
from ostler.service.signs import SignCollector
from ostler.service.state_notifier import StateNotifier
from ostler.store import CapabilityRecords, PeriodicRecords, ServiceRecords
from ostler.types import CapabilityReport, OperatorOverride, ServiceState, ServiceStatus

if TYPE_CHECKING:
    from ostler.messaging.network.routing import Router
    from ostler.service.event_handlers.event_handlers import EventHandlers

_log = logging.getLogger(__name__)
DEFAULT_GONE_AGE = 30 * 86400.0
_PRUNE_INTERVAL = 3600.0
"""Seconds between two removals of records of services that have been gone for long."""
_FIRST_REPORT_TIMEOUT = 2.0
"""Seconds that the start waits for the first capabilities: a slow array must not delay it."""
_DEFAULT_OPTIONS = ReloadOptions()
_LAST_WRITE_TIMEOUT = 2.0
"""Seconds that a stop waits for the last records: a locked database must not delay it."""


class Runtime:
    """Runs services with what a host provides; used by the daemon and by hosts of tests. On the loop.

    Args:
        specs: The specifications of the services, enabled ones only.
        host: What the host provides.
        router: Has the links to other daemons.
        on_end: Called with a reason when a permanent task has ended.
        on_change: Called after the state of a service has changed.

    Raises:
        DependencyCycle: Services depend on each other in a cycle.
    """

    def __init__(
        self,
        specs: Sequence[ServiceSpec],
        host: HostServices,
        *,
        router: Router,
        on_end: Callable[[str], None],
        on_change: Callable[[Service], None],
    ) -> None:
        name, clock, store, client, self.operations = host.name, host.clock, host.store, host.client, host.operations
        self.host, self.clock = name, clock
        self._router = router
        self.upgrades = client.upgrades
        self.store = store
        services_table = self.service_records = ServiceRecords(store, clock, name)
        capabilities_table = self.capability_records = CapabilityRecords(store, clock, name)
        self.periodic_records = PeriodicRecords(store, name)
        self._tasks = TaskOwner("services", on_end=on_end)
        self._host_services = host
        self._event_handlers: EventHandlers | None = None
        self.locks = HostLocks(name, clock, store, host.loop_queue, self._tasks)
        self.periodic_saver = PeriodicSaver(store, self.periodic_records, clock, self._tasks)
        self.periodic_scheduler = self.periodic_saver.scheduler
        self.metrics = HostMetrics(clock, host.make_metric_exporter)
        self._on_change = on_change
        self.state_notifier = StateNotifier(host.notifications, name, clock)
        self.group = ServiceGroup(specs, self._make_service_context(host), self._on_service_change)
        self._specs = list(specs)
        self._start_timeout: float | None = None
        self.gone_age = DEFAULT_GONE_AGE
        """Seconds after which the record of a service that is gone is removed; another may be put in its place."""
        self.service_actions = ServiceActions(self.group, lambda: self._specs, lambda: self._start_timeout)
        services = self._list_services
        self.host_view = HostView(
            name, services, store, services_table, capabilities_table, router, clock, self._live_reports
        )
        # Assigned: the client is older than the services whose versions it follows.
        client.upgrades.set_source(self.host_view.members, store.aread)
        self.heartbeat_reporter = HeartbeatReporter(
            services, store, services_table, clock, SignCollector(store, self.periodic_scheduler, clock)
        )
        has_subscriber = self.host_view.has_subscriber
        self.capability_reporter = CapabilityReporter(
            services, host, capabilities_table, services_table, router, has_subscriber, self.host_view.on_change
        )

    def _list_services(self) -> list[Service]:
        return list(self.group)

    def _make_service_context(self, host: HostServices) -> ServiceContext:
        # A circle: services report to parts that ask the services. They are called by methods of this class, which look
        # the part up when it is needed; nothing is called before all of them exist.
        return ServiceContext(
            host=host,
            service_records=self.service_records,
            periodic_scheduler=self.periodic_scheduler,
            locks=self.locks,
            metrics=self.metrics,
            event_handlers=self._get_event_handlers,
            state_notifier=self.state_notifier,
            on_capability_change=self._on_capability_change,
            on_offer_changed=self._on_offer_changed,
        )

    async def start(self, timeout: float | None = None) -> None:
        """Start reporting, then all services; periodic tasks continue from their stored records.

        Args:
            timeout: Seconds that each service may take; no limit by default.

        Raises:
            StartFailed: A required service failed, or is not up in time; the caller stops the runtime.
        """
        self._start_timeout = timeout
        await self.periodic_saver.restore()
        self._tasks.supervise(self.periodic_saver.run, name="store periodic runs")
        self._tasks.supervise(self.heartbeat_reporter.run, name="report state")
        self._tasks.supervise(self._prune_gone_periodically, name="prune services that are gone")
        self.operations.start()
        self._tasks.supervise(self.capability_reporter.run, name="report capabilities")
        await self.group.start(timeout)
        # After READY work may be placed here: by then a scheduler must know the capabilities.
        await self.capability_reporter.flush(_FIRST_REPORT_TIMEOUT)

    async def stop(self, timeout: float) -> list[str]:
        """Drain and stop all services, write their last state, end the reports; returns what hung, a line each."""
        await self.service_actions.close()
        hung = await self.group.stop(timeout)
        await self.operations.close()
        try:
            async with asyncio.timeout(_LAST_WRITE_TIMEOUT):
                await asyncio.gather(self.heartbeat_reporter.write(self.group), self.periodic_saver.save())
        except TimeoutError:
            hung.append("writing the last records of services and periodic tasks")
        await self.heartbeat_reporter.stop()
        await self.capability_reporter.stop()
        await self._tasks.cancel()
        return hung

    def _get_event_handlers(self) -> EventHandlers | None:
        host = self._host_services
        if self._event_handlers is None and host.publisher is not None:
            # 3 ms and their memory: most managers handle no events.
            from ostler.service.event_handlers.event_handlers import EventHandlers

            self._event_handlers = EventHandlers(host.publisher, self._router, host.store, host.clock, self._tasks)
        return self._event_handlers

    def event_handlers(self) -> list[EventHandlerStatus]:
        """Return every event handler as an operator sees it, by service and name."""
        return self._event_handlers.statuses() if self._event_handlers is not None else []

    async def wait_event_handlers(self) -> None:
        """Wait until each event handler gets what this host publishes."""
        if self._event_handlers is not None:
            await self._event_handlers.wait_following()

    async def mark_gone(self, hosts: Collection[str], left_out: Mapping[str, str] = MappingProxyType({})) -> None:
        """Mark services in the table as removed: those not configured here, and those of hosts that are not peers.

        It also reads which services were forced down: the start has no time for a second look at the table.

        Args:
            hosts: The peers of this host.
            left_out: Services of the configuration that are left out, with the reason; see `leave_out`.
        """
        self.group.set_left_out(left_out)
        topics = list(self.group.services)

        def mark() -> dict[tuple[str, str], OperatorOverride]:
            self.service_records.mark_gone(topics, hosts, left_out)
            return self.service_records.forced_down()

        try:
            self._router.forced_down = await self.store.awrite(mark, label="removed services")
            self.host_view.on_change()
        except StoreError as error:
            _log.debug("removed services could not be marked in the services table: %s", error_line(error))
            await self._load_overrides()
        self.upgrades.invalidate()

    async def explain(self, row: ServiceStatus, disabled_topics: Iterable[str] = ()) -> ServiceStatus:
        """Return a service with the causes for which it is not up and well.

        Args:
            row: The service as it is seen from here.
            disabled_topics: Services that the configuration of this host has disabled.
        """
        from ostler.service.explanation import SCHEDULER_TOPIC, Surroundings, explain  # 1 ms: only when asked for

        outage = self.store.outage
        offers = any(report.backends for report in self._live_reports() if report.topic == row.topic and row.here)
        around = Surroundings(
            host=self.host,
            services=await self.rows(),
            outage=outage.why if outage.is_active else "",
            outage_since=outage.since,
            offers=offers,
            has_scheduler=bool(self._router.serving_hosts(SCHEDULER_TOPIC)),
            upgrade=await self.upgrades.aget_upgrade(row.topic),
            disabled_topics=frozenset(disabled_topics),
        )
        return replace(row, causes=explain(row, around))

    async def _prune_gone_periodically(self) -> None:
        while True:
            await asyncio.sleep(_PRUNE_INTERVAL)
            await self._prune_gone()

    async def _prune_gone(self) -> None:
        try:
            gone = await self.store.awrite(
                lambda: self.service_records.prune_gone(self.gone_age), label="prune services that are gone"
            )
        except StoreError as error:
            _log.debug("records of services that are gone could not be removed: %s", error_line(error))
            return
        for topic, host in gone:
            _log.info("the record of service %s on %s was removed: it has been gone for long", topic, host)
        if gone:
            self.host_view.on_change()

    async def _load_overrides(self) -> None:
        """Take over which services of other hosts were forced down; while the table cannot be read, none."""
        try:
            self._router.forced_down = await self.store.aread(self.service_records.forced_down)
        except StoreError as error:
            _log.warning("it is not known which services were forced down: %s", error_line(error))

    async def set_forced_down(self, topic: str, host: str, override: OperatorOverride | None) -> None:
        """Record an operator's word that a service of another host is down, or that it is not any more.

        Raises:
            NotFound: There is no record of it.
            StoreUnavailable: It cannot be written now; nothing has changed.
        """
        records = self.service_records
        await self.store.awrite(
            lambda: records.set_override("forced_down", topic, host, override), label="service force-down"
        )
        others = {key: each for key, each in self._router.forced_down.items() if key != (topic, host)}
        self._router.forced_down = others if override is None else {**others, (topic, host): override}
        self.upgrades.invalidate()
        self.host_view.on_change()

    async def set_frozen(self, topic: str, frozen: OperatorOverride | None) -> None:
        """Freeze a service of this host, or thaw it. It is committed before it takes effect.

        Raises:
            NotFound: There is no such service.
            StoreUnavailable: It cannot be written now; nothing has changed.
        """
        records, host = self.service_records, self.host
        await self.store.awrite(lambda: records.set_override("frozen", topic, host, frozen), label="service freeze")
        if (service := self.group.services.get(topic)) is not None:
            service.set_frozen(frozen)
        self.capability_reporter.trigger(topic)

    def problems(self) -> list[str]:
        """Return problems other than the states of the services, a line each.

        Periodic tasks, permanent tasks, and problems of the managers' own objects.
        """
        told = [
            f"service {service.topic}: {line}"
            for service in self.group
            if service.is_running
            for line in service.problems
        ]
        return [
            *self._tasks.problems(),
            *self.operations.problems(),
            *self._periodic_problems(),
            *self._event_handler_problems(),
            *(line for service in self.group for line in service.refused_options()),
            *told,
        ]

    def _periodic_problems(self) -> list[str]:
        """Return the problems of periodic tasks that the evidence of their service does not show."""
        shown = self._shown_problems()
        return [
            problem.text
            for problem in self.periodic_scheduler.problems()
            if periodic_key(problem.task) not in shown.get(problem.service, {})
        ]

    def _event_handler_problems(self) -> list[str]:
        """Return the problems of event handlers that the evidence of their service does not show."""
        shown = self._shown_problems()
        handlers = self._event_handlers.all_handlers() if self._event_handlers is not None else []
        return [
            line
            for handler in handlers
            for line in handler.problems(
                with_health=event_handler_key(handler.name) not in shown.get(handler.service, {})
            )
        ]

    def _shown_problems(self) -> dict[str, dict[str, str]]:
        return {service.topic: service.state_tracker.problems for service in self.group if service.is_running}

    def plan(self, specs: Iterable[ServiceSpec]) -> ServicePlan:
        """Return what a reload would do with the services, for the specifications of a new configuration."""
        return make_plan(self.group, specs)

    async def reload(
        self,
        plan: ServicePlan,
        daemon_part: ReversibleStep | None = None,
        should_continue: Callable[[], bool] = lambda: True,
        *,
        on_step: Callable[[str], object] = lambda _name: None,
        options: ReloadOptions = _DEFAULT_OPTIONS,
    ) -> tuple[ReloadOutcome, list[str]]:
        """Carry out a plan: all of its steps, or none. Every manager that runs is reset.

        A failed service is started again, as its cause may be gone; the result is in its state.

        Args:
            plan: From `plan`, made a moment before.
            daemon_part: What the daemon itself does, before anything is removed.
            should_continue: Called before each step; False when the daemon is stopping.
            on_step: Called with each step before it starts, as it may never return.
            options: How it is carried out.

        Returns:
            What became of the steps, and problems that were no reason to take the reload back, a line each.
        """
        changes = ServiceChanges(
            self.group, self.service_actions, self.store, plan, options,
            on_removed=self._on_removed, on_options=self._on_options,
        )  # fmt: skip
        parts = changes.parts()
        if daemon_part is not None:
            parts.insert(daemon_step_position([part.step for part in parts]), daemon_part)
        try:
            outcome = await carry_out(parts, should_continue, on_step)
        finally:
            changes.end()
        if not outcome.failure and not outcome.was_stopped:
            changes.commit()
            self._specs = list(plan.specs.values())
            await self._restart_failed_services(should_continue, on_step)
        on_step("")
        self.host_view.on_change()
        return outcome, changes.problems

    def _on_removed(self, topic: str) -> None:
        self.capability_reporter.forget(topic)
        self.upgrades.invalidate()
        self.host_view.on_change()

    def _on_options(self, service: Service) -> None:
        # Its intervals may have changed.
        self.heartbeat_reporter.trigger(service)
        self.capability_reporter.trigger(service.topic)

    async def _restart_failed_services(
        self, should_continue: Callable[[], bool], on_step: Callable[[str], object]
    ) -> None:
        """Start the failed services again, each after those it needs."""
        for service in list(self.group):
            if service.state_tracker.state is ServiceState.FAILED and should_continue():
                on_step(f"start of service {service.topic}")
                await self.service_actions.begin_start(service.topic)

    def pending_options(self) -> list[str]:
        """Return new options that wait for work in progress, a line each."""
        return [line for service in self.group for line in service.pending_options()]

    async def rows(self) -> list[ServiceStatus]:
        """Return every service as this daemon sees it; see `HostView`."""
        return await self.host_view.rows()

    def _on_service_change(self, service: Service) -> None:
        self.upgrades.invalidate()
        self.host_view.on_change()
        self.heartbeat_reporter.trigger(service)
        self.state_notifier.notify_service(
            service.topic, service.state_tracker.state, service.state_tracker.why, service.state_tracker.since
        )
        self.capability_reporter.on_offer_changed(service.topic)
        self._on_change(service)

    def _live_reports(self) -> list[CapabilityReport]:
        return self.capability_reporter.live_reports()

    def _on_capability_change(self, topic: str, backend: str, lease: str, released: bool) -> None:
        self.capability_reporter.on_change(topic, backend, lease, released)

    def _on_offer_changed(self, topic: str) -> None:
        self.capability_reporter.on_offer_changed(topic)
