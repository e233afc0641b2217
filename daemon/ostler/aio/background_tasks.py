"""Background tasks that a manager owns: coroutines on the loop and threads, ended with their service."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from ostler import fork
from ostler.aio.loop_queue import LoopQueue
from ostler.aio.tasks import TaskOwner
from ostler.bounds import NAME_LIMIT, mask_numbers
from ostler.errors import Busy, Conflict, InvalidInput, check_length, error_line, is_a
from ostler.types import BackgroundTaskStatus

_log = logging.getLogger(__name__)
Restart = Literal["never", "always", "on failure"]
MAX_BACKGROUND_TASKS = 200
"""The most background tasks of one service."""
_STABLE_TIME = 60.0
"""Seconds that a task has to run before its earlier ends count as over."""
_POLL_INTERVAL = 0.02
_MAX_DOUBLINGS = 20


class BackgroundTask:
    """A background task of a manager; `self.tasks.spawn` returns it.

    Args:
        owner: Whose task it is.
        name: Its name.
        function: What it runs.
        args: The arguments of that.
        restart: When it is restarted.
        backoff: The least and the most seconds between its end and its restart.
    """

    def __init__(
        self,
        owner: BackgroundTasks,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        restart: Restart,
        backoff: tuple[float, float],
    ) -> None:
        self.name = name
        self.function = function
        self.args = args
        self.restart = restart
        self.backoff = backoff
        self.is_async = inspect.iscoroutinefunction(function)
        self.stop_event = threading.Event()
        self.ended = threading.Event()
        self.state = "running"
        self.since = owner.wall()
        self.restarts = 0
        self.last_error = ""
        self.last_end = 0.0
        self.quick_ends = 0
        self.task: asyncio.Task[Any] | None = None
        self._owner = owner

    def stop(self, wait: float = 0.0) -> bool:
        """Ask it to end; it is not restarted. Any thread.

        Args:
            wait: Seconds to wait for its end; blocks, so never on the loop.

        Returns:
            Whether it has ended.
        """
        self._owner.stop_task(self)
        return self.ended.wait(wait)

    def status(self) -> BackgroundTaskStatus:
        """Return it as an operator sees it."""
        return BackgroundTaskStatus(
            name=self.name,
            kind="coroutine" if self.is_async else "thread",
            state=self.state,
            restart=self.restart,
            since=self.since,
            restarts=self.restarts,
            last_error=self.last_error,
        )


class BackgroundTasks:
    """The background tasks of one manager: `self.tasks`. `spawn` and `stop` of a task are for any thread.

    Each has a name, is seen in `ostler service show --json` and `ostler dump`, and is ended with its service, before
    `cleanup_host`. One that fails is logged, and makes the service degraded until it has been running for a minute
    again, or, when it is not restarted, until one of its name is spawned. SystemExit is a failure like others.

    Args:
        service: The topic.
        loop_queue: Hands work to the loop; None where there is no loop, then only threads can be started.
        on_change: Called on any thread when a task has ended.
        limit: The most tasks at once.
        monotonic: The monotonic clock.
        wall: The wall clock.
    """

    def __init__(
        self,
        service: str,
        loop_queue: LoopQueue | None = None,
        on_change: Callable[[], None] = lambda: None,
        limit: int = MAX_BACKGROUND_TASKS,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.monotonic = monotonic
        self.wall = wall
        self._service = service
        self._loop_queue = loop_queue
        self._on_change = on_change
        self._limit = limit
        self._owner = TaskOwner(f"service {service}")
        self._lock = threading.Lock()
        self._tasks: dict[str, BackgroundTask] = {}
        self._is_closed = False

    def spawn(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        restart: Restart = "never",
        backoff: tuple[float, float] = (1.0, 60.0),
    ) -> BackgroundTask:
        """Start a background task.

        An `async def` runs on the loop as `function(*args)`, and is cancelled at the stop. A `def` runs in a thread of
        its own as `function(stop, *args)`, and has to return soon after the event `stop` (a `threading.Event`) is set:
        `while not stop.wait(5): …`.

        Args:
            name: Its name, of which the service has no other.
            function: What it runs.
            args: The arguments of that.
            restart: Whether it is run again when it ends by itself: `never` (then its return is its regular end, and
                an error makes the service degraded), `on failure`, or `always`.
            backoff: Seconds before it is run again, at first and at most; doubled for each end within a minute.

        Raises:
            InvalidInput: An argument is not valid.
            Conflict: There is a task of this name, there are too many, or the service is being stopped.
            Busy: No thread could be started.
        """
        self._check(name, function, restart, backoff)
        task = BackgroundTask(self, name, function, args, restart, backoff)
        with self._lock:
            self._check_room(name)
            self._tasks[name] = task
        if task.is_async:
            assert self._loop_queue is not None  # noqa: S101 - checked above
            self._loop_queue.post(lambda: self._start_coroutine(task))
        else:
            self._start_thread(task)
        return task

    def stop_task(self, task: BackgroundTask) -> None:
        """Ask a task to end. Any thread."""
        task.stop_event.set()
        if task.is_async and self._loop_queue is not None:
            self._loop_queue.post(lambda: self._cancel(task))

    def statuses(self) -> list[BackgroundTaskStatus]:
        """Return the tasks that run, wait for their restart or have failed, sorted by name. Any thread."""
        with self._lock:
            return [task.status() for _, task in sorted(self._tasks.items())]

    def problems(self) -> dict[str, str]:
        """Return the tasks that have failed, a sentence each by name; it does not change as long as that lasts."""
        with self._lock:
            tasks = list(self._tasks.values())
        return {task.name: text for task in tasks if (text := self._problem(task))}

    def running(self) -> list[str]:
        """Return the tasks that have not ended, a line each. Any thread."""
        with self._lock:
            names = sorted(name for name, task in self._tasks.items() if not task.ended.is_set())
        return [f"background task {name} of {self._service}" for name in names]

    async def stop(self, timeout: float) -> list[str]:
        """End all tasks and refuse further ones; return those that had not ended in time, a line each. On the loop.

        Args:
            timeout: Seconds to wait for them.
        """
        with self._lock:
            self._is_closed = True
            tasks = list(self._tasks.values())
        until = asyncio.get_running_loop().time() + timeout
        for task in tasks:
            task.stop_event.set()
        for task in tasks:
            self._cancel(task)
        while left := self.running():
            rest = until - asyncio.get_running_loop().time()
            if rest <= 0:
                return left
            await asyncio.sleep(min(_POLL_INTERVAL, rest))
        return []

    # Start and end --------------------------------------------------------------------------------------------------

    def _start_coroutine(self, task: BackgroundTask) -> None:
        if task.stop_event.is_set():  # stopped before it began
            self._set_ended(task, "ended")
            return
        task.task = self._owner.spawn(self._run_coroutine(task), name=f"background task {task.name}")
        # Cancelled before its first step it would never say that it has ended.
        task.task.add_done_callback(lambda _: self._set_ended(task, "ended" if task.stop_event.is_set() else "failed"))

    def _start_thread(self, task: BackgroundTask) -> None:
        thread = threading.Thread(
            target=self._run_thread, args=(task,), name=f"{self._service}-{task.name}", daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no memory, or the limit of tasks is reached
            self._set_ended(task, "ended")
            raise Busy(
                f"background task {task.name} of {self._service} could not be started: no thread",
                hint="raise TasksMax or free memory",
                retry_after=5.0,
            ) from None

    def _run_thread(self, task: BackgroundTask) -> None:
        while True:
            began, error = self.monotonic(), None
            try:
                task.function(task.stop_event, *task.args)
            except BaseException as raised:  # noqa: BLE001 - counted and shown; SystemExit too is its failure
                error = raised
            if fork.in_child:
                fork.exit_child(error)
            pause = self._on_end(task, error, self.monotonic() - began)
            if pause is None:
                return
            if task.stop_event.wait(pause):
                self._set_ended(task, "ended")
                return
            self._on_restart(task)

    async def _run_coroutine(self, task: BackgroundTask) -> None:
        while True:
            began, error = self.monotonic(), None
            try:
                await task.function(*task.args)
            except GeneratorExit:
                raise
            except BaseException as raised:  # noqa: BLE001 - counted and shown; SystemExit would stop the loop
                error = raised
            fork.exit_if_child(error)
            if is_a(error, asyncio.CancelledError):
                if task.stop_event.is_set():
                    self._set_ended(task, "ended")
                    return
                _uncancel()
            pause = self._on_end(task, error, self.monotonic() - began)
            if pause is None:
                return
            await asyncio.sleep(pause)
            self._on_restart(task)

    def _on_end(self, task: BackgroundTask, error: BaseException | None, seconds: float) -> float | None:
        """Record that a task has ended; return the seconds to its restart, None when there is none."""
        if task.stop_event.is_set() and (error is None or is_a(error, asyncio.CancelledError)):
            self._set_ended(task, "ended")
            return None
        text = error_line(error) if error is not None else "it ended by itself"
        repeats = task.restart == "always" or (error is not None and task.restart == "on failure")
        if error is not None or repeats:
            self._log_end(task, text, error)
        if not repeats or task.stop_event.is_set():
            task.last_error = text if error is not None else ""
            self._set_ended(task, "failed" if error is not None else "ended")
            return None
        task.quick_ends = 1 if seconds >= _STABLE_TIME else task.quick_ends + 1
        task.last_error, task.last_end, task.state, task.since = text, self.monotonic(), "waiting", self.wall()
        self._on_change()
        least, most = task.backoff
        return min(most, least * 2.0 ** min(task.quick_ends - 1, _MAX_DOUBLINGS))

    def _log_end(self, task: BackgroundTask, text: str, error: BaseException | None) -> None:
        if mask_numbers(text) != mask_numbers(task.last_error):  # one that repeats is logged once
            _log.error("background task %s of %s failed: %s", task.name, self._service, text, exc_info=error)

    def _on_restart(self, task: BackgroundTask) -> None:
        task.restarts += 1
        task.state, task.since = "running", self.wall()

    def _set_ended(self, task: BackgroundTask, state: str) -> None:
        with self._lock:
            if task.ended.is_set():
                return
            task.state, task.since = state, self.wall()
            if task.state == "ended" and self._tasks.get(task.name) is task:
                del self._tasks[task.name]
            task.ended.set()
        self._on_change()

    def _cancel(self, task: BackgroundTask) -> None:
        if task.task is not None:
            self._owner.cancel_task(task.task)

    def _problem(self, task: BackgroundTask) -> str:
        what = f"background task {task.name} of {self._service}"
        if task.state == "failed":
            return f"{what} failed: {task.last_error}"
        if task.state == "waiting" or (task.last_end and self.monotonic() - task.last_end < _STABLE_TIME):
            return f"{what} failed and is restarted: {task.last_error}"
        return ""

    def _check(self, name: str, function: object, restart: str, backoff: tuple[float, float]) -> None:
        if not name or not name.isprintable():
            raise InvalidInput(f"{name!r} is not a valid name of a background task", service=self._service)
        check_length("the name of a background task", name, NAME_LIMIT)
        if not callable(function) or inspect.isgeneratorfunction(function):
            raise InvalidInput(f"background task {name}: {function!r} is not a function", service=self._service)
        if restart not in ("never", "always", "on failure"):
            what = f"background task {name}: restart is {restart!r}, it must be 'never', 'always' or 'on failure'"
            raise InvalidInput(what, service=self._service)
        if not 0 < backoff[0] <= backoff[1]:
            what = f"background task {name}: backoff is {backoff!r}, it must be the least and the most seconds"
            raise InvalidInput(what, service=self._service)
        if inspect.iscoroutinefunction(function) and self._loop_queue is None:
            raise InvalidInput(f"background task {name}: an `async def` needs an event loop", service=self._service)

    def _check_room(self, name: str) -> None:
        if self._is_closed:
            raise Conflict(f"service {self._service} is being stopped: {name} was not started", service=self._service)
        found = self._tasks.get(name)
        if found is not None and found.state != "failed":
            raise Conflict(
                f"service {self._service} has a background task {name} already",
                hint="stop it before, or choose another name",
                service=self._service,
            )
        if found is None and len(self._tasks) >= self._limit:
            raise Conflict(
                f"service {self._service} has {self._limit} background tasks, the most there may be",
                hint="stop some, or do the work of many in one task",
                service=self._service,
            )


def _uncancel() -> None:
    """Drop a cancellation by other code than the owner."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
