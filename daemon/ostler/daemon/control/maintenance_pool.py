"""Database work that may take minutes, off the loop and off the threads that serve queries."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from ostler.aio import WorkerPool

T = TypeVar("T")
_THREAD_COUNT = 2
_QUEUE_LIMIT = 32


class MaintenancePool:
    """Runs long work on a few threads of its own; callers take turns. On the loop.

    Threads exist only while there is work. Work beyond the queue limit is refused as busy.
    """

    def __init__(self) -> None:
        self._pool: WorkerPool | None = None
        self._active_count = 0
        self._shared_tasks: dict[str, asyncio.Task[Any]] = {}

    async def run(self, label: str, work: Callable[[], T], account: Hashable) -> T:
        """Run `work` and return its result. A cancelled wait does not stop it.

        Args:
            label: What it is, for people.
            work: What is to be done.
            account: Who asked; see `Peer.account`.

        Raises:
            Busy: The queue is full, or the account has reached its share of it.
            Exception: What `work` raised.
        """
        if self._pool is None:
            self._pool = WorkerPool("ostler-maintenance", _THREAD_COUNT, _QUEUE_LIMIT)
        pool = self._pool
        self._active_count += 1
        try:
            return await pool.run(work, label=label, client=account)
        finally:
            self._active_count -= 1
            if not self._active_count:
                self._pool = None
                pool.close()

    async def run_shared(self, label: str, work: Callable[[], T], account: Hashable) -> T:
        """Run `work`, or wait for work that is already in progress under that label; see `run`."""
        task = self._shared_tasks.get(label)
        if task is None:
            # Without a request's context: it continues when the first caller has disconnected.
            task = asyncio.get_running_loop().create_task(
                self.run(label, work, account), name=label, context=contextvars.Context()
            )
            self._shared_tasks[label] = task
            task.add_done_callback(lambda ended: self._on_task_done(label, ended))
        result: T = await asyncio.shield(task)
        return result

    def _on_task_done(self, label: str, task: asyncio.Task[Any]) -> None:
        del self._shared_tasks[label]
        if not task.cancelled():
            task.exception()  # retrieved: all waiters may have gone
