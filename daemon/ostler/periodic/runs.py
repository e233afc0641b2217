"""The runs of periodic tasks: where they run, how they end, and what is said about it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from ostler.aio import Inbox, TaskOwner, WorkerPool
from ostler.clock import Clock
from ostler.errors import Conflict, OstlerError, describe
from ostler.messaging.context import Context, serving
from ostler.periodic.task import PeriodicTask

_log = logging.getLogger(__name__)


class TaskGroup:
    """The tasks of one service, and the part of its pool that they may take.

    No more tasks are in the pool than it has threads. The rest waits here, so that periodic work never fills the queue
    of the service and no request is refused because of it.

    Args:
        tasks: Name to task.
        pool: The service's threads.
    """

    __slots__ = ("in_pool", "pool", "tasks", "waiting")

    def __init__(self, tasks: dict[str, PeriodicTask], pool: WorkerPool) -> None:
        self.tasks = tasks
        self.pool = pool
        self.in_pool = 0
        self.waiting: deque[PeriodicTask] = deque()


class Runs:
    """Begins runs and takes note of their ends. On the loop.

    Args:
        clock: The source of time.
        owner: Owns the runs of `async def` tasks.
        inbox: The way from the pools' threads to the loop.
        ended: Told after each run, and each one that was skipped: the task, the wall time of its start (0 when it was
            skipped), and its seconds.
        eager: Whether `ended` is told at once of every run. Else a good run of a `def` task, which nobody waits for,
            waits for the next `collect`: to wake the loop for it would cost more than the run.
    """

    def __init__(
        self,
        clock: Clock,
        owner: TaskOwner,
        inbox: Inbox,
        ended: Callable[[PeriodicTask, float, float], None],
        *,
        eager: bool,
    ) -> None:
        self._clock = clock
        self._owner = owner
        self._inbox = inbox
        self._ended = ended
        self._eager = eager
        self._finished: deque[tuple[PeriodicTask, TaskGroup, float, BaseException | None]] = deque()

    def collect(self) -> None:
        """Take note of the runs that have ended in the pools since."""
        while self._finished:
            self._returned(*self._finished.popleft())

    def due(self, task: PeriodicTask, group: TaskGroup) -> None:
        """Begin a run that is due, or skip it: while the last one still runs, and when the pool is full."""
        if task.running:
            self._is_late(task)
            return
        try:
            self.begin(task, group)
        except OstlerError as error:
            self._skipped(task, error)

    def begin(self, task: PeriodicTask, group: TaskGroup) -> None:
        """Begin a run, or have it wait for a thread.

        Raises:
            Conflict: It is running.
            Busy: The pool is full.
        """
        if task.running:
            raise Conflict(f"{task.name} of {task.service} is running already", service=task.service, task=task.name)
        if task.is_async:
            self._owner.spawn(self._run_async(task), name=f"{task.service}.{task.name}")
        elif group.in_pool < group.pool.size:
            self._submit(task, group)
        else:
            group.waiting.append(task)
            # A thread that ended before it could see this one waiting has left its end here.
            if self._finished:
                self._inbox.post(self.collect)
        task.running = True

    def _submit(self, task: PeriodicTask, group: TaskGroup) -> None:
        times = [0.0, 0.0]

        def done(_result: Any, error: BaseException | None) -> None:
            self._finished.append((task, group, times[1] - times[0], error))
            if self._eager or error is not None or group.waiting or task.logged or task.late:
                self._inbox.post(self.collect)

        group.pool.submit(lambda: self._run(task, times), done, label=task.name)
        group.in_pool += 1

    def _run(self, task: PeriodicTask, times: list[float]) -> None:
        """Run a `def` task. On a thread of the service's pool."""
        times[0] = times[1] = self._clock.monotonic()
        task.running_since = self._clock.wall()
        try:
            with serving(self._context(task)) as context:
                result = task.method(context)
            if asyncio.iscoroutine(result):
                result.close()
                raise TypeError(f"{task.name} is a `def` that returned a coroutine; make it `async def`")
        finally:
            times[1] = self._clock.monotonic()

    def _returned(self, task: PeriodicTask, group: TaskGroup, seconds: float, error: BaseException | None) -> None:
        group.in_pool -= 1
        self._end(task, seconds, error)
        while group.waiting and group.in_pool < group.pool.size:
            following = group.waiting.popleft()
            if following.removed:
                following.running = False
                continue
            try:
                self._submit(following, group)
            except OstlerError as refused:
                following.running = False
                self._skipped(following, refused)

    async def _run_async(self, task: PeriodicTask) -> None:
        begun = self._clock.monotonic()
        task.running_since = self._clock.wall()
        error: BaseException | None = None
        try:
            with serving(self._context(task)) as context:
                await task.method(context)
        except asyncio.CancelledError as cancelled:
            error = cancelled
            raise
        except BaseException as raised:  # noqa: BLE001 - SystemExit would stop the loop
            error = raised
        finally:
            self._end(task, self._clock.monotonic() - begun, error)

    def _context(self, task: PeriodicTask) -> Context:
        return Context(task.service, task.name, request_id=f"{task.name}-{task.runs + 1}", clock=self._clock)

    def _end(self, task: PeriodicTask, seconds: float, error: BaseException | None) -> None:
        # A job that its pool dropped never began: then this moment has to do.
        started = task.running_since or self._clock.wall()
        task.running, task.running_since = False, 0.0
        task.runs += 1
        task.last_run, task.last_seconds = started, seconds
        if error is None:
            self._worked(task)
        else:
            self._failed(task, error, describe(error))
        self._ended(task, started, seconds)

    def _worked(self, task: PeriodicTask) -> None:
        if task.logged:
            task.logged.clear()
            _log.info("periodic task %s of %s works again", task.name, task.service)
        if task.late:
            task.late = False
            _log.info("periodic task %s of %s took %.3g s", task.name, task.service, task.last_seconds)
        task.last_error = ""

    def _skipped(self, task: PeriodicTask, error: OstlerError) -> None:
        self._failed(task, error, f"skipped: {error}")
        self._ended(task, 0.0, 0.0)

    def _failed(self, task: PeriodicTask, error: BaseException, text: str) -> None:
        task.errors += 1
        task.last_error = text
        if task.removed or not task.is_news(text):
            return
        traceback = None if isinstance(error, OstlerError) else error
        _log.error("periodic task %s of %s failed: %s", task.name, task.service, text, exc_info=traceback)

    def _is_late(self, task: PeriodicTask) -> None:
        if not task.late:
            task.late = True
            _log.warning(
                "periodic task %s of %s is slower than its spacing (%s); it is not run again until it ends",
                task.name,
                task.service,
                task.spacing_text,
            )
