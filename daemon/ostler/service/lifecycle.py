"""One service: a manager on a topic, from its start to its stop."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from ostler import log
from ostler.aio import Running, TaskOwner, WorkerPool
from ostler.bounds import WHY_LIMIT, cut, sendable
from ostler.config.changes import in_force
from ostler.driver import DriverOptions, Drivers
from ostler.errors import Conflict, OstlerError, StoreUnavailable, describe
from ostler.log.defects import Defects
from ostler.manager import Manager, ManagerEnvironment, ManagerOptions, namespace_versions
from ostler.messaging import Endpoint
from ostler.messaging.notify import Notifier
from ostler.service.backends import Backends
from ostler.service.hooks import HookFailed, HookTimeout, call_hook, problem_lines
from ostler.service.spec import ServiceSpec, Surroundings
from ostler.service.states import StateKeeper
from ostler.store import Registration
from ostler.types import DriverState, ServiceState, ServiceStatus

_log = logging.getLogger(__name__)
_POLL = 0.02
_POLL_MAX = 0.5
"""Seconds between looks at what still runs, at first and later; threads end without telling the loop."""
_MOST_RESETS = 3
"""Runs of `reset` at once, of which all but one hang."""
_TOLD = 5.0
"""Seconds that a drain waits for a periodic run that is late already, once it has been told of the stop."""
_SHORTEST = 0.5
"""Seconds that every part of a stop gets at least, however little is left."""
_DATABASE_RETRY = 2.0
"""Seconds between two tries to register while the database cannot be written."""
_DAY = 86400.0
"""Seconds that a question about capabilities may take: an answer that comes late is taken all the same."""
RUNNING = (ServiceState.UP, ServiceState.DEGRADED)
_ENDED = (ServiceState.STOPPED, ServiceState.FAILED)


class Service:
    """One manager on one topic: builds it, opens its endpoint, runs its hooks, takes it down in the mirrored order.

    Whatever has been set up is noted with what undoes it, so that `stop` is right at every point of the start, and
    before it. All methods are called on the loop. `excused` says that it did not start for want of its plugin's tables:
    then the daemon goes on even if it is required, for no restart would help.

    Args:
        spec: What the service is made from.
        around: What all services share.
        on_change: Called after its state has changed.
    """

    def __init__(self, spec: ServiceSpec, around: Surroundings, on_change: Callable[[Service], None]) -> None:
        self.spec = spec
        self.topic = spec.topic
        self.options: ManagerOptions = spec.options
        self.manager: Manager | None = None
        self.pool = WorkerPool(spec.topic, spec.options.workers, spec.options.queue_limit)
        self.short_pool = WorkerPool(f"{spec.topic}-short", spec.options.workers, spec.options.queue_limit)
        self.states = StateKeeper(around.host.clock, lambda: on_change(self))
        self.step = "waiting"
        self.progress = ""
        """How far the step is, in words of the manager."""
        self.hurry = False
        self.registered = False
        self.excused = False
        self.progressed = around.host.clock.monotonic()
        self._around = around
        self._log = log.adapter(logging.getLogger(f"ostler.service.{spec.topic}"), service=spec.topic)
        self._tasks = TaskOwner(f"service {spec.topic}")
        self._backends: Backends | None = None
        # Checks have threads of their own: they must not wait behind hours of work.
        self._beside = WorkerPool(f"{spec.topic}-checks", 2)
        # A thread for each backend, so that none waits for another.
        self._asked = WorkerPool(f"{spec.topic}-capabilities", max(1, len(spec.drivers)))
        # Not beside the checks: those that hang here, and are left behind, would take their threads.
        self._resets = WorkerPool(f"{spec.topic}-reset", _MOST_RESETS)
        self._cleaning: WorkerPool | None = None
        self._defects = Defects(_log, topic=self.topic, manager=spec.options.manager)
        self.problems: list[str] = []
        """What the manager said last of its own objects, a line each."""
        self._undo: list[tuple[str, Callable[[float], Awaitable[list[str]]]]] = []
        self._stopping: asyncio.Task[list[str]] | None = None
        self._overdue_hooks: set[str] = set()
        self._draining_since = math.inf
        self._given_up: set[tuple[str, str]] = set()
        around.host.dispatcher.registry.expect(self.topic)

    @property
    def drivers(self) -> Drivers | None:
        """Its drivers; None before they were built."""
        return self._backends.drivers if self._backends is not None else None

    def pending(self) -> list[str]:
        """Return what new options of its drivers wait for, a line each."""
        return self._backends.pending() if self._backends is not None else []

    def driver_options(self, name: str) -> DriverOptions:
        """Return the options that a driver runs with; the options of the specification before there are drivers."""
        return self.drivers.options(name) if self.drivers is not None else self.spec.drivers[name][1]

    @property
    def running(self) -> bool:
        """Whether it does its work: up, or up and not quite well."""
        return self.states.state in RUNNING

    @property
    def draining(self) -> bool:
        """Whether it takes no new work, and has not been taken down."""
        return self.states.state is ServiceState.DRAINING

    @property
    def ended(self) -> bool:
        """Whether it has been taken down: stopped, or failed."""
        return self.states.state in _ENDED

    # ---------------------------------------------------------------- start

    async def start(self) -> None:
        """Run the whole start (DESIGN 5). When it fails the caller stops the service; nothing is undone here.

        Raises:
            ServiceError: The manager could not be built, or one of its hooks failed.
            StoreError: The record could not be written, or its plugin's tables could not be brought up to date.
        """
        self._refuse_without_tables()
        self.states.enter(ServiceState.STARTING, "registering")
        registration = await self._at("registering", self._register())
        manager = await self._at("building its manager", self._build())
        await self._at("waiting for its drivers", self._start_drivers())
        self._note("cleanup_host", self._cleanup_host)
        await self._hook("init_host", manager.init_host, registration.id, registration.added_to_cluster)
        await self._at("handing over its drivers", self._hand_over_drivers())
        await self._hook("pre_start_hook", manager.pre_start_hook)
        self._open_endpoint(manager)
        await self._hook("init_host_with_rpc", manager.init_host_with_rpc)
        await self._hook("post_start_hook", manager.post_start_hook)
        self._around.periodic.add(self.topic, manager, self.pool, self.options)
        self._note("periodic tasks", self._stop_periodic)
        self.step = ""
        self.progressed = self._around.host.clock.monotonic()
        self.states.enter(ServiceState.UP)

    def _refuse_without_tables(self) -> None:
        """Raise when the tables of its plugin are not as it needs them: its own failure, not that of the daemon."""
        for namespace in self.spec.namespaces:
            if error := self._around.host.store.failed_migrations.get(namespace):
                self.excused = True
                raise error

    def _is_in_progress(self) -> bool:
        return bool(self.progress) and self.states.state is ServiceState.STARTING

    def _report_progress(self, text: str) -> None:
        """Take note of how far a hook of the start is. Any thread."""
        self.progress = sendable(cut(text, WHY_LIMIT))

    async def _at(self, step: str, work: Awaitable[Any]) -> Any:
        self.step, self.progress = step, ""
        self.states.enter(ServiceState.STARTING, step)
        return await work

    async def _hook(self, name: str, hook: Callable[..., Any], *args: Any) -> Any:
        work = self._call(name, hook, *args, pool=self.pool, timeout=self.options.start_timeout)
        return await self._at(name, work)

    async def _call(self, name: str, hook: Callable[..., Any], *args: Any, pool: WorkerPool, timeout: float) -> Any:
        """Call a hook, and take note when it does not come back: a stop then waits for it no longer."""
        label = f"{self.topic}.{name}"
        try:
            result = await call_hook(self.topic, name, hook, *args, pool=pool, timeout=timeout, defects=self._defects)
        except HookTimeout:
            self._overdue_hooks.add(label)
            raise
        self._overdue_hooks.discard(label)
        return result

    async def _register(self) -> Any:
        records, spec = self._around.records, self.spec
        self._note("threads", self._stop_pool)

        def register() -> Any:
            registration = records.register(
                self.topic, spec.options.manager, spec.manager.cls.rpc_version, namespace_versions(spec.manager.cls)
            )
            # Noted here and not after the wait: a stop may cut that short, and the row has to say so all the same.
            self.registered = True
            return registration

        while True:
            try:
                return await self._around.host.store.awrite(register, label=f"register {self.topic}")
            except StoreUnavailable as error:
                if not self.spec.namespaces:  # the heartbeats insert its row as soon as that is possible
                    self.registered = True
                    return Registration(0, added_to_cluster=False)
                self.step = f"registering, waiting for the database: {error.message}"
                self.states.enter(ServiceState.STARTING, self.step)
            await asyncio.sleep(_DATABASE_RETRY)

    async def _build(self) -> Manager:
        self._backends = Backends(
            self.spec, self._around, self.states, lambda work, name: self._tasks.spawn(work, name=name)
        )
        environment = ManagerEnvironment(
            topic=self.topic,
            host=self._around.host.name,
            options=self.options,
            drivers=self._backends.drivers,
            store=self._around.host.store,
            client=self._around.host.client.for_topic(self.topic),
            clock=self._around.host.clock,
            log=self._log,
            extensions=self.spec.extensions,
            sections=self.spec.sections,
            notifier=told.notifier(self.topic) if (told := self._around.host.notifications) else Notifier(),
            report_progress=self._report_progress,
            report_change=self._report_change,
        )
        build = self.spec.manager.build
        timeout = self.options.start_timeout
        self.manager = await self._call("__init__", build, environment, pool=self.pool, timeout=timeout)
        assert self.manager is not None  # noqa: S101 - `build` returns a manager or raises
        return self.manager

    async def _start_drivers(self) -> None:
        assert self._backends is not None  # noqa: S101 - built in the step before
        self._note("drivers", self._backends.stop)
        await self._backends.start(self.options.driver_wait)

    async def _hand_over_drivers(self) -> None:
        assert self._backends is not None  # noqa: S101 - built two steps before
        assert self.manager is not None  # noqa: S101 - likewise
        driver_ready = self.manager.driver_ready

        async def take_over(name: str) -> None:
            timeout = self.options.start_timeout
            await self._call("driver_ready", driver_ready, name, pool=self.pool, timeout=timeout)

        await self._backends.begin_take_over(take_over)

    def _open_endpoint(self, manager: Manager) -> None:
        endpoint = Endpoint(
            self.topic,
            self._around.host.name,
            manager,
            self.pool,
            manager.rpc_version,
            namespaces={name: cls(manager) for name, cls in manager.namespaces.items()},
            # The check of the configuration has looked at the types of this class, and that costs a start milliseconds.
            trusted=type(manager) is self.spec.manager.cls,
            short_pool=self.short_pool,
        )
        endpoint.max_in_flight = self.options.max_in_flight
        self._around.host.dispatcher.registry.add_endpoint(endpoint)
        self._note("endpoint", self._close_endpoint)

    def _note(self, what: str, undo: Callable[[float], Awaitable[list[str]]]) -> None:
        self._undo.append((what, undo))

    # ---------------------------------------------------------------- while it is up

    async def check_health(self) -> None:
        """Ask the manager and its ready drivers whether they can work, and keep what they say."""
        if self.manager is None or self._backends is None or not self.running:
            return
        timeout = max(1.0, self.options.down_time - self.options.report_interval)
        complaint = ""
        try:
            if await self._ask("is_working", self.manager.is_working, timeout) is False:
                complaint = "is_working says no"
        except HookFailed as error:
            complaint = error.message
            if not isinstance(error, HookTimeout):
                self._progress()
        else:
            self._progress()
        self.states.complain("is_working", complaint)
        self.states.complain("threads", self._all_busy())
        await self._ask_problems(timeout)
        await self._backends.check(timeout)

    async def _ask_problems(self, timeout: float) -> None:
        """Ask the manager what is not well with its own objects, and keep that for the status."""
        assert self.manager is not None  # noqa: S101 - asked of services that are up
        if type(self.manager).problems is Manager.problems:
            return
        complaint = ""
        try:
            self.problems = problem_lines(await self._ask("problems", self.manager.problems, timeout))
        except HookFailed as error:
            complaint = error.message
        except TypeError as error:
            complaint = f"problems of service {self.topic} returned no sentences: {error}"
        self.states.complain("problems", complaint)

    def _progress(self) -> None:
        self.progressed = self._around.host.clock.monotonic()

    async def _ask(self, name: str, hook: Callable[..., Any], timeout: float) -> Any:
        """Call a hook beside the service's work; one that has not come back from the last time is not asked again."""
        label = f"{self.topic}.{name}"
        for row in self._beside.running():
            if row.label == label:
                text = f"{name} of service {self.topic} has not come back for {row.seconds:.0f} s"
                raise HookTimeout(text, hint="see `ostler dump` for where it hangs", service=self.topic, hook=name)
        return await self._call(name, hook, pool=self._beside, timeout=timeout)

    def _all_busy(self) -> str:
        """Return a complaint when requests wait and no thread has become free for a whole `down_time`."""
        for pool in (self.pool, self.short_pool):
            rows, queued = pool.running(waiting=False), pool.queued
            if queued and len(rows) >= pool.size and rows[-1].seconds >= self.options.down_time:
                return f"{queued} requests wait, and all {len(rows)} threads are busy, one with {rows[0].label}"
        return ""

    def _pool_rows(self) -> list[Running]:
        """Return what the threads of requests and hooks do, longest first."""
        return sorted([*self.pool.running(), *self.short_pool.running()], key=lambda row: -row.seconds)

    def _queued(self) -> int:
        return self.pool.queued + self.short_pool.queued

    async def reset(self, spec: ServiceSpec, timeout: float = math.inf) -> list[str]:
        """Take over new options, as far as that goes without a restart, and run the manager's `reset`.

        Args:
            spec: The service as the new configuration wants it.
            timeout: Seconds that `reset` may take; never more than `start_timeout`.

        Returns:
            What went wrong, a line each; the new options are in force all the same. Its drivers get theirs by
            `renew_drivers`.
        """
        if type(spec.options) is not type(self.options):  # another manager: comes with the restart
            return []
        if self.states.state in _ENDED:  # it failed before, which its state says: this reload has done it no harm
            return []
        self.options = options = in_force(self.options, spec.options)
        if self.manager is None or self._backends is None:
            return []
        self.manager.options = options
        self.manager.sections = {
            name: in_force(self.manager.sections.get(name, section), section) for name, section in spec.sections.items()
        }
        problems = []
        try:
            self._around.periodic.respace(self.topic, options)
            await self._reset_manager(self.manager, min(timeout, options.start_timeout))
        except OstlerError as error:
            problems.append(describe(error))
        return problems

    async def renew_drivers(self, spec: ServiceSpec) -> list[str]:
        """Bring new options to its drivers; return what went wrong, a line each. After `reset`."""
        if self._backends is None or type(spec.options) is not type(self.options) or self.states.state in _ENDED:
            return []
        return await self._backends.renew(spec)

    async def _reset_manager(self, manager: Manager, timeout: float) -> None:
        """Run `reset`, beside the service's work and beside one that still hangs: what that waits for may be gone."""
        hanging = self._resets.running()
        if len(hanging) >= _MOST_RESETS:
            text = f"reset of service {self.topic} was not begun: {len(hanging)} earlier ones have not come back"
            hint = "see `ostler dump` for where they hang; restart the daemon if they never come back"
            raise HookTimeout(text, hint=hint, service=self.topic, hook="reset")
        await self._call("reset", manager.reset, pool=self._resets, timeout=timeout)

    def capability_sources(self) -> list[str]:
        """Return the backends that are asked one by one; `[""]` for a manager that answers for all of them at once."""
        if self.manager is not None and type(self.manager).capabilities is not Manager.capabilities:
            return [""]
        return self._backends.taken_over() if self._backends is not None else []

    def withheld(self) -> dict[str, str]:
        """Return the drivers that must not be offered to schedulers now, each with why."""
        return self._backends.withheld() if self._backends is not None else {}

    async def capabilities(self, backend: str = "") -> Any:
        """Return what the manager says of a backend, or of all; waits for as long as that takes.

        Raises:
            HookFailed: It raised.
        """
        assert self.manager is not None  # noqa: S101 - asked of services that are up
        name, arguments = ("backend_capabilities", (backend,)) if backend else ("capabilities", ())
        label = f"{name} {backend}" if backend else name
        hook = getattr(self.manager, name)
        return await call_hook(
            self.topic, label, hook, *arguments, pool=self._asked, timeout=_DAY, defects=self._defects
        )

    def _report_change(self, backend: str, lease: str, released: bool) -> None:
        self._around.host.inbox.post(lambda: self._around.report_change(self.topic, backend, lease, released))

    def status(self) -> ServiceStatus:
        """Return the service as an operator sees it, without what only the table knows (beat, enabled)."""
        return ServiceStatus(
            topic=self.topic,
            host=self._around.host.name,
            manager=self.spec.options.manager,
            state=self.states.state,
            why=f"{self.states.why}, {self.progress}" if self._is_in_progress() else self.states.why,
            since=self.states.since,
            up=self.states.state not in _ENDED,
            required=self.options.required,
            rpc_version=self.spec.manager.cls.rpc_version,
            namespaces=namespace_versions(self.spec.manager.cls),
            in_flight=self._around.host.dispatcher.in_flight(self.topic),
            queued=self._queued(),
            workers=self.pool.size,
            drivers=self.drivers.statuses() if self.drivers is not None else [],
            evidence=self.states.complaints,
            report_interval=self.options.report_interval,
            down_time=self.options.down_time,
            capability_interval=self.options.capability_interval,
        )

    # ---------------------------------------------------------------- stop

    async def drain(self, timeout: float, why: str = "the service is being stopped") -> list[str]:
        """Refuse new work, switch periodic tasks off, and wait for what is in flight.

        Args:
            timeout: Seconds to wait.
            why: What callers are told.

        Returns:
            What was still running at the end, a line each.
        """
        if not self._undo or self.states.state in _ENDED:
            return []
        self.states.enter(ServiceState.DRAINING, why)
        self._around.host.dispatcher.set_draining(self.topic, why)
        self._around.periodic.remove(self.topic)
        self._draining_since = asyncio.get_running_loop().time()
        await self._until_nothing(lambda: self._awaited() if self.draining else [], timeout)
        if self.draining:  # else it was resumed meanwhile
            self._given_up = {(row.thread, row.label) for row in self._pool_rows()}
        return self.unfinished()

    def resume(self) -> None:
        """Take work again after a drain. On the loop.

        Raises:
            Conflict: It is not draining, or its manager was never up.
        """
        # One whose start has failed drains too, at the step where it was, and is about to be taken down.
        if not self.draining or self.manager is None or self.step or self._stopping is not None:
            raise Conflict(
                f"service {self.topic} is {self.states.state}, and only one that is draining can be resumed",
                hint=f"`ostler service start {self.topic}` starts one that has stopped or failed",
                topic=self.topic,
            )
        self._draining_since, self._given_up = math.inf, set()
        self._around.host.dispatcher.set_draining(self.topic, "")
        self._tasks.spawn(self._resume_periodic(self.manager), name=f"resume periodic tasks of {self.topic}")
        self.states.enter(ServiceState.UP)

    async def _resume_periodic(self, manager: Manager) -> None:
        """Begin with the periodic tasks again, once those have ended that the drain found at work: none runs twice."""
        periodic, pause = self._around.periodic, _POLL
        while periodic.running(self.topic):
            await asyncio.sleep(pause)
            pause = min(_POLL_MAX, pause * 1.2)
        if self.running:
            periodic.add(self.topic, manager, self.pool, self.options)

    async def _until_nothing(self, look: Callable[[], list[str]], timeout: float) -> list[str]:
        """Wait until a look finds nothing any more; return what it still finds after `timeout` or in a hurry."""
        loop = asyncio.get_running_loop()
        began, pause = loop.time(), _POLL
        while left := look():
            rest = began + timeout - loop.time()
            if self.hurry or rest <= 0:
                return left
            await asyncio.sleep(min(pause, rest))
            pause = min(_POLL_MAX, pause * 1.2)
        return []

    def _awaited(self) -> list[str]:
        """Return what a drain waits for: all but what is stuck already, and runs that were told and do not listen."""
        stuck = set(self._overdue_hooks)
        if asyncio.get_running_loop().time() - self._draining_since >= _TOLD:
            stuck |= self._around.periodic.late(self.topic)
        return [line for label, line in self._work_rows() if label not in stuck]

    def unfinished(self) -> list[str]:
        """Return what this service is working on, a line each."""
        return [line for _, line in self._work_rows()]

    def _work_rows(self) -> list[tuple[str, str]]:
        """Return what this service is working on: the label of each, and a line."""
        running = self._pool_rows()
        waiting = self._queued()
        others = self._around.host.dispatcher.in_flight(self.topic) - len(running) - waiting
        resets = self._resets.running()
        rows = [(row.label, f"{row.label} on {row.thread} for {row.seconds:.0f} s") for row in [*running, *resets]]
        # What no thread shows: periodic tasks that are `async def`.
        periodic = set(self._around.periodic.running(self.topic)) - {row.label for row in running}
        rows += [(name, f"periodic task {name} of {self.topic}") for name in sorted(periodic)]
        if waiting:
            rows.append(("", f"{waiting} requests of {self.topic} in its queue"))
        if others > 0:
            rows.append(("", f"{others} requests of {self.topic} on the loop"))
        return rows

    async def stop(self, timeout: float, failed: str = "", why: str = "") -> list[str]:
        """Undo what was set up, last first. Safe before, during and after the start, and twice.

        Work in flight is not waited for: see `drain`.

        Args:
            timeout: Seconds for all of it; a part that hangs leaves time for those after it.
            failed: Why the service failed, when that is the reason for the stop.
            why: Why it is stopped, when that is not the end of the daemon; shown with its state.

        Returns:
            What hung, a line each.
        """
        if self._stopping is None:
            # A task of its own: who waits for the stop may be cancelled, the stop itself goes to its end.
            work = self._stop(timeout, failed, why)
            self._stopping = asyncio.get_running_loop().create_task(work, name=f"stop {self.topic}")
        return await asyncio.shield(self._stopping)

    async def _stop(self, timeout: float, failed: str, why: str) -> list[str]:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        hung: list[str] = []
        started = bool(self._undo)
        self._around.host.dispatcher.registry.give_up(self.topic, failed)
        self._around.host.dispatcher.cancel_contexts(self.topic)
        if self._backends is not None:
            self._backends.end_take_over()
            self._backends.drivers.cancel_calls()
        await self._tasks.cancel(_SHORTEST)
        while self._undo:
            what, undo = self._undo.pop()
            self.step = f"stopping {what}"
            try:
                hung += await undo(max(_SHORTEST, until - loop.time()))
            except Exception as error:  # noqa: BLE001 - the rest has to be undone whatever this part does
                self._log.error("stopping %s of service %s failed: %s", what, self.topic, describe(error))
        self.step = ""
        self.states.enter(
            ServiceState.FAILED if failed else ServiceState.STOPPED,
            failed or why or ("" if started else "never started"),
        )
        return hung

    async def _cleanup_host(self, timeout: float) -> list[str]:
        assert self.manager is not None  # noqa: S101 - noted after it was built
        begun = [row.label for row in self.pool.running() if row.label in self._start_hooks()]
        if begun:
            # It may still be setting up what would be taken down here. `_stop_pool` names it.
            self._log.warning("cleanup_host is left out, because %s has not come back", begun[0])
            return []
        # A thread of its own: those of the service may all hang. Half of the time, for the drivers come after it.
        pool = self._cleaning = WorkerPool(f"{self.topic}-cleanup", 1)
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

    async def _stop_periodic(self, _timeout: float) -> list[str]:
        self._around.periodic.remove(self.topic)
        return []

    async def _close_endpoint(self, _timeout: float) -> list[str]:
        self._around.host.dispatcher.registry.remove_endpoint(self.topic)
        return []

    async def _stop_pool(self, timeout: float) -> list[str]:
        self.pool.close()
        self.short_pool.close()
        self._beside.close()
        self._asked.close()
        self._resets.close()
        await self._until_nothing(lambda: self._at_work(awaited=True), timeout)
        return self._at_work()

    def stuck(self) -> list[str]:
        """Return what of a service that is up does not come back: drivers that are stuck, hooks, a line each."""
        rows = [*self.pool.running(), *self._beside.running(), *self._resets.running()]
        hooks = [f"{row.label} (for {row.seconds:.0f} s)" for row in rows if row.label in self._overdue_hooks]
        drivers = self.drivers.statuses() if self.drivers is not None else []
        return hooks + [f"driver {each.name} ({each.why})" for each in drivers if each.state is DriverState.STUCK]

    def left_behind(self) -> list[str]:
        """Return what of a service that has ended still hangs in its threads and those of its drivers, a line each."""
        drivers = self.drivers.under_way() if self.drivers is not None else []
        rows = self._cleaning.running() if self._cleaning is not None else []
        return [*self._at_work(), *(f"{row.label} for {row.seconds:.0f} s" for row in rows), *drivers]

    def _at_work(self, *, awaited: bool = False) -> list[str]:
        """Return what the threads do; if `awaited`, without what has been waited for before, or is stuck already."""
        rows = [*self._pool_rows(), *self._beside.running(), *self._asked.running(), *self._resets.running()]
        if awaited:
            known = self._overdue_hooks
            rows = [row for row in rows if row.label not in known and (row.thread, row.label) not in self._given_up]
        return [f"{row.label} on {row.thread} for {row.seconds:.0f} s" for row in rows]
