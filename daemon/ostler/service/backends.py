"""The drivers of one service, as the service sees them: built, taken over by the manager, checked, renewed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ostler import log
from ostler.config.changes import in_force
from ostler.driver import Driver, DriverEnvironment, DriverOptions, Drivers, DriverSpec
from ostler.errors import Busy, DriverError, describe
from ostler.log.defects import Defects
from ostler.service.hooks import HookFailed
from ostler.service.spec import ServiceSpec, Surroundings, differing
from ostler.service.states import StateKeeper
from ostler.types import DriverState, DriverStatus

_OUT = (DriverState.FAILED, DriverState.STUCK, DriverState.STOPPED)
TakeOver = Callable[[str], Awaitable[Any]]
"""Runs the manager's `driver_ready` for a driver; raises HookFailed."""


class Backends:
    """Looks after the drivers of one service, and says in its state what is not well with them. On the loop.

    Args:
        spec: What the service is made from.
        around: What all services share.
        states: The state of the service.
        spawn: Starts a task of the service.
    """

    def __init__(
        self,
        spec: ServiceSpec,
        around: Surroundings,
        states: StateKeeper,
        spawn: Callable[[Any, str], asyncio.Task[Any]],
    ) -> None:
        self._topic = spec.topic
        self._host = around.host
        self._events = around.events
        self._states = states
        self._spawn = spawn
        self._take_over: TakeOver | None = None
        self._taken_over: set[str] = set()
        self._checks: dict[str, asyncio.Task[Any]] = {}
        self._handed_over: set[str] = set()
        """Those that the manager has done taking over."""
        self._troubles: dict[str, dict[str, str]] = {}
        """What is not well with each driver, though it is ready: by what was asked."""
        self._offer_changed = around.offer_changed
        self._turns: dict[str, asyncio.Lock] = {name: asyncio.Lock() for name in spec.drivers}
        self._log = logging.getLogger(f"ostler.service.{spec.topic}")
        self._defects = Defects(self._log, topic=spec.topic)
        self.drivers = Drivers(
            self._specs(spec),
            asyncio.get_running_loop(),
            around.host.clock,
            on_change=self._changed,
            on_ready=self._became_ready,
        )

    def _specs(self, spec: ServiceSpec) -> dict[str, DriverSpec]:
        contract = spec.manager.cls.driver_type or Driver
        return {
            name: DriverSpec(
                name=name,
                cls=loaded.cls,
                options=options,
                environment=self._environment(name, options),
                build=loaded.build,
                contract=contract,
            )
            for name, (loaded, options) in spec.drivers.items()
        }

    def _environment(self, name: str, options: Any) -> DriverEnvironment:
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
        """Begin to initialise all drivers, and wait up to `wait` seconds for their first tries."""
        await self.drivers.start()
        await self.drivers.wait(wait, retries=False)

    async def begin_take_over(self, take_over: TakeOver) -> None:
        """Have the manager take over every driver that is ready, and from now on each that becomes ready.

        Returns when it has taken over those that are ready now, side by side.
        """
        self._take_over = take_over
        # Side by side: a backend that hangs in it must not hold up the others, nor the start for the sum of the limits.
        await asyncio.gather(*(self._offer(name) for name in self.drivers.ready()))

    def end_take_over(self) -> None:
        """Offer no more drivers to the manager: it is about to be taken down."""
        self._take_over = None

    def taken_over(self) -> list[str]:
        """Return the drivers that are ready and that the manager has taken over, with nothing against them."""
        return [name for name in self.drivers.ready() if name in self._handed_over and not self._troubles.get(name)]

    def withheld(self) -> dict[str, str]:
        """Return the drivers that must not be offered to schedulers now, each with why.

        One that is being initialised is not among them: for a reload it is built anew, and its callers wait for it.
        """
        found = {}
        for status in self.drivers.statuses():
            if status.state in _OUT:
                found[status.name] = f"the driver is {status.state}{': ' * bool(status.why)}{status.why}"
            elif troubles := self._troubles.get(status.name):
                found[status.name] = "; ".join(troubles.values())
        return found

    def _complain(self, about: str, name: str, why: str) -> None:
        troubles = self._troubles.setdefault(name, {})
        if why:
            troubles[about] = why
        else:
            troubles.pop(about, None)
        self._states.complain(f"{about} {name}", why)
        self._offer_changed(self._topic)

    async def _offer(self, name: str) -> None:
        # One at a time for each driver: it may be initialised anew while the manager still takes it over.
        async with self._turns[name]:
            if self._take_over is None or name in self._taken_over or name not in self.drivers.ready():
                return
            self._taken_over.add(name)
            try:
                await self._take_over(name)
            except HookFailed as error:
                # A backend that cannot be taken over is this backend's trouble. It is tried again with the next check.
                self._taken_over.discard(name)
                self._complain("driver_ready", name, f"driver {name}: {error.message}")
            else:
                self._handed_over.add(name)
                self._complain("driver_ready", name, "")

    def _changed(self, name: str, status: DriverStatus) -> None:
        self._events.driver(self._topic, status)
        well = status.state in (DriverState.READY, DriverState.STOPPED)
        if not well:
            # What an earlier check or take-over said is no news any more; the state of the driver is.
            self._complain("working", name, "")
            self._complain("driver_ready", name, "")
        self._states.complain(f"driver {name}", "" if well else f"driver {name} is {status.state}: {status.why}")
        if status.state in (DriverState.FAILED, DriverState.INITIALISING):
            self._taken_over.discard(name)
            self._handed_over.discard(name)
        self._offer_changed(self._topic)

    def _became_ready(self, name: str) -> None:
        # Before `init_host` has run the start itself offers what is ready.
        if self._take_over is not None:
            self._spawn(self._offer(name), f"driver_ready {name}")

    async def check(self, timeout: float) -> None:
        """Ask all drivers that are ready, side by side, whether they can work; offer again what was not taken over.

        Args:
            timeout: Seconds to wait for them; one that has not come back is waited for beside, and not asked again.
        """
        for name in self.drivers.ready():
            running = self._checks.get(name)
            if running is None or running.done():
                self._checks[name] = self._spawn(self._check(name), f"is_working of driver {name}")
        if waiting := [task for task in self._checks.values() if not task.done()]:
            await asyncio.wait(waiting, timeout=timeout)

    async def _check(self, name: str) -> None:
        complaint = ""
        try:
            if await self.drivers.call(name, "is_working") is False:
                complaint = f"driver {name}: is_working says no"
        except Busy:
            return  # all its threads work, each within its budget: no answer, and no bad sign
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is its answer
            complaint = f"driver {name}: {describe(error)}"
            self._defects.tell(f"is_working of driver {name} of {self._topic}", error)
        else:
            self._defects.worked(f"is_working of driver {name} of {self._topic}")
        if self.drivers.status(name).state is DriverState.READY:
            self._complain("working", name, complaint)
        await self._offer(name)

    async def renew(self, spec: ServiceSpec) -> list[str]:
        """Bring new options to the drivers, side by side; return what went wrong, a line each.

        Live options are taken over as they are. Where one has changed that the driver must be built anew for, it is, as
        soon as nothing is under way in it; that it fails with them is a problem. What does not end soon is not waited
        for here: `pending` in the status says so, and the options come by themselves.
        """
        found = await asyncio.gather(*(self._renew(name, wanted) for name, (_, wanted) in spec.drivers.items()))
        return [problem for problem in found if problem]

    async def _renew(self, name: str, wanted: DriverOptions) -> str:
        if name not in self.drivers:  # new: comes with the restart
            return ""
        running = self.drivers.options(name)
        options = in_force(running, wanted)
        try:
            if "driver" in differing(running, options):
                status = await self.drivers.reinitialise(name, options)
                if status.state is DriverState.FAILED:
                    return f"driver {name} of service {self._topic} is failed: {status.why}"
                return ""
            self.drivers.withdraw_options(name)
            if options != running:
                self.drivers.take_options(name, options)
        except DriverError as error:
            return describe(error)
        return ""

    def pending(self) -> list[str]:
        """Return what new options of drivers wait for, a line each."""
        return [f"driver {one.name} of {self._topic} {one.pending}" for one in self.drivers.statuses() if one.pending]

    async def stop(self, timeout: float) -> list[str]:
        """Tear all drivers down within `timeout` seconds; return those that hang, a line each."""
        return [f"driver {name} of service {self._topic}" for name in await self.drivers.stop(timeout)]
