"""One service: a manager on a topic, from its start to its stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ostler import log
from ostler.aio import TaskOwner, WorkerPool
from ostler.driver import Driver, DriverEnvironment, DriverOptions, Drivers, DriverSpec
from ostler.errors import describe
from ostler.manager import Manager, ManagerEnvironment, ManagerOptions
from ostler.messaging import Endpoint
from ostler.service.hooks import HookFailed, call_hook
from ostler.service.spec import ServiceSpec, Surroundings
from ostler.service.states import StateKeeper
from ostler.types import DriverState, DriverStatus, ServiceState, ServiceStatus

_log = logging.getLogger(__name__)
_POLL = 0.02
"""Seconds between looks at work in flight while draining; threads end without telling the loop."""


class Service:
    """One manager on one topic: builds it, opens its endpoint, runs its hooks, takes it down in the mirrored order.

    Whatever has been set up is noted with what undoes it, so that `stop` is right at every point of the start, and
    before it. All methods are called on the loop.

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
        self.drivers: Drivers | None = None
        self.pool = WorkerPool(spec.topic, spec.options.workers, spec.options.queue_limit)
        self.states = StateKeeper(around.host.clock, lambda: on_change(self))
        self.step = "waiting"
        self.hurry = False
        self.registered = False
        self.progressed = around.host.clock.monotonic()
        self._around = around
        self._log = log.adapter(logging.getLogger(f"ostler.service.{spec.topic}"), service=spec.topic)
        self._tasks = TaskOwner(f"service {spec.topic}")
        self._undo: list[tuple[str, Callable[[float], Awaitable[list[str]]]]] = []
        self._taken_over: set[str] = set()
        self._host_initialised = False
        self._stopping: asyncio.Task[list[str]] | None = None

    # ---------------------------------------------------------------- start

    async def start(self) -> None:
        """Run the whole start (DESIGN 5). When it fails the caller stops the service; nothing is undone here.

        Raises:
            ServiceError: The manager could not be built, or one of its hooks failed.
            StoreError: The record could not be written.
        """
        self.states.enter(ServiceState.STARTING, "registering")
        registration = await self._at("registering", self._register())
        manager = await self._at("building its manager", self._build())
        await self._at("waiting for its drivers", self._start_drivers())
        self._note("cleanup_host", self._cleanup_host)
        await self._hook("init_host", manager.init_host, registration.id, registration.added_to_cluster)
        self._host_initialised = True
        await self._take_over_drivers()
        await self._hook("pre_start_hook", manager.pre_start_hook)
        self._open_endpoint(manager)
        await self._hook("init_host_with_rpc", manager.init_host_with_rpc)
        await self._hook("post_start_hook", manager.post_start_hook)
        self._around.periodic.add(self.topic, manager, self.pool, self.options)
        self._note("periodic tasks", self._stop_periodic)
        self.step = ""
        self.states.enter(ServiceState.UP)

    async def _at(self, step: str, work: Awaitable[Any]) -> Any:
        self.step = step
        self.states.enter(ServiceState.STARTING, step)
        return await work

    async def _hook(self, name: str, hook: Callable[..., Any], *args: Any) -> Any:
        work = call_hook(self.topic, name, hook, *args, pool=self.pool, timeout=self.options.start_timeout)
        return await self._at(name, work)

    async def _register(self) -> Any:
        records, spec = self._around.records, self.spec
        self._note("threads", self._stop_pool)
        version = spec.manager.cls.rpc_version
        registration = await self._around.host.store.awrite(
            lambda: records.register(self.topic, spec.options.manager, version), label=f"register {self.topic}"
        )
        self.registered = True
        return registration

    async def _build(self) -> Manager:
        self.drivers = self._make_drivers()
        environment = ManagerEnvironment(
            topic=self.topic,
            host=self._around.host.name,
            options=self.options,
            drivers=self.drivers,
            store=self._around.host.store,
            client=self._around.host.client.for_topic(self.topic),
            clock=self._around.host.clock,
            log=self._log,
            extensions=self.spec.extensions,
            sections=self.spec.sections,
        )
        build = self.spec.manager.build
        timeout = self.options.start_timeout
        self.manager = await call_hook(self.topic, "__init__", build, environment, pool=self.pool, timeout=timeout)
        assert self.manager is not None  # noqa: S101 - `build` returns a manager or raises
        return self.manager

    def _make_drivers(self) -> Drivers:
        contract = self.spec.manager.cls.driver_type or Driver
        specs = {
            name: DriverSpec(
                name=name,
                cls=loaded.cls,
                options=options,
                environment=self._driver_environment(name, options),
                build=loaded.build,
                contract=contract,
            )
            for name, (loaded, options) in self.spec.drivers.items()
        }
        return Drivers(
            specs,
            asyncio.get_running_loop(),
            self._around.host.clock,
            on_change=self._driver_changed,
            on_ready=self._driver_became_ready,
        )

    def _driver_environment(self, name: str, options: Any) -> DriverEnvironment:
        return DriverEnvironment(
            name=name,
            topic=self.topic,
            host=self._around.host.name,
            options=options,
            clock=self._around.host.clock,
            log=log.adapter(logging.getLogger(f"ostler.driver.{self.topic}.{name}"), service=self.topic, driver=name),
            kv=self._around.host.store.kv(f"driver/{self.topic}/{name}"),
        )

    async def _start_drivers(self) -> None:
        assert self.drivers is not None  # noqa: S101 - built in the step before
        self._note("drivers", self._stop_drivers)
        await self.drivers.start()
        await self.drivers.wait(self.options.driver_wait, retries=False)

    async def _take_over_drivers(self) -> None:
        assert self.drivers is not None  # noqa: S101 - built two steps before
        for name in self.drivers.ready():
            await self._take_over(name)

    async def _take_over(self, name: str) -> None:
        if self.manager is None or name in self._taken_over:
            return
        self._taken_over.add(name)
        try:
            await call_hook(
                self.topic, "driver_ready", self.manager.driver_ready, name,
                pool=self.pool, timeout=self.options.start_timeout,
            )  # fmt: skip
        except HookFailed as error:
            # A backend that cannot be taken over is this backend's trouble; the others go on.
            self._log.error("%s", error, extra={"driver": name})
            self.states.complain(f"driver_ready {name}", f"driver {name}: {error}")
        else:
            self.states.complain(f"driver_ready {name}", "")

    def _driver_changed(self, name: str, status: DriverStatus) -> None:
        well = status.state in (DriverState.READY, DriverState.STOPPED)
        self.states.complain(f"driver {name}", "" if well else f"driver {name} is {status.state}: {status.why}")
        if status.state in (DriverState.FAILED, DriverState.INITIALISING):
            self._taken_over.discard(name)

    def _driver_became_ready(self, name: str) -> None:
        # Before `init_host` has run the start itself takes over what is ready.
        if self._host_initialised:
            self._tasks.spawn(self._take_over(name), name=f"driver_ready {name}")

    def _open_endpoint(self, manager: Manager) -> None:
        self._around.host.dispatcher.add_endpoint(
            Endpoint(self.topic, self._around.host.name, manager, self.pool, manager.rpc_version)
        )
        self._note("endpoint", self._close_endpoint)

    def _note(self, what: str, undo: Callable[[float], Awaitable[list[str]]]) -> None:
        self._undo.append((what, undo))

    # ---------------------------------------------------------------- while it is up

    async def check_health(self) -> None:
        """Ask the manager and its ready drivers whether they can work, and keep what they say."""
        if self.manager is None or self.states.state not in (ServiceState.UP, ServiceState.DEGRADED):
            return
        timeout = max(1.0, self.options.down_time - self.options.report_interval)
        complaint = ""
        try:
            answer = await call_hook(self.topic, "is_working", self.manager.is_working, pool=self.pool, timeout=timeout)
            if answer is False:
                complaint = "is_working says no"
        except HookFailed as error:
            complaint = str(error)
        self.states.complain("is_working", complaint)
        await self._check_drivers()
        self.progressed = self._around.host.clock.monotonic()

    async def _check_drivers(self) -> None:
        assert self.drivers is not None  # noqa: S101 - a service that is up has been built
        for name in self.drivers.ready():
            complaint = ""
            try:
                if await self.drivers.call(name, "is_working") is False:
                    complaint = f"driver {name}: is_working says no"
            except Exception as error:  # noqa: BLE001 - whatever a driver raises is its answer
                complaint = f"driver {name}: {describe(error)}"
            self.states.complain(f"working {name}", complaint)

    async def reset(self, spec: ServiceSpec) -> None:
        """Take over new options and run the manager's `reset`.

        Raises:
            ServiceError: `reset` failed; the new options stay in force.
        """
        self.options = options = spec.options
        if self.manager is None:
            return
        self.manager.options, self.manager.sections = options, spec.sections
        self._around.periodic.respace(self.topic, options)
        await call_hook(self.topic, "reset", self.manager.reset, pool=self.pool, timeout=options.start_timeout)

    async def renew_driver(self, name: str, options: DriverOptions) -> None:
        """Tear a driver down and build it anew with other options; how it does then is in its status."""
        if self.drivers is not None and name in self.drivers:
            self._taken_over.discard(name)
            await self.drivers.reinitialise(name, options)

    async def capabilities(self) -> Any:
        """Return what the manager offers to schedulers."""
        assert self.manager is not None  # noqa: S101 - asked of services that are up
        timeout = self.options.down_time
        return await call_hook(self.topic, "capabilities", self.manager.capabilities, pool=self.pool, timeout=timeout)

    def status(self) -> ServiceStatus:
        """Return the service as an operator sees it, without what only the table knows (beat, enabled)."""
        return ServiceStatus(
            topic=self.topic,
            host=self._around.host.name,
            manager=self.spec.options.manager,
            state=self.states.state,
            why=self.states.why,
            since=self.states.since,
            up=self.states.state in (ServiceState.UP, ServiceState.DEGRADED, ServiceState.DRAINING),
            required=self.options.required,
            rpc_version=self.spec.manager.cls.rpc_version,
            in_flight=self._around.host.dispatcher.in_flight(self.topic),
            queued=self.pool.queued,
            workers=self.options.workers,
            drivers=self.drivers.statuses() if self.drivers is not None else [],
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
        self.states.enter(ServiceState.DRAINING, why)
        self._around.host.dispatcher.set_draining(self.topic, why)
        self._around.periodic.remove(self.topic)
        until = self._around.host.clock.monotonic() + timeout
        while left := self.unfinished():
            if self.hurry or self._around.host.clock.monotonic() >= until:
                return left
            await asyncio.sleep(_POLL)
        return []

    def unfinished(self) -> list[str]:
        """Return what this service is working on, a line each."""
        running = self.pool.running()
        rows = [f"{row.label} on {row.thread} for {row.seconds:.0f} s" for row in running]
        waiting = self.pool.queued
        others = self._around.host.dispatcher.in_flight(self.topic) - len(rows) - waiting
        # What no thread shows: periodic tasks that are `async def`.
        periodic = set(self._around.periodic.running(self.topic)) - {row.label for row in running}
        rows += [f"periodic task {name} of {self.topic}" for name in sorted(periodic)]
        if waiting:
            rows.append(f"{waiting} requests of {self.topic} in its queue")
        if others > 0:
            rows.append(f"{others} requests of {self.topic} on the loop")
        return rows

    async def stop(self, timeout: float, failed: str = "") -> list[str]:
        """Undo what was set up, last first. Safe before, during and after the start, and twice.

        Args:
            timeout: Seconds for each part that may hang.
            failed: Why the service failed, when that is the reason for the stop.

        Returns:
            What hung, a line each.
        """
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop(timeout, failed))
        return await asyncio.shield(self._stopping)

    async def _stop(self, timeout: float, failed: str) -> list[str]:
        hung: list[str] = []
        started = bool(self._undo)
        while self._undo:
            what, undo = self._undo.pop()
            try:
                hung += await undo(timeout)
            except Exception as error:  # noqa: BLE001 - the rest has to be undone whatever this part does
                self._log.error("stopping %s of service %s failed: %s", what, self.topic, describe(error))
        await self._tasks.cancel()
        self.states.enter(
            ServiceState.FAILED if failed else ServiceState.STOPPED, failed or ("" if started else "never started")
        )
        return hung

    async def _stop_drivers(self, timeout: float) -> list[str]:
        assert self.drivers is not None  # noqa: S101 - noted after they were made
        return [f"driver {name} of service {self.topic}" for name in await self.drivers.stop(timeout)]

    async def _cleanup_host(self, timeout: float) -> list[str]:
        assert self.manager is not None  # noqa: S101 - noted after it was built
        try:
            await call_hook(self.topic, "cleanup_host", self.manager.cleanup_host, pool=self.pool, timeout=timeout)
        except HookFailed as error:
            self._log.error("%s", error)
            return [str(error)] if isinstance(error.__cause__, TimeoutError) else []
        return []

    async def _stop_periodic(self, _timeout: float) -> list[str]:
        self._around.periodic.remove(self.topic)
        return []

    async def _close_endpoint(self, _timeout: float) -> list[str]:
        self._around.host.dispatcher.remove_endpoint(self.topic)
        return []

    async def _stop_pool(self, timeout: float) -> list[str]:
        self.pool.close()
        until = self._around.host.clock.monotonic() + timeout
        while True:
            rows = self.pool.running()
            if not rows or self.hurry or self._around.host.clock.monotonic() >= until:
                break
            await asyncio.sleep(_POLL)
        return [f"{row.label} on {row.thread} for {row.seconds:.0f} s" for row in rows]
