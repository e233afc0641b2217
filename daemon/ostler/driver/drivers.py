"""The drivers of one service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import typing_extensions

from ostler.aio import LoopQueue
from ostler.bounds import NAME_LIMIT, safe_str
from ostler.clock import Clock
from ostler.driver.driver import Driver, DriverOptions, DriverSpec, with_options
from ostler.driver.driver_executor import resolve_future
from ostler.driver.driver_runner import RENEWAL_TIMEOUT, DriverRunner
from ostler.driver.proxy import DriverProxy
from ostler.errors import Conflict, DriverError, DriverNotFound
from ostler.types import DriverState, DriverStatus

DriverT = typing_extensions.TypeVar("DriverT", bound=Driver, default=Any)


class Drivers(Mapping[str, DriverT]):
    """The drivers of one service: name to a proxy whose methods run in the driver's own threads.

    `drivers["local"].create("v1", size)` runs `create` in a thread of `local` and waits for it, from any thread but the
    loop's; there it is `await drivers.call("local", "create", "v1", size)`. Either way:

    - `DriverNotReady` at once while the driver is initialising, waits for its next attempt, or has been stopped;
    - `DriverStuck` when the call outlives its time budget (`@time_budget`, else the option `call_timeout`). The call
      continues in its thread; until it returns the driver is stuck and refuses further calls at once;
    - `Busy` when no thread of the driver became free within the budget;
    - any other error is the driver's own. SystemExit and similar arrive as `DriverError`.

    The budget starts again with each `Context.progress` of the request that is being served. While a driver is
    initialised again for a reload, calls wait for it instead of failing. When one call outlives its budget, all that
    wait for this driver get `DriverStuck` at once, except those whose work continues to report progress.

    A thread of a pool that waits for a driver is replaced in its pool (`ostler.aio.waiting_for`), so that a driver
    that hangs, or works for hours, takes no thread from callers of other drivers.

    Args:
        specs: Name to specification.
        loop: The daemon's loop.
        clock: The source of time.
        on_change: Called with each change of a driver's state, on the loop.
        on_ready: Called each time a driver has become ready, on the loop; also after it was stuck.
        rng: For the jitter of retries.
    """

    def __init__(
        self,
        specs: Mapping[str, DriverSpec],
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        *,
        on_change: Callable[[str, DriverStatus], None] | None = None,
        on_ready: Callable[[str], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._loop = loop
        self._on_change = on_change
        self._on_ready = on_ready
        self._waiters: list[asyncio.Future[None]] = []
        self._is_started = False
        self._inbox = LoopQueue(loop)
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing
        # Both are replaced and never changed: other threads iterate over them.
        self._runners = {name: self._make_runner(spec) for name, spec in specs.items()}
        self._proxies = self._make_proxies({})

    def _make_runner(self, spec: DriverSpec) -> DriverRunner:
        name = spec.name
        on_change, on_ready = partial(self._status_changed, name), partial(self._driver_became_ready, name)
        return DriverRunner(spec, self._loop, self._inbox, self._clock, self._rng, on_change, on_ready)

    def _make_proxies(self, before: Mapping[str, DriverProxy]) -> dict[str, DriverProxy]:
        return {
            name: before.get(name) or DriverProxy(runner, partial(self._call, runner))
            for name, runner in self._runners.items()
        }

    def __getitem__(self, name: str) -> DriverT:
        try:
            return cast("DriverT", self._proxies[name])  # has the methods of the driver
        except KeyError:
            raise self._not_found(name) from None

    def _get_runner(self, name: str) -> DriverRunner:
        try:
            return self._runners[name]
        except KeyError:
            raise self._not_found(name) from None

    def _not_found(self, name: object) -> DriverNotFound:
        """Return the error for an unknown name, which may be any value."""
        known = ", ".join(self._runners) or "none"
        return DriverNotFound(
            f"driver {safe_str(name, NAME_LIMIT)} not found", hint=f"available: {known}", driver=safe_str(name)
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._proxies)

    def __len__(self) -> int:
        return len(self._proxies)

    def ready(self) -> list[str]:
        """Return the names of the drivers that are ready, in the order of the configuration. Any thread."""
        return [name for name, runner in self._runners.items() if runner.is_ready]

    def status(self, name: str) -> DriverStatus:
        """Return the status of a driver. Any thread.

        Raises:
            DriverNotFound: There is no such driver.
        """
        return self._get_runner(name).status()

    def statuses(self) -> list[DriverStatus]:
        """Return the status of every driver, in the order of the configuration. Any thread."""
        return [runner.status() for runner in self._runners.values()]

    def problems(self) -> dict[str, str]:
        """Return a line for each ready driver whose calls all fail, by its name. Any thread."""
        return {name: line for name, runner in self._runners.items() if (line := runner.problem())}

    def calls_in_progress(self, name: str = "") -> list[str]:
        """Return the calls that have not returned, of one driver or of all, after a stop as well. Any thread."""
        runners = [self._get_runner(name)] if name else self._runners.values()
        return [line for runner in runners for line in runner.calls_in_progress()]

    def options(self, name: str) -> DriverOptions:
        """Return the options that a driver runs with. Any thread.

        Raises:
            DriverNotFound: There is no such driver.
        """
        return self._get_runner(name).spec.options

    def apply_options(self, name: str, options: DriverOptions) -> None:
        """Apply other options without creating the driver again: replaces `self.options` of the driver.

        Raises:
            DriverNotFound: There is no such driver.
        """
        self._get_runner(name).apply_options(options)

    async def start(self) -> None:
        """Start initialising every driver, each in its own threads, and return at once."""
        if self._is_started:
            return
        self._is_started = True
        for runner in self._runners.values():
            runner.start()

    async def wait(self, timeout: float, *, retries: bool = True) -> list[str]:
        """Wait up to `timeout` for every driver to be ready; return the names of those that are not.

        Does not wait for those that a retry cannot help, such as a class that violates its contract.

        Args:
            timeout: How long.
            retries: Whether to wait for those whose first attempt has failed.
        """
        until = self._loop.time() + timeout
        while self._should_wait(retries) and (left := until - self._loop.time()) > 0:
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
            TypeError: That attribute is not a method.
            DriverError: See above.
        """
        runner = self._get_runner(name)
        if not callable(getattr(self._proxies[name], method)):
            raise TypeError(f"{method!r} of {runner.label} is not a method")
        return await runner.call_async(method, arguments, named)

    async def reinitialise(
        self,
        name: str,
        options: DriverOptions | None = None,
        *,
        spec: DriverSpec | None = None,
        timeout: float = RENEWAL_TIMEOUT,
    ) -> DriverStatus:
        """Clean up a driver and create it again, with other options or the same, when none of its calls is in progress.

        The status is returned after the first attempt to initialise it. When its calls do not end within `timeout`
        seconds, `pending` of the status says what the options wait for; they are applied automatically afterwards. New
        calls are delayed only briefly.

        Args:
            name: The driver.
            options: Its new options; they replace pending ones. None for the current ones.
            spec: Its new specification, instead of options: another class may be in it.
            timeout: Seconds to wait for calls in progress.

        Raises:
            DriverNotFound: There is no such driver.
            DriverNotReady: It has been stopped.
        """
        runner = self._get_runner(name)
        wanted = spec or (runner.spec if options is None else with_options(runner.spec, options))
        return await runner.reinitialise(wanted, timeout)

    def spec(self, name: str) -> DriverSpec:
        """Return the specification by which a driver runs. Any thread.

        Raises:
            DriverNotFound: There is no such driver.
        """
        return self._get_runner(name).spec

    async def add(self, spec: DriverSpec) -> DriverStatus:
        """Add a driver while the others run; return its status after the first attempt to initialise it. On the loop.

        Raises:
            Conflict: There is one of that name.
        """
        if spec.name in self._runners:
            raise Conflict(f"driver {spec.name} exists already", driver=spec.name)
        runner = self._make_runner(spec)
        self._runners = {**self._runners, spec.name: runner}
        self._proxies = self._make_proxies(self._proxies)
        runner.start()
        while runner.state is DriverState.INITIALISING and spec.name in self._runners:
            changed: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(changed)
            await changed
        return runner.status()

    async def remove(self, name: str, drain_time: float, deadline: float) -> bool:
        """Stop one driver and forget it; return whether something of it hangs. On the loop.

        New calls are refused at once. Calls in progress have time to end, `cleanup` follows.

        Args:
            name: The driver.
            drain_time: Seconds for calls in progress.
            deadline: Further seconds for `cleanup`.

        Raises:
            DriverNotFound: There is no such driver.
        """
        runner = self._get_runner(name)
        # A stop waits for calls in progress for half of its time.
        hung = await runner.stop(self._loop.time() + 2 * max(drain_time, deadline))
        self._runners = {other: each for other, each in self._runners.items() if other != name}
        self._proxies = {other: each for other, each in self._proxies.items() if other != name}
        self._status_changed(name, runner.status())
        return hung

    async def restore(self, spec: DriverSpec) -> DriverStatus:
        """Run a driver by an earlier specification again, as `reinitialise`; a hanging `initialise` is abandoned.

        Raises:
            DriverNotFound: There is no such driver.
        """
        runner = self._get_runner(spec.name)
        if runner.hangs_in_initialise():
            return await runner.abandon(spec)
        return await self.reinitialise(spec.name, spec=spec)

    async def abandon(self, name: str) -> DriverStatus:
        """Give a stuck driver up, with the threads that hang in it, and create another instance. On the loop.

        The status is returned after the first attempt to initialise it.

        Raises:
            DriverNotFound: There is no such driver.
            Conflict: It is not stuck, or too many earlier instances still hang.
        """
        return await self._get_runner(name).abandon()

    def discard_pending_options(self, name: str) -> None:
        """Drop pending options of a driver: the current ones are wanted again. On the loop."""
        self._runners[name].discard_pending_options()

    def cancel_calls(self) -> None:
        """Cancel the contexts of the calls in progress. Any thread."""
        for runner in self._runners.values():
            runner.cancel_calls()

    async def stop(self, deadline: float) -> list[str]:
        """Stop every driver within `deadline` seconds; return the names of those that hang.

        `cleanup` runs for every driver that was created, also when its `initialise` had failed. A hanging call keeps
        its daemon thread and delays nothing else; stuck calls are not awaited. Safe before `start` and more than once.
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
            f"{method} of {runner.label} was called on the event loop, which must not block",
            hint=f'write `await drivers.call("{runner.spec.name}", "{method}", …)` in an `async def`',
            driver=runner.spec.name,
            method=method,
        )

    def _should_wait(self, retries: bool) -> bool:
        return any(self._can_become_ready(runner.status(), retries) for runner in self._runners.values())

    @staticmethod
    def _can_become_ready(status: DriverStatus, retries: bool) -> bool:
        if status.state is DriverState.FAILED:
            return retries and status.retry_at > 0
        return status.state is not DriverState.READY

    def _status_changed(self, name: str, status: DriverStatus) -> None:
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            resolve_future(future)
        if self._on_change is not None:
            self._on_change(name, status)

    def _driver_became_ready(self, name: str) -> None:
        if self._on_ready is not None:
            self._on_ready(name)
