"""The drivers of one service, as the service sees them: built, taken over by the manager, checked, renewed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ostler import log
from ostler.config.changes import in_force
from ostler.driver import Driver, DriverEnvironment, Drivers, DriverSpec
from ostler.errors import Busy, DriverError, describe
from ostler.log.defects import Defects
from ostler.service.hooks import HookFailed
from ostler.service.spec import ServiceSpec, Surroundings, differing
from ostler.service.states import StateKeeper
from ostler.types import DriverState, DriverStatus

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
        self, spec: ServiceSpec, around: Surroundings, states: StateKeeper, spawn: Callable[[Any, str], object]
    ) -> None:
        self._topic = spec.topic
        self._host = around.host
        self._states = states
        self._spawn = spawn
        self._take_over: TakeOver | None = None
        self._taken_over: set[str] = set()
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
        """Have the manager take over every driver that is ready, and from now on each that becomes ready."""
        self._take_over = take_over
        for name in self.drivers.ready():
            await self._offer(name)

    def end_take_over(self) -> None:
        """Offer no more drivers to the manager: it is about to be taken down."""
        self._take_over = None

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
                self._states.complain(f"driver_ready {name}", f"driver {name}: {error.message}")
            else:
                self._states.complain(f"driver_ready {name}", "")

    def _changed(self, name: str, status: DriverStatus) -> None:
        well = status.state in (DriverState.READY, DriverState.STOPPED)
        if not well:
            # What an earlier check or take-over said is no news any more; the state of the driver is.
            self._states.complain(f"working {name}", "")
            self._states.complain(f"driver_ready {name}", "")
        self._states.complain(f"driver {name}", "" if well else f"driver {name} is {status.state}: {status.why}")
        if status.state in (DriverState.FAILED, DriverState.INITIALISING):
            self._taken_over.discard(name)

    def _became_ready(self, name: str) -> None:
        # Before `init_host` has run the start itself offers what is ready.
        if self._take_over is not None:
            self._spawn(self._offer(name), f"driver_ready {name}")

    async def check(self) -> None:
        """Ask all drivers that are ready, side by side, whether they can work; offer again what was not taken over."""
        await asyncio.gather(*(self._check(name) for name in self.drivers.ready()))

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
            self._states.complain(f"working {name}", complaint)
        await self._offer(name)

    async def renew(self, spec: ServiceSpec) -> list[str]:
        """Bring new options to the drivers; return what went wrong, a line each.

        Live options are taken over as they are. Where one has changed that the driver must be built anew for, it is,
        and that it fails with them is a problem. A driver that could not be renewed is tried again at the next reload,
        because what is compared is what the driver runs with.
        """
        problems = []
        for name, (_, wanted) in spec.drivers.items():
            if name not in self.drivers:  # new: comes with the restart
                continue
            running = self.drivers.options(name)
            options = in_force(running, wanted)
            try:
                if "driver" in differing(running, options):
                    status = await self.drivers.reinitialise(name, options)
                    if status.state is DriverState.FAILED:
                        problems.append(f"driver {name} of service {self._topic} is failed: {status.why}")
                elif options != running:
                    self.drivers.take_options(name, options)
            except DriverError as error:
                problems.append(describe(error))
        return problems

    async def stop(self, timeout: float) -> list[str]:
        """Tear all drivers down within `timeout` seconds; return those that hang, a line each."""
        return [f"driver {name} of service {self._topic}" for name in await self.drivers.stop(timeout)]
