"""`LoopThread`: an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ostler import Busy, Conflict, format_seconds

T = TypeVar("T")
_CANCEL_TIMEOUT = 2.0


class LoopThread:
    """Runs an event loop on a thread. Its methods are for other threads, and block.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.on_end: Callable[[], None] | None = None
        """Called on the loop before it is closed: closes what is left open, which a stop in vain would leave behind."""

    @property
    def is_running(self) -> bool:
        """Whether the loop can be given work."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread.

        Raises:
            Busy: No thread could be started.
        """
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):
            self._loop.close()
            raise Busy(f"no thread could be started for {self._thread.name}", hint="raise TasksMax") from None

    def call(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run a coroutine on the loop, and return what it returns.

        Args:
            work: The coroutine.
            timeout: Seconds to wait; then it is cancelled.

        Raises:
            TimeoutError: It was not done in time.
            Conflict: The loop has ended.
            Exception: What it raised.
        """
        if not self.is_running:
            work.close()
            raise Conflict(f"the event loop {self._thread.name} has ended", hint="restart the service")
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # it has ended since
            work.close()
            raise Conflict(f"the event loop {self._thread.name} has ended", hint="restart the service") from None
        try:
            return future.result(timeout)
        except (concurrent.futures.TimeoutError, TimeoutError):
            if not future.done():
                future.cancel()
                raise TimeoutError(f"{self._thread.name} did not respond within {format_seconds(timeout)}") from None
            raise

    def stop(self, timeout: float) -> bool:
        """End the loop; return whether its thread has ended in time.

        Args:
            timeout: Seconds to wait.
        """
        if self.is_running:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            if self.on_end is not None:
                self._loop.run_until_complete(self._call(self.on_end))
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _call(self, function: Callable[[], None]) -> None:
        function()
        await asyncio.sleep(0)  # transports close their sockets in the next turn
