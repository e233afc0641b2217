"""Coroutines with a name and an owner."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from ostler import fork
from ostler.bounds import without_numbers
from ostler.errors import describe, is_a

_log = logging.getLogger(__name__)
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 60.0
"""Seconds between a failure of an eternal task and its next round: at first, and at most."""
_SETTLED = 60.0
"""Seconds that an eternal task has to run before its earlier failures count as over."""


@dataclass(slots=True)
class Failures:
    """What is known of the failures of one eternal task."""

    since: float
    at: float
    times: int = 0
    text: str = ""


class TaskOwner:
    """Owns tasks: keeps them alive, learns of their end, and cancels what is left.

    A task that is spawned with `forever=True` and ends, for whatever reason, is reported to `on_end`; any other task
    that raises is logged with its name. SystemExit and KeyboardInterrupt raised in a task are failures of that task:
    asyncio would let them stop the loop.

    Args:
        name: Whose tasks these are, for messages.
        on_end: Called on the loop with a reason when a task that should live for ever has ended.
    """

    def __init__(self, name: str, on_end: Callable[[str], None] | None = None) -> None:
        self._name = name
        self._on_end = on_end
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._failures: dict[str, Failures] = {}

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str, forever: bool = False) -> asyncio.Task[Any]:
        """Start a task. On the loop's thread. A task that fails is logged; its result is None then."""
        task = asyncio.get_running_loop().create_task(self._guard(work, name, forever), name=f"{self._name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._cancelled.discard)
        # A task that is cancelled before its first step never enters `_guard`: its coroutine is closed here, else it
        # would be reported as never awaited.
        task.add_done_callback(lambda _: work.close())
        return task

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> asyncio.Task[Any]:
        """Start an eternal task that survives any exception of one of its rounds. On the loop's thread.

        What it raises is logged, counted and told by `troubles`; after a pause, longer each time, it is run again. A
        failure that repeats is logged once.

        Args:
            work: Makes the coroutine that runs for ever; it is called anew after each failure.
            name: What the task does, for messages.
        """
        return self.spawn(self._rounds(work, name), name=name, forever=True)

    async def _rounds(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await work()
            except GeneratorExit:
                raise
            except BaseException as error:
                fork.leave_if_child(error)
                if is_a(error, asyncio.CancelledError) and self._is_cancelled():
                    raise  # else it is that of something the round waited for, or somebody has cancelled all tasks
                pause = self._failed(name, error, loop.time(), began)
            else:
                fork.leave_if_child()
                return
            await asyncio.sleep(pause)

    def _failed(self, name: str, error: BaseException, now: float, began: float) -> float:
        """Take note of a failed round; return how long to wait for the next."""
        known = self._failures.get(name)
        if known is None or now - began > _SETTLED:
            known = self._failures[name] = Failures(since=time.time(), at=now)
        known.times, known.at = known.times + 1, now
        text = describe(error)
        news, known.text = without_numbers(text) != without_numbers(known.text), text
        if news:
            _log.error("task %s of %s failed, and goes on: %s", name, self._name, text, exc_info=error)
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(known.times - 1, 20))

    def troubles(self) -> list[str]:
        """Return the eternal tasks that failed not long ago, a line each: how often, since when, and why."""
        now = asyncio.get_running_loop().time()
        return [
            f"task {name} of {self._name} failed {known.times} times since "
            f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(known.since))}: {known.text}"
            for name, known in self._failures.items()
            if now - known.at <= _LONGEST_PAUSE + _SETTLED
        ]

    async def _guard(self, work: Coroutine[Any, Any, Any], name: str, forever: bool) -> Any:
        try:
            result = await work
            fork.leave_if_child()
        except asyncio.CancelledError:
            if asyncio.current_task() not in self._cancelled:
                self._ended(f"task {name} of {self._name} was cancelled by somebody else than its owner", forever)
            raise
        except GeneratorExit:  # the loop is gone and the interpreter tidies up
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit would stop the loop
            fork.leave_if_child(error)
            _log.error("task %s of %s failed", name, self._name, exc_info=error)
            self._ended(f"task {name} of {self._name} failed: {describe(error)}", forever)
            return None
        self._ended(f"task {name} of {self._name} ended, and should not have", forever)
        return result

    def _ended(self, reason: str, forever: bool) -> None:
        if forever and self._on_end is not None:
            self._on_end(reason)

    def names(self) -> list[str]:
        """Return the names of the tasks that are running."""
        return sorted(task.get_name() for task in self._tasks)

    async def wait(self, timeout: float | None = None) -> list[str]:
        """Wait for all tasks to end; return the names of those that had not when `timeout` seconds had passed.

        A task that calls this does not wait for itself.
        """
        if others := self._others():
            await asyncio.wait(others, timeout=timeout)
        return sorted(task.get_name() for task in self._others())

    async def cancel(self, timeout: float = 5.0) -> list[str]:
        """Cancel all tasks and wait for them; return the names of those that did not end within `timeout` seconds.

        A task that calls this goes on.
        """
        for task in self._others():
            self.end(task)
        return await self.wait(timeout)

    def end(self, task: asyncio.Task[Any]) -> None:
        """Cancel one task: an eternal one takes no notice of others who cancel it."""
        self._cancelled.add(task)
        task.cancel()

    def _is_cancelled(self) -> bool:
        """Return whether the owner has asked the current task to end; what others have asked is forgotten."""
        task = asyncio.current_task()
        if task is None or task in self._cancelled:
            return True
        while task.cancelling():
            task.uncancel()
        return False

    def _others(self) -> list[asyncio.Task[Any]]:
        current = asyncio.current_task()
        return [task for task in self._tasks if task is not current]
