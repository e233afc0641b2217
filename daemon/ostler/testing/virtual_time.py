"""An event loop with virtual time.

`VirtualTimeLoop` is an ordinary selector loop, except that its time stops while something can run and jumps to the next
timer otherwise. Work in a `WorkerPool` counts as running, unless it was there before the loop, and so does work in an
executor of this loop (`asyncio.to_thread`); work that has made no progress for a moment of real time counts as hung,
and time continues without it, so that time budgets can be tested.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable
from typing import Any, TypeVar, TypeVarTuple, Unpack

from ostler.aio import Worker

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
_POLL_INTERVAL = 0.001


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer as soon as it is idle.

    Args:
        start: The initial value of `time()`, in seconds.
        stall_timeout: Real seconds that work in a thread may run before it counts as hung and time continues.
        stalled_recheck: The same for work that has counted as hung before; the last timer may have woken it.
    """

    def __init__(self, start: float = 1000.0, stall_timeout: float = 0.5, stalled_recheck: float = 0.01) -> None:
        self._now = start
        self._stall_timeout = stall_timeout
        self._stalled_recheck = stalled_recheck
        self._stalled: frozenset[Hashable] = frozenset()
        self._earlier_work: frozenset[Hashable] = frozenset()
        self._executor_work: set[asyncio.Future[Any]] = set()
        self._probes: list[Callable[[], Iterable[Hashable]]] = [lambda: self._executor_work]
        self._slow_probes: list[tuple[Callable[[], Iterable[Hashable]], float]] = []
        self._stalled_slow: frozenset[Hashable] = frozenset()
        self._real_selector = selectors.DefaultSelector()
        # Other loops had work when this one was made, and may have left some that never ends (a test of a hung driver):
        # waiting for it would take real time at each jump, ten thousand times over.
        self._earlier_work = self._work_in_progress()
        super().__init__(_VirtualTimeSelector(self._real_selector, self._advance_time))

    def time(self) -> float:
        """Return the virtual time in seconds. Any thread."""
        return self._now

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Arguments]], T], *args: *Arguments
    ) -> asyncio.Future[T]:
        """Do what the loop's own method does; time stops for the work."""
        future = super().run_in_executor(executor, func, *args)
        self._executor_work.add(future)
        future.add_done_callback(self._executor_work.discard)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads of the default executor: in real time, of which a virtual time-out says nothing."""
        await super().shutdown_default_executor()

    def watch(self, probe: Callable[[], Iterable[Hashable]]) -> None:
        """Stop time for other work too: `probe` returns a token for each piece of work in progress."""
        self._probes.append(probe)

    def watch_slow(self, probe: Callable[[], Iterable[Hashable]], timeout: float) -> None:
        """As `watch`, for work of other processes, which may take `timeout` real seconds before it counts as hung."""
        self._slow_probes.append((probe, timeout))

    def _advance_time(self, timeout: float | None) -> list[Any]:
        """Wait for work in threads to end, then jump by `timeout`; return events that came instead.

        Args:
            timeout: Seconds to the next timer; None without one.
        """
        if timeout is None:
            return self._real_selector.select(None)
        if events := self._wait_for_work():
            return events
        self._now += timeout
        return []

    def _wait_for_work(self) -> list[Any]:
        begun = time.monotonic()
        while self._has_slow_work(time.monotonic() - begun):
            if events := self._real_selector.select(_POLL_INTERVAL):
                return events
        begun = time.monotonic()  # a thread that waited for that work has had no time of its own yet
        while tokens := self._work_in_progress():
            patience = self._stalled_recheck if tokens <= self._stalled else self._stall_timeout
            if time.monotonic() - begun >= patience:
                self._stalled = tokens
                break
            if events := self._real_selector.select(_POLL_INTERVAL):
                return events
        else:
            self._stalled = frozenset()
        # A piece of work wakes the loop before it disappears from the tokens: also where only what hangs is left.
        return self._real_selector.select(0)

    def _has_slow_work(self, waited: float) -> bool:
        """Return whether to wait longer for work of other processes; what has hung before is not waited for."""
        current: set[Hashable] = set()
        for probe, timeout in self._slow_probes:
            tokens = frozenset(probe())
            current |= tokens
            if waited >= timeout:
                self._stalled_slow |= tokens
        self._stalled_slow &= current
        return bool(current - self._stalled_slow)

    def _work_in_progress(self) -> frozenset[Hashable]:
        # A token holds its pool: the identity of one that has gone could be that of a new one.
        pools = {thread.pool for thread in threading.enumerate() if isinstance(thread, Worker)}
        tokens: set[Hashable] = {(pool, number) for pool in pools for number in pool.in_flight_numbers()}
        for probe in self._probes:
            tokens.update(probe())
        return frozenset(tokens) - self._earlier_work


class VirtualClock:
    """A clock that follows a virtual loop; it has the interface of `ostler.clock.Clock`.

    Args:
        loop: The loop whose time it shows.
        wall: Seconds since 1970 at this moment.
        boot_id: The simulated boot id.
    """

    def __init__(self, loop: VirtualTimeLoop, wall: float = 1_800_000_000.0, boot_id: str = "virtual-boot") -> None:
        self._loop = loop
        self._wall_offset = wall - loop.time()
        self._boot_id = boot_id

    def wall(self) -> float:
        """Return seconds since 1970."""
        return self._wall_offset + self._loop.time()

    def monotonic(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def boot(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def boot_id(self) -> str:
        """Return the simulated boot id."""
        return self._boot_id

    def set_wall(self, wall: float) -> None:
        """Set only the wall clock, as an administrator or NTP would."""
        self._wall_offset = wall - self._loop.time()


def run_virtual(work: Coroutine[Any, Any, T], *, stall_timeout: float = 0.5) -> T:
    """Run a coroutine to completion on a new virtual loop and return its result."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(stall_timeout=stall_timeout)) as runner:
        return runner.run(work)


def virtual_clock() -> VirtualClock:
    """Return a clock for the running virtual loop.

    Raises:
        TypeError: The running loop is not a virtual one.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise TypeError("the running loop is not a virtual one; start it with `run_virtual`")
    return VirtualClock(loop)


class _VirtualTimeSelector(selectors.BaseSelector):
    """The loop's selector: delegates waits to `pass_time`, everything else to the real one."""

    def __init__(self, real: selectors.BaseSelector, pass_time: Callable[[float | None], list[Any]]) -> None:
        self._real_selector = real
        self._advance_time = pass_time

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is not None and timeout <= 0:
            return self._real_selector.select(timeout)
        return self._real_selector.select(0) or self._advance_time(timeout)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real_selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real_selector.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real_selector.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._real_selector.get_map()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real_selector.get_key(fileobj)

    def close(self) -> None:
        self._real_selector.close()
