"""The runs of periodic tasks: where they run, how they end, and what is said about it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ostler import fork
from ostler.aio import Inbox, TaskOwner, WorkerPool
from ostler.clock import Clock
from ostler.errors import CallCancelled, Conflict, OstlerError, describe, is_a, is_expected
from ostler.messaging.context import Context, serving
from ostler.periodic.task import PeriodicTask
from ostler.redaction import redact

_log = logging.getLogger(__name__)
_SPILL = 0.05
"""Seconds after which a task that waits behind another gets a thread of its own, also when nothing else is due."""
_PATIENCE = 0.005
"""Seconds that it waits at least."""


class TaskGroup:
    """The tasks of one service, and the part of its pool that they take.

    No more tasks are in the pool than it has threads. The rest waits here, so that periodic work never fills the queue
    of the service and no request is refused because of it. Quick tasks that are due together are run one after another
    by one thread: to wake a thread for each costs more than their work.

    Args:
        tasks: Name to task.
        pool: The service's threads.
    """

    __slots__ = ("in_pool", "lock", "pool", "spill", "tasks", "waiting")

    def __init__(self, tasks: dict[str, PeriodicTask], pool: WorkerPool) -> None:
        self.tasks = tasks
        self.pool = pool
        self.lock = threading.Lock()
        self.in_pool = 0
        self.waiting: deque[PeriodicTask] = deque()
        self.spill: asyncio.TimerHandle | None = None

    def following(self) -> PeriodicTask | None:
        """Return the next task for a thread that has ended one; None when it has to leave. On that thread."""
        with self.lock:
            # Requests that wait for a thread come first.
            if self.waiting and not self.pool.queued:
                return self.waiting.popleft()
            self.in_pool -= 1
            return None

    def leave(self) -> None:
        """Take note that a thread is not at periodic work any more."""
        with self.lock:
            self.in_pool -= 1


class Runs:
    """Begins runs and takes note of their ends. On the loop.

    Args:
        clock: The source of time.
        owner: Owns the runs of `async def` tasks.
        loop: The loop.
        ended: Told after each run, and each one that was skipped: the task, the wall time of its start (0 when it was
            skipped), and its seconds.
        eager: Whether `ended` is told at once of every run. Else a good run of a `def` task, which nobody waits for,
            waits for the next `collect`: to wake the loop for it would cost more than the run.
    """

    def __init__(
        self,
        clock: Clock,
        owner: TaskOwner,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[PeriodicTask, float, float], None],
        *,
        eager: bool,
    ) -> None:
        self._clock = clock
        self._owner = owner
        self._loop = loop
        self._inbox = Inbox(loop)
        self._ended = ended
        self._eager = eager
        self._finished: deque[tuple[PeriodicTask, float, BaseException | None]] = deque()
        self._spills: set[TaskGroup] = set()

    def collect(self) -> None:
        """Take note of the runs that have ended in the pools since, and find threads for what waits too long."""
        while self._finished:
            self._end(*self._finished.popleft())
        for group in list(self._spills):
            if group.spill is not None and group.spill.when() - self._loop.time() < _SPILL - _PATIENCE:
                self._spill(group)

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
            task.running = True
            return
        with group.lock:
            waits = group.in_pool > 0 and (task.is_quick or group.in_pool >= group.pool.size)
            if waits:
                group.waiting.append(task)
            else:
                group.in_pool += 1
        task.running = True
        if not waits:
            self._submit(task, group)
        elif group.spill is None:
            group.spill = self._loop.call_later(_SPILL, self._spill, group)
            self._spills.add(group)

    def _submit(self, task: PeriodicTask, group: TaskGroup) -> None:
        """Hand a task to the pool; the group has counted the thread already."""

        def done(_result: Any, error: BaseException | None) -> None:
            if error is not None:  # the pool was closed before it began
                group.leave()
                self._finished.append((task, 0.0, error))
                self._inbox.post(self.collect)

        try:
            group.pool.submit(lambda: self._chain(task, group), done, label=task.name)
        except OstlerError:
            group.leave()
            task.running = False
            raise

    def _spill(self, group: TaskGroup) -> None:
        """Give threads of their own to what still waits: the thread that should have taken it is held up."""
        if group.spill is not None:
            group.spill.cancel()
            group.spill = None
        self._spills.discard(group)
        while True:
            with group.lock:
                if not group.waiting or group.in_pool >= group.pool.size:
                    return
                task = group.waiting.popleft()
                group.in_pool += 1
            try:
                self._submit(task, group)
            except OstlerError as refused:
                self._skipped(task, refused)

    def _chain(self, task: PeriodicTask, group: TaskGroup) -> None:
        """Run a task and those that wait behind it. On a thread of the service's pool."""
        following: PeriodicTask | None = task
        while following is not None:
            if following is not task:
                group.pool.relabel(following.name)
            self._run(following)
            following = group.following()
        if group.waiting:
            self._inbox.post(lambda: self._spill(group))

    def _run(self, task: PeriodicTask) -> None:
        """Run a `def` task. On a thread of the service's pool."""
        if task.removed:
            task.running = False
            return
        begun = self._clock.monotonic()
        task.running_since = self._clock.wall()
        error: BaseException | None = None
        try:
            with serving(self._context(task)) as context:
                result = task.method(context)
            if asyncio.iscoroutine(result):
                result.close()
                raise TypeError(f"{task.name} is a `def` that returned a coroutine; make it `async def`")
        except BaseException as raised:  # noqa: BLE001 - counted and kept; it must not end the thread
            error = raised
        if fork.in_child:
            fork.leave(error)
        self._finished.append((task, self._clock.monotonic() - begun, error))
        if self._eager or error is not None or task.logged or task.late:
            self._inbox.post(self.collect)

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
            fork.leave_if_child(error)
            self._end(task, self._clock.monotonic() - begun, error)

    def _context(self, task: PeriodicTask) -> Context:
        task.context = context = Context(
            task.service, task.name, request_id=f"{task.name}-{task.runs + 1}", clock=self._clock
        )
        if task.removed:  # the stop came in between, and found no run to tell
            task.cancel_run()
        return context

    def _end(self, task: PeriodicTask, seconds: float, error: BaseException | None) -> None:
        # A job that its pool dropped never began: then this moment has to do.
        started = task.running_since or self._clock.wall()
        task.running, task.running_since, task.context = False, 0.0, None
        task.runs += 1
        task.last_run, task.last_seconds = started, seconds
        if error is None:
            self._worked(task)
        elif not (task.removed and is_a(error, CallCancelled)):  # it did what it was told by the stop
            self._failed(task, error, describe(error))
        self._ended(task, started, seconds)

    def _worked(self, task: PeriodicTask) -> None:
        if task.logged:
            task.logged.clear()
            _log.info("periodic task %s of %s works again", task.name, task.service)
        if task.late and task.is_in_time:
            task.late = False
            _log.info("periodic task %s of %s took %.3g s", task.name, task.service, task.last_seconds)
        task.last_error = ""

    def _skipped(self, task: PeriodicTask, error: OstlerError) -> None:
        self._failed(task, error, redact(f"skipped: {error}"))
        self._ended(task, 0.0, 0.0)

    def _failed(self, task: PeriodicTask, error: BaseException, text: str) -> None:
        task.errors += 1
        task.last_error = text
        if task.removed or not task.is_news(text):
            return
        traceback = None if is_expected(error) else error
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
