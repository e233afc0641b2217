"""The yardstick of periodic tasks: a bare heap and `call_at` that run the same no-ops, in a process of its own."""

from __future__ import annotations

import asyncio
import heapq
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_many_tasks_manager import SPACING, TASKS, task_functions
from measured_daemon import environment


class _Diary:
    """What the no-ops write into, as they do into the manager."""

    def __init__(self) -> None:
        self.starts: list[tuple[int, float]] = []


class BareLoop:
    """Ten thousand tasks on a heap with one timer, and nothing else: no status, no threads, no errors that are kept."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._diary = _Diary()
        self._running: set[asyncio.Task[Any]] = set()
        begin = self._loop.time()
        self._heap: list[tuple[float, int, Callable[..., Any], bool]] = [
            (begin + SPACING * number / TASKS, number, function, asyncio.iscoroutinefunction(function))
            for number, function in enumerate(task_functions())
        ]
        self._loop.call_at(self._heap[0][0], self._on_timer)

    def _on_timer(self) -> None:
        heap, now = self._heap, self._loop.time()
        while heap[0][0] <= now:
            due, number, function, is_async = heap[0]
            if is_async:
                task = self._loop.create_task(function(self._diary, None))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            else:
                function(self._diary, None)
            heapq.heapreplace(heap, (due + SPACING, number, function, is_async))
        self._loop.call_at(heap[0][0], self._on_timer)


@contextmanager
def bare_loop() -> Iterator[int]:
    """Run the yardstick in a process of its own; yield its pid."""
    process = subprocess.Popen([sys.executable, str(Path(__file__).resolve())], env=environment())
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


async def _main() -> None:
    BareLoop()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
