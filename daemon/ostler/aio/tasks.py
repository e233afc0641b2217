"""Coroutines with a name and an owner."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from ostler import fork
from ostler.bounds import mask_numbers
from ostler.errors import error_line, is_a

_log = logging.getLogger(__name__)
_MIN_RESTART_DELAY = 0.1
_MAX_RESTART_DELAY = 60.0
"""Seconds between a failure of a permanent task and its next round: at first, and at most."""
_STABLE_TIME = 60.0
"""Seconds that a permanent task has to run before its earlier failures count as over."""


@dataclass(slots=True)
class TaskFailures:
    """What is known of the failures of one permanent task."""

    first_at: float
    last_at: float
    count: int = 0
    description: str = ""


class TaskOwner:
    """Owns tasks: keeps them alive, learns of their end, and cancels what is left.

    A task that is spawned with `forever=True` and ends, for whatever reason, is reported to `on_end`; any other task
    that raises is logged with its name. SystemExit and KeyboardInterrupt raised in a task are failures of that task:
    asyncio would let them stop the loop.

    Args:
        name: Whose tasks these are, for messages.
        on_end: Called on the loop with a reason when a task that should run indefinitely has ended.
    """

    def __init__(self, name: str, on_end: Callable[[str], None] | None = None) -> None:
        self._name = name
        self._on_end = on_end
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._failures: dict[str, TaskFailures] = {}

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str, forever: bool = False) -> asyncio.Task[Any]:
        """Start a task. On the loop's thread. A task that fails is logged; its result is None then."""
        task = asyncio.get_running_loop().create_task(
            self._run_guarded(work, name, forever), name=f"{self._name}: {name}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._cancelled.discard)
        # A task that is cancelled before its first step never enters `_guard`: its coroutine is closed here, else it
        # would be reported as never awaited.
        task.add_done_callback(lambda _: work.close())
        return task

    def supervise(self, work: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> asyncio.Task[Any]:
        """Start a permanent task that survives any exception of one of its rounds. On the loop's thread.

        What it raises is logged, counted and reported by `troubles`; after a pause, longer each time, it is run again.
        A failure that repeats is logged once.

        Args:
            work: Creates the coroutine that runs indefinitely; it is called again after each failure.
            name: What the task does, for messages.
        """
        return self.spawn(self._run_supervised(work, name), name=name, forever=True)

    async def _run_supervised(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await work()
            except GeneratorExit:
                raise
            except BaseException as error:
                fork.exit_if_child(error)
                if is_a(error, asyncio.CancelledError) and self._is_cancelled():
                    raise  # else it comes from something the round waited for, or some code has cancelled all tasks
                pause = self._record_failure(name, error, loop.time(), began)
            else:
                fork.exit_if_child()
                return
            await asyncio.sleep(pause)

    def _record_failure(self, name: str, error: BaseException, now: float, began: float) -> float:
        """Record a failed round; return how long to wait for the next."""
        known = self._failures.get(name)
        if known is None or now - began > _STABLE_TIME:
            known = self._failures[name] = TaskFailures(first_at=time.time(), last_at=now)
        known.count, known.last_at = known.count + 1, now
        text = error_line(error)
        news, known.description = mask_numbers(text) != mask_numbers(known.description), text
        if news:
            _log.error("task %s of %s failed and will be retried: %s", name, self._name, text, exc_info=error)
        return min(_MAX_RESTART_DELAY, _MIN_RESTART_DELAY * 2.0 ** min(known.count - 1, 20))

    def problems(self) -> list[str]:
        """Return the permanent tasks that failed not long ago, a line each: how often, since when, and why."""
        now = asyncio.get_running_loop().time()
        return [
            f"task {name} of {self._name} failed {known.count} times since "
            f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(known.first_at))}: {known.description}"
            for name, known in self._failures.items()
            if now - known.last_at <= _MAX_RESTART_DELAY + _STABLE_TIME
        ]

    async def _run_guarded(self, work: Coroutine[Any, Any, Any], name: str, forever: bool) -> Any:
        try:
            result = await work
            fork.exit_if_child()
        except asyncio.CancelledError:
            if asyncio.current_task() not in self._cancelled:
                self._on_task_end(f"task {name} of {self._name} was cancelled by code other than its owner", forever)
            raise
        except GeneratorExit:  # the loop is gone and the interpreter shuts down
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit would stop the loop
            fork.exit_if_child(error)
            _log.error("task %s of %s failed", name, self._name, exc_info=error)
            self._on_task_end(f"task {name} of {self._name} failed: {error_line(error)}", forever)
            return None
        self._on_task_end(f"task {name} of {self._name} ended unexpectedly", forever)
        return result

    def _on_task_end(self, reason: str, forever: bool) -> None:
        if forever and self._on_end is not None:
            self._on_end(reason)

    def running_names(self) -> list[str]:
        """Return the names of the tasks that are running."""
        return sorted(task.get_name() for task in self._tasks)

    async def wait(self, timeout: float | None = None) -> list[str]:
        """Wait for all tasks to end; return the names of those that had not when `timeout` seconds had passed.

        A task that calls this does not wait for itself.
        """
        if others := self._other_tasks():
            await asyncio.wait(others, timeout=timeout)
        return sorted(task.get_name() for task in self._other_tasks())

    async def cancel(self, timeout: float = 5.0) -> list[str]:
        """Cancel all tasks and wait for them; return the names of those that did not end within `timeout` seconds.

        A task that calls this goes on.
        """
        for task in self._other_tasks():
            self.cancel_task(task)
        return await self.wait(timeout)

    def cancel_task(self, task: asyncio.Task[Any]) -> None:
        """Cancel one task: a permanent one ignores a cancellation by other code."""
        self._cancelled.add(task)
        task.cancel()

    def _is_cancelled(self) -> bool:
        """Return whether the owner has cancelled the current task; cancellations by others are dropped."""
        task = asyncio.current_task()
        if task is None or task in self._cancelled:
            return True
        while task.cancelling():
            task.uncancel()
        return False

    def _other_tasks(self) -> list[asyncio.Task[Any]]:
        current = asyncio.current_task()
        return [task for task in self._tasks if task is not current]
