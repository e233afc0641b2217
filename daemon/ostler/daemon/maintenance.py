"""Work on the database that may take minutes: neither for the loop nor for the threads that serve queries."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from ostler.aio import WorkerPool

T = TypeVar("T")
_THREADS = 2
_QUEUE_LIMIT = 32


class Maintenance:
    """Runs long work on a few threads of its own, by turns of those who asked. On the loop.

    Threads are there only while there is work. One more than can wait is refused as busy.
    """

    def __init__(self) -> None:
        self._pool: WorkerPool | None = None
        self._asked = 0
        self._shared: dict[str, asyncio.Task[Any]] = {}

    async def run(self, label: str, work: Callable[[], T], account: Hashable) -> T:
        """Run `work` and return its result. A cancelled wait does not stop it.

        Args:
            label: What it is, for people.
            work: What is to be done.
            account: Who asked; see `Peer.account`.

        Raises:
            Busy: Too much waits already, or the account has its share of that.
            Exception: What `work` raised.
        """
        if self._pool is None:
            self._pool = WorkerPool("ostler-maintenance", _THREADS, _QUEUE_LIMIT)
        pool = self._pool
        self._asked += 1
        try:
            return await pool.run(work, label=label, client=account)
        finally:
            self._asked -= 1
            if not self._asked:
                self._pool = None
                pool.close()

    async def once(self, label: str, work: Callable[[], T], account: Hashable) -> T:
        """Run `work`, or wait for what is under way under that label already; see `run`."""
        task = self._shared.get(label)
        if task is None:
            # In no request's name: it goes on when the one who asked first has gone.
            task = asyncio.get_running_loop().create_task(
                self.run(label, work, account), name=label, context=contextvars.Context()
            )
            self._shared[label] = task
            task.add_done_callback(lambda ended: self._ended(label, ended))
        result: T = await asyncio.shield(task)
        return result

    def _ended(self, label: str, task: asyncio.Task[Any]) -> None:
        del self._shared[label]
        if not task.cancelled():
            task.exception()  # looked at: everybody who waited may have gone
