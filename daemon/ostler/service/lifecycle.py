"""One service: a manager on a topic, from its start to its stop."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from ostler import log
from ostler.aio import TaskOwner, UndoStack, WorkerPool
from ostler.availability import is_up
from ostler.bounds import WHY_LIMIT, escape_surrogates, truncate
from ostler.driver import DriverOptions, Drivers
from ostler.errors import Conflict, StoreUnavailable
from ostler.log.defects import UnexpectedErrors
from ostler.manager import Manager, ManagerEnvironment, ManagerOptions, namespace_versions
from ostler.messaging import Endpoint
from ostler.messaging.events.notifications import Notifier
from ostler.service.hook_calls import HookFailed, HookTimeout, call_hook, problem_lines
from ostler.service.owned_work import OwnedWork
from ostler.service.service_drivers import ServiceDrivers
from ostler.service.service_events import ServiceEvents
from ostler.service.service_pools import MAX_CONCURRENT_RESETS, ServicePools, line
from ostler.service.service_spec import ServiceContext, ServiceSpec
from ostler.service.state_tracker import StateTracker
from ostler.store import Registration
from ostler.time_text import format_duration
from ostler.types import DriverState, OperatorOverride, ServiceSign, ServiceState, ServiceStatus

_log = logging.getLogger(__name__)
_MIN_POLL_INTERVAL = 0.02
_MAX_POLL_INTERVAL = 0.5
"""Seconds between two polls of what is still running, at first and later; threads end without notifying the loop."""
_CANCEL_GRACE = 5.0
"""Seconds that a drain waits for an overdue periodic run, once it has been cancelled."""
_MIN_STOP_STEP_TIME = 0.5
"""The least seconds for every part of a stop, however little time is left."""
_DATABASE_RETRY_DELAY = 2.0
"""Seconds between two attempts to register while the database cannot be written."""
_CAPABILITY_TIMEOUT = 86400.0
"""Seconds that a question about capabilities may take: a late answer is still used."""
_LATE_DRIVER_WAIT = 60.0
"""Seconds for which operations of an earlier run wait for drivers whose first initialisation takes long."""
RUNNING_STATES = (ServiceState.UP, ServiceState.DEGRADED)
_ENDED_STATES = (ServiceState.STOPPED, ServiceState.FAILED)


class Service:
    """One manager on one topic: builds it, opens its endpoint, runs its hooks, takes it down in reverse order.

    Everything that was set up is recorded with its undo function, so that `stop` is correct at every point of the
    start, and before it. All methods are called on the loop. `lacks_tables` says that it did not start because its
    plugin's tables are unusable: then the daemon continues even if it is required, because a restart would not help.

    Args:
        spec: The specification of the service.
        context: The context that all services share.
        on_change: Called after its state has changed.
    """

    def __init__(self, spec: ServiceSpec, context: ServiceContext, on_change: Callable[[Service], None]) -> None:
        self.spec = spec
        self.topic = spec.topic
        self.options: ManagerOptions = spec.options
        self.manager: Manager | None = None
        self.pools = ServicePools(spec.topic, spec.options, len(spec.drivers))
        self.pool = self.pools.requests
        self.state_tracker = StateTracker(context.host.clock, lambda: on_change(self))
        self.step = "waiting"
        self.progress_text = ""
        """The progress of the step, as reported by the manager."""
        self.should_skip_drain = False
        self.is_registered = False
        self.frozen: OperatorOverride | None = None
        """Set while it takes no new work, because an operator has said so."""
        self.lacks_tables = False
        self.signs: list[ServiceSign] = []
        """The signs of work in its last report."""
        self.last_progress = context.host.clock.monotonic()
        self._context = context
        self._on_change = on_change
        self._log = log.adapter(logging.getLogger(f"ostler.service.{spec.topic}"), service=spec.topic)
        self._tasks = TaskOwner(f"service {spec.topic}")
        self._service_drivers: ServiceDrivers | None = None
        self._events = ServiceEvents(self.topic, context.event_handlers, self.pool)
        self._owned_work = OwnedWork(
            spec.topic, spec.manager.cls, lambda: self.options,
            scheduler=context.periodic_scheduler, loop_queue=context.host.loop_queue, clock=context.host.clock,
            state=self.state_tracker, event_handlers=self._events,
        )  # fmt: skip
        self._defects = UnexpectedErrors(_log, topic=self.topic, manager=spec.options.manager)
        self.problems: list[str] = []
        """The last reported problems of the manager's own objects, a line each."""
        self._undo_stack = UndoStack(self._log, f"service {spec.topic}")
        self._stop_task: asyncio.Task[list[str]] | None = None
        self._overdue_hooks: set[str] = set()
        self._draining_since = math.inf
        self._abandoned_work: set[tuple[str, str]] = set()
        context.host.dispatcher.registry.mark_starting(self.topic)

    @property
    def drivers(self) -> Drivers | None:
        """Its drivers; None before they were built."""
        return self._service_drivers.drivers if self._service_drivers is not None else None

    def pending_options(self) -> list[str]:
        """Return what new options of its drivers wait for, a line each."""
        return self._service_drivers.pending_options() if self._service_drivers is not None else []

    def refused_options(self) -> list[str]:
        """Return new options of its drivers that were undone because they did not work, a line each."""
        if self._service_drivers is None or self.has_ended:
            return []
        lines = self._service_drivers.refused_options.values()
        return [f"new options were undone after the work in progress: {line}" for line in lines]

    def driver_options(self, name: str) -> DriverOptions:
        """Return the options that a driver runs with; the options of the specification before there are drivers."""
        return self.drivers.options(name) if self.drivers is not None else self.spec.drivers[name][1]

    @property
    def is_running(self) -> bool:
        """Whether it is working: up or degraded."""
        return self.state_tracker.state in RUNNING_STATES

    @property
    def is_draining(self) -> bool:
        """Whether it refuses new work, and has not been stopped."""
        return self.state_tracker.state is ServiceState.DRAINING

    @property
    def has_ended(self) -> bool:
        """Whether it has ended: stopped, or failed."""
        return self.state_tracker.state in _ENDED_STATES

    # ---------------------------------------------------------------- start

    async def start(self) -> None:
        """Run the whole start. When it fails the caller stops the service; nothing is undone here.

        Raises:
            ServiceError: The manager could not be built, or one of its hooks failed.
            StoreError: The record could not be written, or its plugin's tables could not be brought up to date.
        """
        self._check_tables()
        self.state_tracker.enter(ServiceState.STARTING, "registering")
        registration = await self._run_step("registering", self._register())
        self.frozen = registration.frozen
        manager = await self._run_step("creating its manager", self._build_manager())
        await self._run_step("waiting for its drivers", self._start_drivers())
        self._undo_stack.push("cleanup_host", self._cleanup_host)
        self._undo_stack.push("background tasks", self._owned_work.stop)  # again: before what they may use is gone
        await self._run_start_hook("init_host", manager.init_host, registration.id, registration.added_to_cluster)
        await self._run_step("handing over its drivers", self._hand_over_drivers())
        await self._run_start_hook("pre_start_hook", manager.pre_start_hook)
        self._open_endpoint(manager)
        await self._run_start_hook("init_host_with_rpc", manager.init_host_with_rpc)
        await self._run_start_hook("post_start_hook", manager.post_start_hook)
        self._add_periodic(manager)
        self._undo_stack.push_call("periodic tasks", lambda: self._context.periodic_scheduler.remove(self.topic))
        self._events.start(manager)
        self._undo_stack.push("event handlers", self._events.stop)
        self._context.host.operations.start_topic(self.topic, self._wait_for_late_drivers)
        self.step = ""
        self.last_progress = self._context.host.clock.monotonic()
        self.state_tracker.enter(ServiceState.UP)

    def _check_tables(self) -> None:
        """Raise when the tables of its plugin were not migrated: a failure of this service, not of the daemon."""
        for namespace in self.spec.namespaces:
            if error := self._context.host.store.failed_migrations.get(namespace):
                self.lacks_tables = True
                raise error

    def _has_progress_text(self) -> bool:
        return bool(self.progress_text) and self.state_tracker.state is ServiceState.STARTING

    def _set_progress_text(self, text: str) -> None:
        """Record the progress of a hook of the start. Any thread."""
        self.progress_text = escape_surrogates(truncate(text, WHY_LIMIT))

    async def _run_step(self, step: str, work: Awaitable[Any]) -> Any:
        self.step, self.progress_text = step, ""
        self.state_tracker.enter(ServiceState.STARTING, step)
        return await work

    async def _run_start_hook(self, name: str, hook: Callable[..., Any], *args: Any) -> Any:
        work = self._call_hook(name, hook, *args, pool=self.pool, timeout=self.options.start_timeout)
        return await self._run_step(name, work)

    async def _call_hook(
        self, name: str, hook: Callable[..., Any], *args: Any, pool: WorkerPool, timeout: float
    ) -> Any:
        """Call a hook, and record when it does not return: a stop then no longer waits for it."""
        label = f"{self.topic}.{name}"
        try:
            result = await call_hook(self.topic, name, hook, *args, pool=pool, timeout=timeout, defects=self._defects)
        except HookTimeout:
            self._overdue_hooks.add(label)
            raise
        self._overdue_hooks.discard(label)
        return result

    async def _register(self) -> Any:
        records, spec = self._context.service_records, self.spec
        self._undo_stack.push_call("locks", lambda: self._context.locks.release_service(self.topic))
        self._undo_stack.push("threads", self._stop_pool)

        def register() -> Any:
            registration = records.register(
                self.topic, spec.options.manager, spec.manager.cls.rpc_version, namespace_versions(spec.manager.cls)
            )
            # Recorded here and not after the wait: a stop may cancel the wait, and the row must still have it.
            self.is_registered = True
            return registration

        while True:
            try:
                return await self._context.host.store.awrite(register, label=f"register {self.topic}")
            except StoreUnavailable as error:
                if not self.spec.namespaces:  # the heartbeat inserts its row as soon as possible
                    self.is_registered = True
                    return Registration(0, added_to_cluster=False)
                self.step = f"registering, waiting for the database: {error.message}"
                self.state_tracker.enter(ServiceState.STARTING, self.step)
            await asyncio.sleep(_DATABASE_RETRY_DELAY)

    async def _build_manager(self) -> Manager:
        self._service_drivers = ServiceDrivers(
            self.spec, self._context, self.state_tracker, lambda work, name: self._tasks.spawn(work, name=name)
        )
        environment = ManagerEnvironment(
            topic=self.topic,
            host=self._context.host.name,
            options=self.options,
            drivers=self._service_drivers.drivers,
            store=self._context.host.store,
            client=self._context.host.client.for_topic(self.topic),
            clock=self._context.host.clock,
            log=self._log,
            extensions=self.spec.extensions,
            sections=self.spec.sections,
            notifier=told.make_notifier(self.topic) if (told := self._context.host.notifications) else Notifier(),
            daemon=self._context.host.addresses,
            open_gateway=self._context.host.open_gateway,
            locks=self._context.locks.for_service(self.topic),
            report_progress=self._set_progress_text,
            report_change=self._report_change,
            periodic=self._owned_work.periodic,
            tasks=self._owned_work.background,
        )
        self._undo_stack.push("background tasks", self._owned_work.stop)
        build = self.spec.manager.build
        timeout = self.options.start_timeout
        self.manager = await self._call_hook("__init__", build, environment, pool=self.pool, timeout=timeout)
        assert self.manager is not None  # noqa: S101 - `build` returns a manager or raises
        return self.manager

    async def _start_drivers(self) -> None:
        assert self._service_drivers is not None  # noqa: S101 - built in the step before
        self._undo_stack.push("drivers", self._service_drivers.stop)
        await self._service_drivers.start(self.options.driver_init_wait)

    async def _wait_for_late_drivers(self) -> None:
        """Wait for drivers that are still being initialised: operations of an earlier run may need them."""
        if self._service_drivers is not None:
            await self._service_drivers.drivers.wait(_LATE_DRIVER_WAIT, retries=False)

    async def _hand_over_drivers(self) -> None:
        assert self._service_drivers is not None  # noqa: S101 - built two steps before
        assert self.manager is not None  # noqa: S101 - likewise
        driver_ready = self.manager.driver_ready

        async def take_over(name: str) -> None:
            timeout = self.options.start_timeout
            await self._call_hook("driver_ready", driver_ready, name, pool=self.pool, timeout=timeout)

        await self._service_drivers.begin_handover(take_over)

    def _open_endpoint(self, manager: Manager) -> None:
        endpoint = Endpoint(
            self.topic,
            self._context.host.name,
            manager,
            self.pool,
            manager.rpc_version,
            namespaces={name: cls(manager) for name, cls in manager.namespaces.items()},
            # The check of the configuration has checked the types of this class; to repeat it would cost milliseconds.
            trusted=type(manager) is self.spec.manager.cls,
            short_pool=self.pools.short,
        )
        endpoint.max_in_flight = self.options.max_in_flight
        operations = self._context.host.operations
        operations.add_topic(self.topic, self.options.max_operations, partial(getattr, manager))
        self._undo_stack.push_call("operations", lambda: operations.remove_topic(self.topic))
        registry = self._context.host.dispatcher.registry
        registry.add_endpoint(endpoint)
        self._undo_stack.push_call("endpoint", lambda: registry.remove_endpoint(self.topic))
        self._apply_frozen()

    # ---------------------------------------------------------------- while it is up

    def set_frozen(self, frozen: OperatorOverride | None) -> None:
        """Take no new work from now on, and finish what is there; with None, take work again. On the loop."""
        self.frozen = frozen
        self._apply_frozen()
        self._on_change(self)

    def _apply_frozen(self) -> None:
        self._context.host.dispatcher.registry.set_frozen(self.topic, self.frozen)
        self._context.host.operations.freeze_topic(self.topic, self.frozen is not None)

    async def check_health(self) -> None:
        """Ask the manager and its ready drivers whether they can work, and record the answers."""
        if self.manager is None or self._service_drivers is None or not self.is_running:
            return
        self._owned_work.update_problems()
        timeout = max(1.0, self.options.down_time - self.options.report_interval)
        complaint = ""
        try:
            if await self._call_check("is_working", self.manager.is_working, timeout) is False:
                complaint = "is_working returned False"
        except HookFailed as error:
            complaint = error.message
            if not isinstance(error, HookTimeout):
                self._mark_progress()
        else:
            self._mark_progress()
        self.state_tracker.set_problem("is_working", complaint)
        self.state_tracker.set_problem("threads", self.pools.exhaustion(self.options.down_time))
        await self._update_problems(timeout)
        await self._service_drivers.check(timeout)

    async def _update_problems(self, timeout: float) -> None:
        """Ask the manager for problems with its own objects, and record them for the status."""
        assert self.manager is not None  # noqa: S101 - asked of services that are up
        if type(self.manager).problems is Manager.problems:
            return
        complaint = ""
        try:
            self.problems = problem_lines(await self._call_check("problems", self.manager.problems, timeout))
        except HookFailed as error:
            complaint = error.message
        except TypeError as error:
            complaint = f"problems of service {self.topic} did not return a list of texts: {error}"
        self.state_tracker.set_problem("problems", complaint)

    def _mark_progress(self) -> None:
        self.last_progress = self._context.host.clock.monotonic()

    async def _call_check(self, name: str, hook: Callable[..., Any], timeout: float) -> Any:
        """Call a hook on a separate pool; one that has not returned from its last call is not called again."""
        label = f"{self.topic}.{name}"
        for row in self.pools.health.running_jobs():
            if row.label == label:
                text = f"{name} of service {self.topic} has not returned for {format_duration(row.seconds)}"
                raise HookTimeout(text, hint="`ostler dump` shows where it hangs", service=self.topic, hook=name)
        return await self._call_hook(name, hook, pool=self.pools.health, timeout=timeout)

    def apply_options(self, options: ManagerOptions, sections: Mapping[str, Any]) -> None:
        """Put other options in effect without a restart; the manager's `reset` follows. On the loop.

        Args:
            options: All options of the service.
            sections: The plugins' own sections of the configuration.
        """
        self.options = options
        if self.manager is None or self.has_ended:
            return
        self.manager.options, self.manager.sections = options, sections
        host = self._context.host
        host.operations.set_max_running(self.topic, options.max_operations)
        host.dispatcher.registry.set_max_in_flight(self.topic, options.max_in_flight)
        self._context.periodic_scheduler.apply_options(self.topic, options)

    @property
    def sections(self) -> Mapping[str, Any]:
        """The plugins' own sections of the configuration that the manager goes by."""
        return self.manager.sections if self.manager is not None else self.spec.sections

    async def reset(self, timeout: float = math.inf) -> None:
        """Run the manager's `reset`; nothing to do for a service that is not running.

        Args:
            timeout: Seconds that it may take; never more than `start_timeout`.

        Raises:
            HookFailed: It raised, or has not returned in time.
        """
        # One that had failed before is not a problem of this reload: its state says it.
        if self.manager is not None and self._service_drivers is not None and not self.has_ended:
            await self._reset_manager(self.manager, min(timeout, self.options.start_timeout))

    @property
    def service_drivers(self) -> ServiceDrivers | None:
        """Its drivers, with what adds, removes and renews them; None before they were built."""
        return self._service_drivers

    async def on_driver_removed(self, name: str) -> None:
        """Tell the manager that one of its drivers was removed. What it raises is logged."""
        assert self.manager is not None  # noqa: S101 - it had the driver
        self.update_backend_count()
        timeout = self.options.start_timeout
        try:
            await self._call_hook("driver_removed", self.manager.driver_removed, name, pool=self.pool, timeout=timeout)
        except HookFailed as error:
            self._log.error("%s", error)

    def update_backend_count(self) -> None:
        """Adapt the threads for capabilities to the number of drivers. On the loop."""
        self.pools.set_backend_count(len(self.drivers or ()))

    async def _reset_manager(self, manager: Manager, timeout: float) -> None:
        """Run `reset` on a separate pool, even if an earlier one still hangs: its cause may be gone."""
        hanging = self.pools.reset.running_jobs()
        if len(hanging) >= MAX_CONCURRENT_RESETS:
            text = f"reset of service {self.topic} was not started: {len(hanging)} earlier ones have not returned"
            hint = "`ostler dump` shows where they hang; restart the daemon if they never return"
            raise HookTimeout(text, hint=hint, service=self.topic, hook="reset")
        await self._call_hook("reset", manager.reset, pool=self.pools.reset, timeout=timeout)

    def capability_sources(self) -> list[str]:
        """Return the backends that are asked separately; `[""]` for a manager that answers for all of them at once."""
        if self.manager is not None and type(self.manager).capabilities is not Manager.capabilities:
            return [""]
        return self._service_drivers.usable_drivers() if self._service_drivers is not None else []

    def withheld_drivers(self) -> dict[str, str]:
        """Return the drivers that must not be offered to schedulers now, each with why."""
        return self._service_drivers.withheld_drivers() if self._service_drivers is not None else {}

    async def capabilities(self, backend: str = "") -> Any:
        """Return the manager's capabilities of a backend, or of all; waits as long as that takes.

        Raises:
            HookFailed: It raised.
        """
        assert self.manager is not None  # noqa: S101 - asked of services that are up
        name, arguments = ("backend_capabilities", (backend,)) if backend else ("capabilities", ())
        label = f"{name} {backend}" if backend else name
        hook = getattr(self.manager, name)
        return await call_hook(
            self.topic,
            label,
            hook,
            *arguments,
            pool=self.pools.capabilities,
            timeout=_CAPABILITY_TIMEOUT,
            defects=self._defects,
        )

    def _report_change(self, backend: str, lease: str, released: bool) -> None:
        self._context.host.loop_queue.post(
            lambda: self._context.on_capability_change(self.topic, backend, lease, released)
        )

    def status(self) -> ServiceStatus:
        """Return the service as an operator sees it, without the fields that only the table has (beat, enabled)."""
        return ServiceStatus(
            topic=self.topic,
            host=self._context.host.name,
            manager=self.spec.options.manager,
            state=self.state_tracker.state,
            why=f"{self.state_tracker.why}, {self.progress_text}"
            if self._has_progress_text()
            else self.state_tracker.why,
            since=self.state_tracker.since,
            frozen=self.frozen,
            up=is_up(self.state_tracker.state, 0.0, self.options.down_time),
            required=self.options.required,
            rpc_version=self.spec.manager.cls.rpc_version,
            namespaces=namespace_versions(self.spec.manager.cls),
            in_flight=self._context.host.dispatcher.in_flight(self.topic),
            queued=self.pools.queued_count(),
            workers=self.pool.size,
            drivers=self.drivers.statuses() if self.drivers is not None else [],
            tasks=self._owned_work.background.statuses(),
            evidence=self.state_tracker.problems,
            report_interval=self.options.report_interval,
            down_time=self.options.down_time,
            capability_interval=self.options.capability_interval,
            depends_on=self.options.depends_on,
            signs=self.signs,
            addresses=[escape_surrogates(str(each)) for each in getattr(self.manager, "listen_addresses", ())],
        )

    # ---------------------------------------------------------------- stop

    async def drain(
        self, timeout: float, why: str = "the service is stopping", *, returns_after: float | None = None
    ) -> list[str]:
        """Refuse new work, switch periodic tasks off, and wait for work in progress.

        Args:
            timeout: Seconds to wait.
            why: The reason that callers get.
            returns_after: Seconds after which callers are told to try again: the service is restarted.

        Returns:
            What was still running at the end, a line each.
        """
        if not self._undo_stack or self.state_tracker.state in _ENDED_STATES:
            return []
        self.state_tracker.enter(ServiceState.DRAINING, why)
        self._context.host.dispatcher.set_draining(self.topic, why, returns_after)
        self._context.host.operations.drain_topic(self.topic)
        self._context.periodic_scheduler.remove(self.topic)
        self._events.drain()
        self._draining_since = asyncio.get_running_loop().time()
        await self._wait_until_empty(lambda: self._drain_waits_for() if self.is_draining else [], timeout)
        if self.is_draining:  # else it was resumed meanwhile
            self._abandoned_work = {(row.thread, row.label) for row in self.pools.request_rows()}
        return self.in_progress()

    def resume(self) -> None:
        """Accept work again after a drain. On the loop.

        Raises:
            Conflict: It is not draining, or its manager was never up.
        """
        # A service whose start failed drains too, at its current step, and is about to be stopped.
        if not self.is_draining or self.manager is None or self.step or self._stop_task is not None:
            raise Conflict(
                f"service {self.topic} is {self.state_tracker.state}; only a draining service can be resumed",
                hint=f"`ostler service start {self.topic}` starts a stopped or failed service",
                topic=self.topic,
            )
        self._draining_since, self._abandoned_work = math.inf, set()
        self._context.host.dispatcher.set_draining(self.topic, "")
        self._context.host.operations.resume_topic(self.topic)
        self._tasks.spawn(self._resume_periodic(self.manager), name=f"resume periodic tasks of {self.topic}")
        self.state_tracker.enter(ServiceState.UP)

    async def _resume_periodic(self, manager: Manager) -> None:
        """Start the periodic tasks again, after the runs that the drain found have ended: none runs twice at once."""
        periodic, pause = self._context.periodic_scheduler, _MIN_POLL_INTERVAL
        while periodic.running_tasks(self.topic) or self._events.in_progress():
            await asyncio.sleep(pause)
            pause = min(_MAX_POLL_INTERVAL, pause * 1.2)
        if self.is_running:
            self._add_periodic(manager)
            self._events.start(manager)

    def _add_periodic(self, manager: Manager) -> None:
        added = self._owned_work.periodic
        self._context.periodic_scheduler.add(self.topic, manager, self.pool, self.options, added)

    async def _wait_until_empty(self, list_work: Callable[[], list[str]], timeout: float) -> list[str]:
        """Poll until `list_work` finds nothing; return what it still finds after `timeout` or on a second signal."""
        loop = asyncio.get_running_loop()
        began, pause = loop.time(), _MIN_POLL_INTERVAL
        while left := list_work():
            rest = began + timeout - loop.time()
            if self.should_skip_drain or rest <= 0:
                return left
            await asyncio.sleep(min(pause, rest))
            pause = min(_MAX_POLL_INTERVAL, pause * 1.2)
        return []

    def _drain_waits_for(self) -> list[str]:
        """Return what a drain waits for: not stuck calls, and not cancelled periodic runs that do not react."""
        stuck = set(self._overdue_hooks)
        if asyncio.get_running_loop().time() - self._draining_since >= _CANCEL_GRACE:
            stuck |= self._context.periodic_scheduler.late_tasks(self.topic)
        return [line for label, line in self._work_rows() if label not in stuck]

    def in_progress(self) -> list[str]:
        """Return the work in progress of this service, a line each."""
        return [line for _, line in self._work_rows()]

    def _work_rows(self) -> list[tuple[str, str]]:
        """Return the work in progress of this service: the label of each, and a line."""
        running = self.pools.request_rows()
        waiting = self.pools.queued_count()
        others = self._context.host.dispatcher.in_flight(self.topic) - len(running) - waiting
        resets = self.pools.reset.running_jobs()
        rows = [(row.label, line(row)) for row in [*running, *resets]]
        # Not on a thread: periodic tasks that are `async def`.
        periodic = set(self._context.periodic_scheduler.running_tasks(self.topic)) - {row.label for row in running}
        rows += [(name, f"periodic task {name} of {self.topic}") for name in sorted(periodic)]
        handling = {f"{self.topic}.{name}" for name in self._events.in_progress()} - {row.label for row in running}
        rows += [(name, f"event handler {name}") for name in sorted(handling)]
        if waiting:
            rows.append(("", f"{waiting} requests of {self.topic} in the queue"))
        if others > 0:
            rows.append(("", f"{others} requests of {self.topic} on the event loop"))
        return rows

    async def stop(self, timeout: float, failed: str = "", why: str = "") -> list[str]:
        """Undo what was set up, last first. Safe before, during and after the start, and twice.

        Work in progress is not awaited: see `drain`.

        Args:
            timeout: Seconds for all of it; a part that hangs leaves time for those after it.
            failed: Why the service failed, when that is the reason for the stop.
            why: Why it is stopped, unless the daemon is stopping; shown with its state.

        Returns:
            What hung, a line each.
        """
        if self._stop_task is None:
            # A task of its own: the waiter may be cancelled, the stop itself runs to its end.
            work = self._stop(timeout, failed, why)
            self._stop_task = asyncio.get_running_loop().create_task(work, name=f"stop {self.topic}")
        return await asyncio.shield(self._stop_task)

    async def _stop(self, timeout: float, failed: str, why: str) -> list[str]:
        until = asyncio.get_running_loop().time() + timeout
        started = bool(self._undo_stack)
        self._context.host.operations.stop_topic(self.topic)
        self._context.host.dispatcher.registry.mark_unavailable(self.topic, failed)
        self._context.host.dispatcher.cancel_contexts(self.topic)
        if self._service_drivers is not None:
            self._service_drivers.end_handover()
            self._service_drivers.drivers.cancel_calls()
        await self._tasks.cancel(_MIN_STOP_STEP_TIME)
        left = until - asyncio.get_running_loop().time()
        hung = await self._undo_stack.run(left, min_step_time=_MIN_STOP_STEP_TIME, on_step=self._enter_stop_step)
        self.step = ""
        self.state_tracker.enter(
            ServiceState.FAILED if failed else ServiceState.STOPPED,
            failed or why or ("" if started else "never started"),
        )
        return hung

    def _enter_stop_step(self, step: str) -> None:
        self.step = f"stopping {step}"

    async def _cleanup_host(self, timeout: float) -> list[str]:
        assert self.manager is not None  # noqa: S101 - noted after it was built
        begun = [row.label for row in self.pool.running_jobs() if row.label in self._start_hooks()]
        if begun:
            # It may still be setting up what would be cleaned up here. `_stop_pool` reports it.
            self._log.warning("skipping cleanup_host: %s has not returned", begun[0])
            return []
        # Half of the time, as the drivers come after it.
        pool = self.pools.open_cleanup()
        try:
            cleanup = self.manager.cleanup_host
            await call_hook(
                self.topic, "cleanup_host", cleanup,
                pool=pool, timeout=max(0.1, round(timeout / 2, 1)), defects=self._defects,
            )  # fmt: skip
        except HookTimeout as error:
            return [error.message]
        except HookFailed as error:
            self._log.error("%s", error)
        finally:
            pool.close()
        return []

    def _start_hooks(self) -> set[str]:
        names = ("init_host", "driver_ready", "pre_start_hook", "init_host_with_rpc", "post_start_hook")
        return {f"{self.topic}.{name}" for name in names}

    async def _stop_pool(self, timeout: float) -> list[str]:
        pools = self.pools
        pools.close()
        await self._wait_until_empty(lambda: pools.running_work(self._overdue_hooks, self._abandoned_work), timeout)
        return pools.running_work()

    def stuck_work(self) -> list[str]:
        """Return the stuck drivers and hanging hooks of a running service, a line each."""
        rows = [row for row in self.pools.hook_rows() if row.label in self._overdue_hooks]
        hooks = [f"{row.label} (for {format_duration(row.seconds)})" for row in rows]
        drivers = self.drivers.statuses() if self.drivers is not None else []
        return hooks + [f"driver {each.name} ({each.why})" for each in drivers if each.state is DriverState.STUCK]

    def leftover_work(self) -> list[str]:
        """Return what still runs in the threads of an ended service and of its drivers, a line each."""
        drivers = self.drivers.calls_in_progress() if self.drivers is not None else []
        owned = self._owned_work.background.running()
        return [*self.pools.running_work(), *owned, *self.pools.cleanup_lines(), *drivers]
