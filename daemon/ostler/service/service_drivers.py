"""The drivers of one service, as the service sees them: created, handed to the manager, checked, renewed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ostler import log
from ostler.driver import Driver, DriverEnvironment, Drivers, DriverSpec
from ostler.errors import Busy, DriverError, error_line, join_words
from ostler.log.defects import UnexpectedErrors
from ostler.service.hook_calls import HookFailed
from ostler.service.service_spec import ServiceContext, ServiceSpec
from ostler.service.state_tracker import StateTracker
from ostler.types import BreakerState, DriverState, DriverStatus

if TYPE_CHECKING:
    from ostler.plugins import ResolvedObject

_UNAVAILABLE_STATES = (DriverState.FAILED, DriverState.STUCK, DriverState.STOPPED)
_MIN_CLEANUP_TIME = 5.0
"""The least seconds for `cleanup` of a driver that is removed."""
_PENDING_POLL_INTERVAL = 1.0
DriverReadyHook = Callable[[str], Awaitable[Any]]
"""Runs the manager's `driver_ready` for a driver; raises HookFailed."""


class ServiceDrivers:
    """Manages the drivers of one service, and reports problems with them in its state. On the loop.

    Args:
        spec: The specification of the service.
        context: The context that all services share.
        state_tracker: The state of the service.
        spawn: Starts a task of the service.
    """

    def __init__(
        self,
        spec: ServiceSpec,
        context: ServiceContext,
        state_tracker: StateTracker,
        spawn: Callable[[Any, str], asyncio.Task[Any]],
    ) -> None:
        self._topic = spec.topic
        self._host = context.host
        self._state_notifier = context.state_notifier
        self._metrics = context.metrics
        self._state_tracker = state_tracker
        self._spawn = spawn
        self._driver_ready_hook: DriverReadyHook | None = None
        self._handover_begun: set[str] = set()
        self._checks: dict[str, asyncio.Task[Any]] = {}
        self._handover_done: set[str] = set()
        """The drivers that the manager has taken over."""
        self._problems: dict[str, dict[str, str]] = {}
        """The problems of each ready driver, by the check that found them."""
        self._on_offer_changed = context.on_offer_changed
        self._handover_locks: dict[str, asyncio.Lock] = {name: asyncio.Lock() for name in spec.drivers}
        self._log = logging.getLogger(f"ostler.service.{spec.topic}")
        self._defects = UnexpectedErrors(self._log, topic=spec.topic)
        self.refused_options: dict[str, str] = {}
        """Why new options that were applied after long work did not work, by the name of the driver."""
        self.drivers = Drivers(
            self._driver_specs(spec),
            asyncio.get_running_loop(),
            context.host.clock,
            on_change=self._on_status_change,
            on_ready=self._on_driver_ready,
        )

    def _driver_specs(self, spec: ServiceSpec) -> dict[str, DriverSpec]:
        return {name: self.driver_spec(spec, name) for name in spec.drivers}

    def driver_spec(self, spec: ServiceSpec, name: str) -> DriverSpec:
        """Return the specification of one driver of a service."""
        loaded, options = spec.drivers[name]
        return DriverSpec(
            name=name,
            cls=loaded.cls,
            options=options,
            environment=self._make_environment(name, options),
            build=loaded.build,
            contract=spec.manager.cls.driver_type or Driver,
            path=_import_path(loaded),
            wrap_remote=loaded.wrap_remote,
        )

    def _make_environment(self, name: str, options: Any) -> DriverEnvironment:
        logger = logging.getLogger(f"ostler.driver.{self._topic}.{name}")
        return DriverEnvironment(
            name=name,
            topic=self._topic,
            host=self._host.name,
            options=options,
            clock=self._host.clock,
            log=log.adapter(logger, service=self._topic, driver=name),
            kv=self._host.store.kv(f"driver/{self._topic}/{name}"),
            make_metrics=partial(self._metrics.metrics_of, self._topic, name),
        )

    async def start(self, wait: float) -> None:
        """Start initialising all drivers, and wait up to `wait` seconds for their first attempts."""
        await self.drivers.start()
        await self.drivers.wait(wait, retries=False)

    async def begin_handover(self, driver_ready_hook: DriverReadyHook) -> None:
        """Hand every ready driver to the manager, and from now on each that becomes ready.

        Returns when those that are ready now have been taken over, concurrently.
        """
        self._driver_ready_hook = driver_ready_hook
        # Concurrently: a backend that hangs must not delay the others, nor the start by the sum of the limits.
        await asyncio.gather(*(self._hand_over(name) for name in self.drivers.ready()))

    def end_handover(self) -> None:
        """Stop handing drivers to the manager: it is about to be stopped."""
        self._driver_ready_hook = None

    def usable_drivers(self) -> list[str]:
        """Return the drivers that are ready and that the manager has taken over, without problems."""
        return [name for name in self.drivers.ready() if name in self._handover_done and not self._problems.get(name)]

    def withheld_drivers(self) -> dict[str, str]:
        """Return the drivers that must not be offered to schedulers now, each with why.

        One that is initialising is not among them: a reload creates it again, and its callers wait for it.
        """
        found = {}
        for status in self.drivers.statuses():
            if status.state in _UNAVAILABLE_STATES:
                found[status.name] = f"the driver is {status.state}{': ' * bool(status.why)}{status.why}"
            elif status.breaker is BreakerState.OPEN:
                # Half open it is on offer again: only a call can show that it works.
                found[status.name] = f"its calls are refused: {status.failures} in a row have failed"
            elif troubles := self._problems.get(status.name):
                found[status.name] = "; ".join(troubles.values())
        return found

    def _set_problem(self, about: str, name: str, why: str) -> None:
        troubles = self._problems.setdefault(name, {})
        if why:
            troubles[about] = why
        else:
            troubles.pop(about, None)
        self._state_tracker.set_problem(f"{about} {name}", why)
        self._on_offer_changed(self._topic)

    async def _hand_over(self, name: str) -> None:
        # One at a time for each driver: it may be initialised again while the manager still takes it over.
        async with self._handover_locks[name]:
            if self._driver_ready_hook is None or name in self._handover_begun or name not in self.drivers.ready():
                return
            self._handover_begun.add(name)
            try:
                await self._driver_ready_hook(name)
            except HookFailed as error:
                # A failed take-over concerns this backend only. It is retried with the next check.
                self._handover_begun.discard(name)
                self._set_problem("driver_ready", name, f"driver {name}: {error.message}")
            else:
                self._handover_done.add(name)
                self._set_problem("driver_ready", name, "")

    def _on_status_change(self, name: str, status: DriverStatus) -> None:
        if name not in self.drivers:  # removed: its last states are still being told
            return
        self._state_notifier.notify_driver(self._topic, status)
        well = status.state in (DriverState.READY, DriverState.STOPPED)
        if not well:
            # The result of an earlier check or take-over no longer matters; the state of the driver does.
            self._set_problem("working", name, "")
            self._set_problem("driver_ready", name, "")
        self._state_tracker.set_problem(
            f"driver {name}", "" if well else f"driver {name} is {status.state}: {status.why}"
        )
        self._update_failing(name)
        if status.state in (DriverState.FAILED, DriverState.INITIALISING):
            self._handover_begun.discard(name)
            self._handover_done.discard(name)
        self._on_offer_changed(self._topic)

    def _update_failing(self, name: str) -> None:
        """Show that all calls of a driver fail; it stays on offer, or no call could show that it works again.

        Unless they are refused: then a trial is let through when the wait is over.
        """
        self._state_tracker.set_problem(f"failing {name}", self.drivers.problems().get(name, ""))

    def _on_driver_ready(self, name: str) -> None:
        # Before `init_host` has run the start itself hands over what is ready.
        if self._driver_ready_hook is not None:
            self._spawn(self._hand_over(name), f"driver_ready {name}")

    async def check(self, timeout: float) -> None:
        """Ask all ready drivers, concurrently, whether they can work; hand over again what was not taken over.

        Args:
            timeout: Seconds to wait for them; one that has not returned is awaited in the background, and is not asked
                again.
        """
        for name in self.drivers.ready():
            self._update_failing(name)  # its last error may be another, or long ago
            running = self._checks.get(name)
            if running is None or running.done():
                self._checks[name] = self._spawn(self._check(name), f"is_working of driver {name}")
        if waiting := [task for task in self._checks.values() if not task.done()]:
            await asyncio.wait(waiting, timeout=timeout)

    async def _check(self, name: str) -> None:
        complaint = ""
        try:
            if await self.drivers.call(name, "is_working") is False:
                complaint = f"driver {name}: is_working returned False"
        except Busy:
            return  # all its threads are busy, each within its budget: no answer, but not a problem
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is its answer
            complaint = f"driver {name}: {error_line(error)}"
            self._defects.log_error(f"is_working of driver {name} of {self._topic}", error)
        else:
            self._defects.clear(f"is_working of driver {name} of {self._topic}")
        if self.drivers.status(name).state is DriverState.READY:
            self._set_problem("working", name, complaint)
        await self._hand_over(name)

    # ---------------------------------------------------------------- changes while the service runs

    async def add(self, spec: DriverSpec) -> None:
        """Add a driver, and have the manager take it over.

        Raises:
            DriverError: Its first attempt has failed or hangs, or the manager refuses it. It is there nevertheless; the
                caller removes it.
        """
        name = spec.name
        self._handover_locks[name] = asyncio.Lock()
        await self._raise_unless_adopted(await self.drivers.add(spec))

    async def remove(self, name: str, drain_time: float) -> list[str]:
        """Drain and stop a driver, and forget it; return what hangs, a line each.

        Args:
            name: The driver; no effect if there is none of that name.
            drain_time: Seconds for its calls in progress.
        """
        if name not in self.drivers:
            return []
        self._handover_done.discard(name)
        self._on_offer_changed(self._topic)  # no new work is placed there, while it drains
        lines = self.drivers.calls_in_progress(name)
        hung = await self.drivers.remove(name, drain_time, _MIN_CLEANUP_TIME)
        if (check := self._checks.pop(name, None)) is not None:
            check.cancel()
        self._handover_begun.discard(name)
        self._handover_locks.pop(name, None)
        self._problems.pop(name, None)
        self.refused_options.pop(name, None)
        for about in ("driver", "working", "driver_ready", "failing"):
            self._state_tracker.set_problem(f"{about} {name}", "")
        self._metrics.remove(self._topic, name)
        self._on_offer_changed(self._topic)
        what = f"driver {name} of service {self._topic}"
        return [f"{what} hangs: {join_words(lines) or 'cleanup'}"] if hung else []

    async def renew(self, spec: DriverSpec, *, goes_back: bool = True) -> str:
        """Create a driver again by another specification; return a problem that it had before as well, if any.

        The driver is created again as soon as no call is in progress in it. Long calls are not awaited here: `pending`
        in the status says so.

        Args:
            spec: The new specification.
            goes_back: Whether a driver that fails with it after long work goes back to what it was.

        Raises:
            DriverError: It worked before, and does not with the new specification; the caller restores it.
        """
        name = spec.name
        self.refused_options.pop(name, None)
        before, was_ready = self.drivers.spec(name), self.drivers.status(name).state is DriverState.READY
        status = await self.drivers.reinitialise(name, spec=spec)
        if status.pending:
            if was_ready and goes_back:
                self._spawn(self._watch_pending(name, before), f"new options of driver {name}")
            return ""
        if was_ready:
            await self._raise_unless_adopted(status)
            return ""
        return self._failure(status)

    async def restore(self, spec: DriverSpec) -> None:
        """Have a driver run by an earlier specification again.

        Raises:
            DriverError: It does not work with that now either.
        """
        status = await self.drivers.restore(spec)
        if not status.pending:
            await self._raise_unless_adopted(status)

    async def _watch_pending(self, name: str, before: DriverSpec) -> None:
        """Go back to the earlier specification when new options, applied after long work, turn out not to work."""
        # Polled: nothing is told of the end of pending options, and they may wait for hours.
        while name in self.drivers and self._is_pending(name):  # noqa: ASYNC110
            await asyncio.sleep(_PENDING_POLL_INTERVAL)
        if name not in self.drivers:
            return
        failure = self._failure(self.drivers.status(name))
        if not failure or self.drivers.spec(name) is before:
            return
        self._log.error("%s; it goes back to its earlier options", failure)
        self.refused_options[name] = failure
        try:
            await self.restore(before)
        except DriverError as error:
            self._log.error("driver %s could not go back to its earlier options: %s", name, error_line(error))

    def _is_pending(self, name: str) -> bool:
        status = self.drivers.status(name)
        return bool(status.pending) or status.state is DriverState.INITIALISING

    async def _raise_unless_adopted(self, status: DriverStatus) -> None:
        if failure := self._failure(status):
            raise DriverError(failure, driver=status.name)
        await self._hand_over(status.name)
        if why := self._problems.get(status.name, {}).get("driver_ready"):
            raise DriverError(why, driver=status.name)

    def _failure(self, status: DriverStatus) -> str:
        if status.state is DriverState.FAILED:
            return f"driver {status.name} of service {self._topic} has failed: {status.why}"
        if status.state is DriverState.STUCK:
            return f"driver {status.name} of service {self._topic} is stuck: {status.why}"
        return ""

    def pending_options(self) -> list[str]:
        """Return what new options of drivers wait for, a line each."""
        return [f"driver {one.name} of {self._topic} {one.pending}" for one in self.drivers.statuses() if one.pending]

    def driver_names(self) -> list[str]:
        """Return the names of the drivers."""
        return list(self.drivers)

    async def stop(self, timeout: float) -> list[str]:
        """Tear all drivers down within `timeout` seconds; return those that hang, a line each."""
        return [f"driver {name} of service {self._topic}" for name in await self.drivers.stop(timeout)]


def _import_path(loaded: ResolvedObject) -> str:
    """Return what a process of its own imports to create the driver: `package.module:Name`; empty if nothing can be."""
    if loaded.kind == "object":  # that of the daemon cannot be anywhere else
        return ""
    value = loaded.value.build if loaded.kind == "module" else loaded.value
    return f"{value.__module__}:{value.__qualname__}" if hasattr(value, "__qualname__") else ""
