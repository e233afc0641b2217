"""A loop on which a day passes in a moment.

`VirtualTimeLoop` is an ordinary selector loop, except that its time stands still while something can run and jumps to
the next timer when nothing can. Work in a `WorkerPool` counts as something that runs; work that has not moved for a
moment of real time counts as hung, and time goes on without it, so that time budgets can be tested.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable
from typing import Any, TypeVar

from ostler.aio import Worker

T = TypeVar("T")
_SLICE = 0.001


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer as soon as nothing is left to do.

    Args:
        start: What `time()` says at first, in seconds.
        patience: For how many real seconds work in a thread may run before it counts as hung and time goes on.
        nudge: The same for work that has counted as hung before; it may have been woken by the last timer.
    """

    def __init__(self, start: float = 1000.0, patience: float = 0.5, nudge: float = 0.01) -> None:
        self._now = start
        self._patience = patience
        self._nudge = nudge
        self._hung: frozenset[Hashable] = frozenset()
        self._probes: list[Callable[[], Iterable[Hashable]]] = []
        self._real = selectors.DefaultSelector()
        super().__init__(_Selector(self._real, self._pass_time))

    def time(self) -> float:
        """Return virtual seconds. Any thread."""
        return self._now

    def watch(self, probe: Callable[[], Iterable[Hashable]]) -> None:
        """Have time stand still for other work too: `probe` returns one token for each piece of it under way."""
        self._probes.append(probe)

    def _pass_time(self, timeout: float) -> list[Any]:
        """Wait for work in threads to end, then jump by `timeout`; return events that came instead."""
        if events := self._settle():
            return events
        self._now += timeout
        return []

    def _settle(self) -> list[Any]:
        begun = time.monotonic()
        while tokens := self._tokens():
            patience = self._nudge if tokens <= self._hung else self._patience
            if time.monotonic() - begun >= patience:
                self._hung = tokens
                return []
            if events := self._real.select(_SLICE):
                return events
        self._hung = frozenset()
        # The last piece of work has woken the loop before it vanished from the tokens.
        return self._real.select(0)

    def _tokens(self) -> frozenset[Hashable]:
        pools = {thread.pool for thread in threading.enumerate() if isinstance(thread, Worker)}
        tokens: set[Hashable] = {(id(pool), number) for pool in pools for number in pool.in_flight()}
        for probe in self._probes:
            tokens.update(probe())
        return frozenset(tokens)


class VirtualClock:
    """A clock that follows a virtual loop; it has the interface of `ostler.clock.Clock`.

    Args:
        loop: The loop whose time it shows.
        wall: Seconds since 1970 at this moment.
        boot_id: The id of the boot it pretends to be in.
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
        """Return the id it was made with."""
        return self._boot_id

    def set_wall(self, wall: float) -> None:
        """Set the wall clock alone, as an administrator or NTP would."""
        self._wall_offset = wall - self._loop.time()


def run_virtual(work: Coroutine[Any, Any, T], *, patience: float = 0.5) -> T:
    """Run a coroutine to its end on a virtual loop of its own and return its result."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience=patience)) as runner:
        return runner.run(work)


def virtual_clock() -> VirtualClock:
    """Return a clock for the running virtual loop.

    Raises:
        TypeError: The running loop is not a virtual one.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise TypeError("this runs on an ordinary loop; start it with `run_virtual`")
    return VirtualClock(loop)


class _Selector(selectors.BaseSelector):
    """The loop's selector: hands a wait for the next timer to `pass_time`, everything else to the real one."""

    def __init__(self, real: selectors.BaseSelector, pass_time: Callable[[float], list[Any]]) -> None:
        self._real = real
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout <= 0:
            return self._real.select(timeout)
        return self._real.select(0) or self._pass_time(timeout)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._real.get_map()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def close(self) -> None:
        self._real.close()
