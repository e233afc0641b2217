"""The drivers of one service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ostler.aio import Inbox
from ostler.bounds import NAME_LIMIT, text_of
from ostler.clock import Clock
from ostler.driver.base import DriverOptions, DriverSpec
from ostler.driver.lane import wake
from ostler.driver.proxy import DriverProxy
from ostler.driver.runner import RENEWAL_PATIENCE, DriverRunner
from ostler.errors import DriverError, DriverNotFound
from ostler.types import DriverState, DriverStatus


class Drivers(Mapping[str, Any]):
    """The drivers of one service: name to a proxy whose methods run in the driver's own threads.

    `drivers["local"].create("v1", size)` runs `create` in a thread of `local` and waits for it, from any thread but the
    loop's; there it is `await drivers.call("local", "create", "v1", size)`. Either way:

    - `DriverNotReady` at once while the driver is initialising, waits for its next try, or has been stopped;
    - `DriverStuck` when the call outlives its time budget (`@time_budget`, else the option `call_timeout`). The call
      goes on in its thread; until it comes back the driver is stuck and refuses further calls at once;
    - `Busy` when no thread of the driver became free within the budget;
    - any other error is the driver's own. SystemExit and its like arrive as `DriverError`.

    The budget starts anew with each `Context.progress` of the request that is being served. While a driver is
    initialised anew for a reload, calls wait for it instead of failing. When one call outlives its budget, all that
    wait for this driver get `DriverStuck` at once, but for those whose work goes on to report progress.

    A thread of a pool that waits for a driver is replaced in its pool (`ostler.aio.waiting_for`), so that a driver
    which hangs, or works for hours, takes no thread from those who call others.

    Args:
        specs: Name to what is run.
        loop: The daemon's loop.
        clock: The source of time.
        on_change: Told each change of a driver's state, on the loop.
        on_ready: Told each time a driver has become ready, on the loop; also when it comes back from stuck.
        chance: For the jitter of retries.
    """

    def __init__(
        self,
        specs: Mapping[str, DriverSpec],
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        *,
        on_change: Callable[[str, DriverStatus], None] | None = None,
        on_ready: Callable[[str], None] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._loop = loop
        self._on_change = on_change
        self._on_ready = on_ready
        self._waiters: list[asyncio.Future[None]] = []
        self._started = False
        inbox = Inbox(loop)
        chance = chance or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._runners = {
            name: DriverRunner(
                spec, loop, inbox, clock, chance, partial(self._changed, name), partial(self._became_ready, name)
            )
            for name, spec in specs.items()
        }
        self._proxies = {
            name: DriverProxy(runner, partial(self._call, runner)) for name, runner in self._runners.items()
        }

    def __getitem__(self, name: str) -> Any:
        try:
            return self._proxies[name]
        except KeyError:
            raise self._no_driver(name) from None

    def _runner(self, name: str) -> DriverRunner:
        try:
            return self._runners[name]
        except KeyError:
            raise self._no_driver(name) from None

    def _no_driver(self, name: object) -> DriverNotFound:
        """Return the error for a name that somebody gave: it may be anything."""
        known = ", ".join(self._runners) or "none"
        return DriverNotFound(
            f"there is no driver {text_of(name, NAME_LIMIT)}", hint=f"the drivers are: {known}", driver=text_of(name)
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._proxies)

    def __len__(self) -> int:
        return len(self._proxies)

    def ready(self) -> list[str]:
        """Return the names of the drivers that are ready, in the order of the configuration. Any thread."""
        return [name for name, runner in self._runners.items() if runner.state is DriverState.READY]

    def status(self, name: str) -> DriverStatus:
        """Return the status of a driver. Any thread.

        Raises:
            DriverNotFound: There is no such driver.
        """
        return self._runner(name).status()

    def statuses(self) -> list[DriverStatus]:
        """Return the status of every driver, in the order of the configuration. Any thread."""
        return [runner.status() for runner in self._runners.values()]

    def troubles(self) -> list[str]:
        """Return a line for each ready driver whose calls all fail. Any thread."""
        return [line for runner in self._runners.values() if (line := runner.trouble())]

    def under_way(self) -> list[str]:
        """Return the calls that have not come back, a line each, after a stop as well. Any thread."""
        return [line for runner in self._runners.values() for line in runner.under_way()]

    def options(self, name: str) -> DriverOptions:
        """Return the options that a driver runs with. Any thread.

        Raises:
            DriverNotFound: There is no such driver.
        """
        return self._runner(name).spec.options

    def take_options(self, name: str, options: DriverOptions) -> None:
        """Put other options in force without building the driver anew: `self.options` of the driver is another then.

        Raises:
            DriverNotFound: There is no such driver.
        """
        self._runner(name).take_options(options)

    async def start(self) -> None:
        """Begin to initialise every driver, each in its own threads, and return at once."""
        if self._started:
            return
        self._started = True
        for runner in self._runners.values():
            runner.start()

    async def wait(self, seconds: float, *, retries: bool = True) -> list[str]:
        """Wait up to `seconds` for every driver to be ready; return the names of those that are not.

        Not waited for are those that no further try can help, as a class that breaks its contract.

        Args:
            seconds: How long.
            retries: Whether one whose first try has failed is waited for as well.
        """
        until = self._loop.time() + seconds
        while self._worth_waiting(retries) and (left := until - self._loop.time()) > 0:
            changed: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(changed)
            await asyncio.wait([changed], timeout=left)
        return [name for name, runner in self._runners.items() if runner.state is not DriverState.READY]

    async def call(self, name: str, method: str, /, *arguments: Any, **named: Any) -> Any:
        """Call a method of a driver from the loop, with the semantics described above.

        A cancelled wait leaves the call in its thread; its budget is watched on.

        Raises:
            DriverNotFound: There is no such driver.
            AttributeError: It has no such method.
            TypeError: That attribute is no method.
            DriverError: See above.
        """
        runner = self._runner(name)
        if not callable(getattr(self._proxies[name], method)):
            raise TypeError(f"{method!r} of {runner.names} is no method")
        return await runner.call_async(method, arguments, named)

    async def reinitialise(
        self, name: str, options: DriverOptions | None = None, *, patience: float = RENEWAL_PATIENCE
    ) -> DriverStatus:
        """Tear a driver down and build it anew, with other options or the same, when none of its calls is under way.

        The status is returned after the first try to initialise it. When its calls do not end within `patience`
        seconds, `pending` of the status says for what the options wait; they are taken over by themselves then. New
        calls wait no longer than a moment for that. Of the new options all but `workers` count: the threads stay.

        Args:
            name: The driver.
            options: Its new options; others that wait already are forgotten. None for those it runs with.
            patience: Seconds to wait for calls under way.

        Raises:
            DriverNotFound: There is no such driver.
            DriverNotReady: It has been stopped.
        """
        return await self._runner(name).reinitialise(options, patience)

    def withdraw_options(self, name: str) -> None:
        """Forget new options that wait for the calls of a driver: those it runs with are wanted again. On the loop."""
        self._runners[name].withdraw_options()

    def cancel_calls(self) -> None:
        """Tell the calls under way, by their contexts, that they are not wanted any more. Any thread."""
        for runner in self._runners.values():
            runner.cancel_calls()

    async def stop(self, deadline: float) -> list[str]:
        """Tear every driver down within `deadline` seconds; return the names of those that hang.

        `cleanup` runs for every driver that was built, also when its `initialise` had failed. What hangs keeps its
        daemon thread and holds nobody up; what is stuck already is not waited for. Safe before `start` and more than
        once.
        """
        until = self._loop.time() + deadline
        hung = await asyncio.gather(*(runner.stop(until) for runner in self._runners.values()))
        return [name for name, hangs in zip(self._runners, hung, strict=True) if hangs]

    def _call(self, runner: DriverRunner, method: str, /, *arguments: Any, **named: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return runner.call(method, arguments, named)
        raise DriverError(
            f"{method} of {runner.names} was called on the loop, which must not wait",
            hint=f'write `await drivers.call("{runner.spec.name}", "{method}", …)` in an `async def`',
            driver=runner.spec.name,
            method=method,
        )

    def _worth_waiting(self, retries: bool) -> bool:
        return any(self._may_become_ready(runner.status(), retries) for runner in self._runners.values())

    @staticmethod
    def _may_become_ready(status: DriverStatus, retries: bool) -> bool:
        if status.state is DriverState.FAILED:
            return retries and status.retry_at > 0
        return status.state is not DriverState.READY

    def _changed(self, name: str, status: DriverStatus) -> None:
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            wake(future)
        if self._on_change is not None:
            self._on_change(name, status)

    def _became_ready(self, name: str) -> None:
        if self._on_ready is not None:
            self._on_ready(name)
