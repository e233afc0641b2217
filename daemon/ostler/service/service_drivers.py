"""The drivers of one service, as the service sees them: created, handed to the manager, checked, renewed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ostler import log
from ostler.config.configuration_diff import effective_options
from ostler.driver import Driver, DriverEnvironment, DriverOptions, Drivers, DriverSpec
from ostler.errors import Busy, DriverError, error_line
from ostler.log.defects import UnexpectedErrors
from ostler.service.hook_calls import HookFailed
from ostler.service.service_spec import ServiceContext, ServiceSpec, required_reload_scopes
from ostler.service.state_tracker import StateTracker
from ostler.types import DriverState, DriverStatus

if TYPE_CHECKING:
    from ostler.plugins import ResolvedObject

_UNAVAILABLE_STATES = (DriverState.FAILED, DriverState.STUCK, DriverState.STOPPED)
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
        self.drivers = Drivers(
            self._driver_specs(spec),
            asyncio.get_running_loop(),
            context.host.clock,
            on_change=self._on_status_change,
            on_ready=self._on_driver_ready,
        )

    def _driver_specs(self, spec: ServiceSpec) -> dict[str, DriverSpec]:
        contract = spec.manager.cls.driver_type or Driver
        return {
            name: DriverSpec(
                name=name,
                cls=loaded.cls,
                options=options,
                environment=self._make_environment(name, options),
                build=loaded.build,
                contract=contract,
                path=_import_path(loaded),
            )
            for name, (loaded, options) in spec.drivers.items()
        }

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
        """Show that all calls of a driver fail; it stays on offer, or no call could show that it works again."""
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

    async def apply_options(self, spec: ServiceSpec) -> list[str]:
        """Apply new options to the drivers, concurrently; return what went wrong, a line each.

        Live options are applied directly. When another option has changed, the driver is created again as soon as no
        call is in progress in it; a failure with the new options is a problem. Long calls are not awaited here:
        `pending` in the status says so, and the options are applied automatically afterwards.
        """
        found = await asyncio.gather(
            *(self._apply_driver_options(name, wanted) for name, (_, wanted) in spec.drivers.items())
        )
        return [problem for problem in found if problem]

    async def _apply_driver_options(self, name: str, wanted: DriverOptions) -> str:
        if name not in self.drivers:  # new: created with the restart
            return ""
        running = self.drivers.options(name)
        options = effective_options(running, wanted)
        try:
            if "driver" in required_reload_scopes(running, options):
                status = await self.drivers.reinitialise(name, options)
                if status.state is DriverState.FAILED:
                    return f"driver {name} of service {self._topic} has failed: {status.why}"
                return ""
            self.drivers.discard_pending_options(name)
            if options != running:
                self.drivers.apply_options(name, options)
        except DriverError as error:
            return error_line(error)
        return ""

    def pending_options(self) -> list[str]:
        """Return what new options of drivers wait for, a line each."""
        return [f"driver {one.name} of {self._topic} {one.pending}" for one in self.drivers.statuses() if one.pending]

    async def stop(self, timeout: float) -> list[str]:
        """Tear all drivers down within `timeout` seconds; return those that hang, a line each."""
        return [f"driver {name} of service {self._topic}" for name in await self.drivers.stop(timeout)]


def _import_path(loaded: ResolvedObject) -> str:
    """Return what a process of its own imports to create the driver: `package.module:Name`; empty if nothing can be."""
    if loaded.kind == "object":  # that of the daemon cannot be anywhere else
        return ""
    value = loaded.value.build if loaded.kind == "module" else loaded.value
    return f"{value.__module__}:{value.__qualname__}" if hasattr(value, "__qualname__") else ""
