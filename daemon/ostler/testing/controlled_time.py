"""An event loop whose time moves when a test says so, for `ostler.testing.host(virtual_time=True)`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ostler.testing.virtual_time import VirtualTimeLoop

_STALL_TIMEOUT = 0.25
"""Real seconds that work in a thread may take before time continues without it."""


class ControlledTimeLoop(VirtualTimeLoop):
    """A loop with virtual time that stands still until it is told to pass, with three exceptions.

    It passes:

    - during `pass_time`, by the seconds of that;
    - inside `free_running`, for starts and stops, which wait for nothing but themselves;
    - while a caller waits for an answer that nothing but time can bring, such as the end of a driver's time budget.

    In these it jumps from timer to timer, whenever all work in threads has ended or hangs.
    """

    def __init__(self) -> None:
        super().__init__(stall_timeout=_STALL_TIMEOUT)
        self._until = math.inf
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._is_awaited: Callable[[], bool] = lambda: False

    def set_awaited(self, is_awaited: Callable[[], bool]) -> None:
        """Set what says whether a caller waits for an answer. On the loop."""
        self._is_awaited = is_awaited

    @contextmanager
    def free_running(self) -> Iterator[None]:
        """Let time pass as fast as it can inside the block; it stands still afterwards. On the loop."""
        self._until = math.inf
        try:
            yield
        finally:
            self._until = self.time()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, run all that becomes due, and wait for what that has started.

        Args:
            seconds: How far time moves; 0 waits only for what is in progress.
        """
        self._until = self.time() + seconds
        try:
            await asyncio.sleep(seconds)
            await self.wait_until(lambda: True)
        finally:
            self._until = self.time()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until all work has ended or hangs and `condition` is true; time passes until then."""
        done = self.create_future()
        self._waiters.append((condition, done))
        await done

    def _advance_time(self, timeout: float | None) -> list[Any]:
        if events := self._wait_for_work():
            return events
        if self._end_waits():
            return []
        is_due = timeout is not None and self.time() + timeout <= self._until
        if timeout is not None and (is_due or self._waiters or self._is_awaited()):
            self._now += timeout
            return []
        return self._real_selector.select(None)

    def _end_waits(self) -> bool:
        """Resolve the waits whose condition is true; return whether there was one."""
        ended = [waiter for waiter in self._waiters if waiter[0]()]
        for waiter in ended:
            self._waiters.remove(waiter)
            if not waiter[1].done():
                waiter[1].set_result(None)
        return bool(ended)
