"""The runs of periodic tasks: where they run, how they end, and what is logged."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ostler import fork
from ostler.aio import LoopQueue, TaskOwner, WorkerPool
from ostler.bounds import escape_surrogates, truncate
from ostler.clock import Clock
from ostler.errors import Cancelled, Conflict, OstlerError, error_line, is_a, is_expected
from ostler.messaging.wire.request_context import Context, serving_to_end
from ostler.periodic_tasks.added_tasks import AddedTasks
from ostler.periodic_tasks.task import PeriodicTask
from ostler.redaction import redact
from ostler.store.records.periodic_records import (
    ENTRY_ERROR_LIMIT,
    KEPT_FAILURES,
    KEPT_RUNS,
    RunEntry,
    recent_runs,
)
from ostler.time_text import format_seconds

_log = logging.getLogger(__name__)
_SPILL_DELAY = 0.05
"""Seconds after which a task that waits behind another gets a thread of its own, even if nothing else is due."""
_MIN_SPILL_DELAY = 0.005
"""The least seconds that it waits."""
_MAX_UNSAVED_RUNS = 2 * (KEPT_RUNS + KEPT_FAILURES)


class ServiceTasks:
    """The tasks of one service, and their share of its pool.

    No more tasks are in the pool than it has threads. The rest waits here, so that periodic work never fills the queue
    of the service and no request is refused because of it. Quick tasks that are due together are run one after another
    by one thread: waking a thread for each costs more than their work.

    Args:
        tasks: Name to task.
        pool: The service's threads.
    """

    __slots__ = ("added", "lock", "options", "pool", "spill_timer", "tasks", "threads_in_use", "waiting")

    def __init__(self, tasks: dict[str, PeriodicTask], pool: WorkerPool) -> None:
        self.tasks = tasks
        self.pool = pool
        self.options: Any = None
        self.added: AddedTasks | None = None
        self.lock = threading.Lock()
        self.threads_in_use = 0
        self.waiting: deque[PeriodicTask] = deque()
        self.spill_timer: asyncio.TimerHandle | None = None

    def next_waiting(self) -> PeriodicTask | None:
        """Return the next task for a thread that has finished one; None when it must stop. On that thread."""
        with self.lock:
            # Requests that wait for a thread come first.
            if self.waiting and not self.pool.queued_count:
                return self.waiting.popleft()
            self.threads_in_use -= 1
            return None

    def release_thread(self) -> None:
        """Record that a thread has stopped running periodic tasks."""
        with self.lock:
            self.threads_in_use -= 1


def add_to_history(task: PeriodicTask, started: float, seconds: float, error: str) -> None:
    """Add a run to what is not stored yet of the history of a task; bounded."""
    if error:
        error = escape_surrogates(truncate(error, ENTRY_ERROR_LIMIT))
    task.unsaved_runs.append(RunEntry(started, seconds, error))
    if len(task.unsaved_runs) > _MAX_UNSAVED_RUNS:
        task.unsaved_runs = recent_runs(task.unsaved_runs)


class TaskRunner:
    """Starts runs and records their ends. On the loop.

    Args:
        clock: The source of time.
        owner: Owns the runs of `async def` tasks.
        loop: The loop.
        on_run_end: Called after each run, and each one that was skipped: the task, the wall time of its start (0 when
            it was skipped), and its seconds.
        is_eager: Whether `on_run_end` is called at once after every run. Otherwise a successful run of a `def` task is
            reported with the next `collect_finished`: waking the loop for it would cost more than the run.
    """

    def __init__(
        self,
        clock: Clock,
        owner: TaskOwner,
        loop: asyncio.AbstractEventLoop,
        on_run_end: Callable[[PeriodicTask, float, float], None],
        *,
        is_eager: bool,
    ) -> None:
        self._clock = clock
        self._owner = owner
        self._loop = loop
        self._loop_queue = LoopQueue(loop)
        self._on_run_end = on_run_end
        self._is_eager = is_eager
        self._finished: deque[tuple[PeriodicTask, float, BaseException | None]] = deque()
        self._groups_to_spill: set[ServiceTasks] = set()

    def collect_finished(self) -> None:
        """Record the runs that have ended in the pools, and start threads for tasks that have waited too long."""
        while self._finished:
            self._finish_run(*self._finished.popleft())
        for group in list(self._groups_to_spill):
            if (
                group.spill_timer is not None
                and group.spill_timer.when() - self._loop.time() < _SPILL_DELAY - _MIN_SPILL_DELAY
            ):
                self._spill_waiting(group)

    def start_due(self, task: PeriodicTask, group: ServiceTasks) -> None:
        """Start a run that is due, or skip it: while the last one is still running, and when the pool is full."""
        if task.is_running or task.is_blocked:
            task.skipped += 1
            if not task.is_running:
                task.due_since = 0.0  # left out: a run that an operator asks for next is not late
            self._mark_late(task)
            return
        try:
            self.start(task, group)
        except OstlerError as error:
            task.due_since = 0.0
            self._record_skip(task, error)

    def start(self, task: PeriodicTask, group: ServiceTasks) -> None:
        """Start a run, or queue it for a thread.

        Raises:
            Conflict: It is running.
            Busy: The pool is full.
        """
        if task.is_running or task.is_blocked:
            raise Conflict(f"{task.name} of {task.service} is already running", service=task.service, task=task.name)
        if task.is_async:
            self._owner.spawn(self._run_async(task), name=f"{task.service}.{task.name}")
            task.is_running = True
            return
        with group.lock:
            waits = group.threads_in_use > 0 and (task.is_quick or group.threads_in_use >= group.pool.size)
            if waits:
                group.waiting.append(task)
            else:
                group.threads_in_use += 1
        task.is_running = True
        if not waits:
            self._submit(task, group)
        elif group.spill_timer is None:
            group.spill_timer = self._loop.call_later(_SPILL_DELAY, self._spill_waiting, group)
            self._groups_to_spill.add(group)

    def _submit(self, task: PeriodicTask, group: ServiceTasks) -> None:
        """Submit a task to the pool; the group has already counted the thread."""

        def done(_result: Any, error: BaseException | None) -> None:
            if error is not None:  # the pool was closed before it started
                group.release_thread()
                self._finished.append((task, 0.0, error))
                self._loop_queue.post(self.collect_finished)

        try:
            group.pool.submit(lambda: self._run_chain(task, group), done, label=task.name)
        except OstlerError:
            group.release_thread()
            task.is_running = False
            raise

    def _spill_waiting(self, group: ServiceTasks) -> None:
        """Submit the waiting tasks to threads of their own: the thread that should run them is blocked."""
        if group.spill_timer is not None:
            group.spill_timer.cancel()
            group.spill_timer = None
        self._groups_to_spill.discard(group)
        while True:
            with group.lock:
                if not group.waiting or group.threads_in_use >= group.pool.size:
                    return
                task = group.waiting.popleft()
                group.threads_in_use += 1
            try:
                self._submit(task, group)
            except OstlerError as refused:
                self._record_skip(task, refused)

    def _run_chain(self, task: PeriodicTask, group: ServiceTasks) -> None:
        """Run a task and those that wait behind it. On a thread of the service's pool."""
        following: PeriodicTask | None = task
        while following is not None:
            if following is not task:
                group.pool.set_label(following.name)
            self._run(following)
            following = group.next_waiting()
        if group.waiting:
            self._loop_queue.post(lambda: self._spill_waiting(group))

    def _run(self, task: PeriodicTask) -> None:
        """Run a `def` task. On a thread of the service's pool."""
        if task.is_removed:
            task.is_running = False
            return
        task.started_at = begun = self._clock.monotonic()
        task.running_since = self._clock.wall()
        task.note_start(begun)
        error: BaseException | None = None
        try:
            with serving_to_end(self._make_context(task)) as context:
                result = task.method(context)
            if asyncio.iscoroutine(result):
                result.close()
                raise TypeError(f"{task.name} is a `def` that returned a coroutine; make it `async def`")
        except BaseException as raised:  # noqa: BLE001 - counted and kept; it must not end the thread
            error = raised
        if fork.in_child:
            fork.exit_child(error)
        self._finished.append((task, self._clock.monotonic() - begun, error))
        if self._is_eager or error is not None or task.logged_errors or task.is_late:
            self._loop_queue.post(self.collect_finished)

    async def _run_async(self, task: PeriodicTask) -> None:
        task.started_at = begun = self._clock.monotonic()
        task.running_since = self._clock.wall()
        task.note_start(begun)
        error: BaseException | None = None
        try:
            with serving_to_end(self._make_context(task)) as context:
                await task.method(context)
        except asyncio.CancelledError as cancelled:
            error = cancelled
            raise
        except BaseException as raised:  # noqa: BLE001 - SystemExit would stop the loop
            error = raised
        finally:
            fork.exit_if_child(error)
            self._finish_run(task, self._clock.monotonic() - begun, error)

    def _make_context(self, task: PeriodicTask) -> Context:
        task.context = context = Context(
            task.service, task.name, request_id=f"{task.name}-{task.runs + 1}", clock=self._clock
        )
        if task.time_limit:
            context.deadline = task.started_at + task.time_limit
        if task.is_removed:  # the stop came in between, and found no run to cancel
            task.cancel_run()
        return context

    def _finish_run(self, task: PeriodicTask, seconds: float, error: BaseException | None) -> None:
        # A job that its pool dropped never started: use the current time.
        started = task.running_since or self._clock.wall()
        task.is_running, task.running_since, task.started_at, task.context = False, 0.0, 0.0, None
        task.runs += 1
        task.last_run, task.last_seconds = started, seconds
        if task.pending_due and not (task.is_removed and error is not None):  # else the stop has ended it
            task.last_due, task.pending_due = task.pending_due, 0.0
        if task.is_late and task.is_in_time:
            task.is_late = False
            _log.info("periodic task %s of %s took %s", task.name, task.service, format_seconds(seconds, 2))
        if error is None:
            self._record_success(task)
            add_to_history(task, started, seconds, "")
        elif not (task.is_removed and is_a(error, Cancelled)):  # it was cancelled by the stop
            self._record_failure(task, error, text := error_line(error))
            add_to_history(task, started, seconds, text)
        self._on_run_end(task, started, seconds)

    def _record_success(self, task: PeriodicTask) -> None:
        if task.logged_errors:
            task.logged_errors.clear()
            _log.info("periodic task %s of %s works again", task.name, task.service)
        task.last_error = ""
        task.failures = 0

    def _record_skip(self, task: PeriodicTask, error: OstlerError) -> None:
        self._record_failure(task, error, text := redact(f"skipped: {error}"))
        add_to_history(task, self._clock.wall(), 0.0, text)
        self._on_run_end(task, 0.0, 0.0)

    def _record_failure(self, task: PeriodicTask, error: BaseException, text: str) -> None:
        task.errors += 1
        task.failures += 1
        task.last_error = text
        if task.is_removed or not task.is_new_error(text):
            return
        traceback = None if is_expected(error) else error
        _log.error("periodic task %s of %s failed: %s", task.name, task.service, text, exc_info=traceback)

    def _mark_late(self, task: PeriodicTask) -> None:
        if not task.is_late:
            task.is_late = True
            _log.warning(
                "periodic task %s of %s is slower than its spacing (%s); it is not started again until it ends",
                task.name,
                task.service,
                task.spacing_text,
            )
