"""Runs the periodic tasks of all services with one heap and one timer."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ostler.aio import TaskOwner, WorkerPool
from ostler.clock import Clock
from ostler.errors import ContractError, NotFound, error_line
from ostler.periodic_tasks.added_tasks import AddedTasks, TaskDefinition
from ostler.periodic_tasks.task import PeriodicTask, collect_tasks
from ostler.periodic_tasks.task_runner import ServiceTasks, TaskRunner
from ostler.periodic_tasks.task_status import TaskHealth, TaskProblem, problem_line, task_health, task_status
from ostler.store import PeriodicRun
from ostler.store.records.periodic_records import Pause, RunEntry, recent_runs
from ostler.time_text import format_moment, format_seconds
from ostler.types import PeriodicStatus

_log = logging.getLogger(__name__)
_TIME_EPSILON = 1e-6
"""Due times that differ by less are the same."""
_POSTPONE_DELAY = 60.0
"""Seconds by which a task is postponed whose next due time is not later than now, or cannot be determined."""
_MAX_RESTORED_RUNS = 50_000
"""The most records of tasks that are not there (now), for when they are added again."""
_BATCH_THRESHOLD = 500
_BATCH_DELAY = 0.009
_EARLY_START = 0.018
"""With many tasks the wake-ups cost the most. So a task may start this early, together with one that is due now; and
with more than `_BATCH_THRESHOLD` tasks the timer waits `_BATCH_DELAY` seconds for more of them."""

OnRun = Callable[[str, str, float, float, str], None]


class PeriodicScheduler:
    """One heap and one timer for the periodic tasks of all services. Made and used on the loop's thread.

    A run starts at its due time or, when the pool is full, as soon as a thread is free. The next due time is computed
    from the last one; times that passed meanwhile are skipped, and a task never runs twice at once. Any exception of a
    run, including SystemExit, is counted, shown in the status, and logged once until the task works again.

    Args:
        clock: The source of time.
        owner: Owns the runs of `async def` tasks.
        on_run: Called after each run: service, task, wall time of the start, seconds, error text or empty.
        on_record_due: Called when the record of a task should be stored soon: it says what need not be run again.
        rng: For the jitter.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        owner: TaskOwner,
        on_run: OnRun | None = None,
        on_record_due: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._owner = owner
        self._on_run = on_run
        self._on_record_due = on_record_due
        self._rng = rng or random.Random()  # noqa: S311 - spreads runs, guards nothing
        self._groups: dict[str, ServiceTasks] = {}
        self._removed_tasks: dict[str, list[PeriodicTask]] = {}
        self._restored_runs: dict[tuple[str, str], PeriodicRun] = {}
        self._unsaved_records: dict[tuple[str, str], PeriodicRun] = {}
        self._changed_tasks: dict[tuple[str, str], PeriodicTask] = {}
        self._heap: list[tuple[float, int, PeriodicTask]] = []
        self._entry_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._runner = TaskRunner(clock, owner, self._loop, self._on_run_end, is_eager=on_run is not None)

    # Tasks ----------------------------------------------------------------------------------------------------------

    def add(
        self, service: str, manager: object, pool: WorkerPool, options: Any, added: AddedTasks | None = None
    ) -> None:
        """Start running the periodic tasks of a manager; replaces those of a service of the same name.

        Args:
            service: The topic of the service.
            manager: The manager with methods marked with `@periodic`.
            pool: The threads for `def` tasks.
            options: The service's options, for spacings and switches.
            added: The tasks that the manager adds while it runs; `sync_added` follows what becomes of them.

        Raises:
            ContractError: A task names an option that does not exist or is not a spacing; nothing has been started.
        """
        tasks = {task.name: task for task in collect_tasks(service, manager, options)}
        self.remove(service)
        group = self._groups[service] = ServiceTasks(tasks, pool)
        group.options, group.added = options, added
        for task in tasks.values():
            self._begin(task)
        self.sync_added(service)
        self._arm_timer()

    def sync_added(self, service: str) -> None:
        """Begin the tasks that the manager of a service has added since the last call, and end those it has removed."""
        group = self._groups.get(service)
        if group is None or group.added is None:
            return
        wanted = {definition.settings.name: definition for definition in group.added.definitions()}
        for task in [task for task in group.tasks.values() if task.is_added]:
            found = wanted.get(task.name)
            if found is not None and found.settings is task.settings:
                del wanted[task.name]
                continue
            del group.tasks[task.name]
            self._end(task)
        for name, definition in wanted.items():
            if name in group.tasks:
                _log.error("periodic task %s of %s was not added: there is one of that name", name, service)
                continue
            self._begin_added(group, service, definition)
        self._arm_timer()

    def _begin_added(self, group: ServiceTasks, service: str, definition: TaskDefinition) -> None:
        try:
            task = PeriodicTask(service, definition.function, definition.settings, group.options, is_added=True)
        except ContractError as error:  # an option has changed since it was added
            _log.error("%s", error)
            return
        ended = self._removed_tasks.get(service, ())
        task.predecessor = next((old for old in ended if old.name == task.name and old.is_running), None)
        group.tasks[task.name] = task
        self._begin(task)

    def _begin(self, task: PeriodicTask) -> None:
        """Plan the first run of a task, which continues from its record."""
        self._restore_record(task)
        now, wall = self._now(), self._clock.wall()
        self._plan_next(task, task.plan_first, now, wall)
        if task.settings.cron:  # what has been missed counts from now on
            self._mark_changed(task)
        if task.missed_at:
            does = "runs once" if task.runs_missed else "is skipped"
            at = format_moment(task.missed_at)
            text = "periodic task %s of %s was due at %s, while it was not running: it %s"
            _log.info(text, task.name, task.service, at, does)
            task.missed_at = 0.0
        self._schedule(task)

    def _end(self, task: PeriodicTask) -> None:
        """Stop running a task; a run in progress continues to its end."""
        task.is_removed = True
        task.cancel_run()
        task.heap_entry = 0
        self._mark_changed(task)
        still_running = [old for old in self._removed_tasks.get(task.service, ()) if old.is_running]
        self._removed_tasks[task.service] = [*still_running, *([task] if task.is_running else [])]

    def remove(self, service: str) -> None:
        """Stop running the tasks of a service; cancel the contexts of runs in progress, which continue to their end."""
        found = self._groups.pop(service, None)
        if found is None:
            return
        running = [task for task in self._removed_tasks.get(service, ()) if task.is_running]
        for task in found.tasks.values():
            task.is_removed = True
            task.cancel_run()
            task.heap_entry = 0
            self._mark_changed(task)
        self._removed_tasks[service] = [*running, *found.tasks.values()]
        self._compact()
        self._arm_timer()

    def apply_options(self, service: str, options: Any) -> None:
        """Apply new options of a service: spacings and switches. Runs in progress are not touched.

        Raises:
            ContractError: As `add`.
        """
        found = self._groups.get(service)
        if found is None:
            return
        found.options = options
        for task in found.tasks.values():
            self._apply_options(task, options)
        self._compact()
        self._arm_timer()

    def _apply_options(self, task: PeriodicTask, options: Any) -> None:
        before, spacing, enabled, cron = task.plan_key, task.spacing, task.enabled, task.cron_text
        task.apply_options(options)
        if task.plan_key == before:
            return
        now, wall = self._now(), self._clock.wall()
        if (task.enabled and not enabled) or task.cron_text != cron:
            self._plan_next(task, task.plan_resumed, now, wall)
        elif task.spacing != spacing and not task.settings.cron:
            task.plan_new_spacing(spacing, now, self._rng)
        elif task.is_held:  # its window has changed, and may be open now
            task.plan_at(now)
        self._schedule(task)

    def pause(self, service: str, task: str, *, by: str = "", reason: str = "") -> None:
        """Pause a task until it is resumed, also over restarts; one that is paused keeps the first pause.

        Args:
            service: The topic of the service.
            task: The name of the task.
            by: Who pauses it.
            reason: Why.

        Raises:
            NotFound: There is no such task.
        """
        found = self._get_task(service, task)
        if found.pause is not None:
            return
        found.pause = Pause(self._clock.wall(), by, reason)
        self._mark_changed(found)
        self._schedule(found)
        self._arm_timer()

    def resume(self, service: str, task: str) -> None:
        """Resume a paused task at its next regular time.

        Raises:
            NotFound: There is no such task.
        """
        found = self._get_task(service, task)
        if found.pause is None:
            return
        found.pause = None
        self._mark_changed(found)
        self._plan_next(found, found.plan_resumed, self._now(), self._clock.wall())
        self._schedule(found)
        self._arm_timer()

    def run_now(self, service: str, task: str) -> None:
        """Start a run at once, also of a paused or disabled task; its regular times are unchanged.

        Raises:
            NotFound: There is no such task.
            Conflict: It is running.
            Busy: The pool of the service is full.
        """
        self._runner.collect_finished()
        self._runner.start(self._get_task(service, task), self._groups[service])

    # Status ---------------------------------------------------------------------------------------------------------

    def problems(self) -> list[TaskProblem]:
        """Return the tasks whose last run failed, and those that are slow or hang."""
        self._runner.collect_finished()
        monotonic = self._clock.monotonic()
        return [
            TaskProblem(task.service, task.name, line)
            for name in sorted(self._groups)
            for task in self._groups[name].tasks.values()
            if (line := problem_line(task, monotonic))
        ]

    def unhealthy_tasks(self, service: str) -> dict[str, TaskHealth]:
        """Return the tasks of a service that are failing, slow or hung, by name: its service is degraded then."""
        self._runner.collect_finished()
        found, monotonic = self._groups.get(service), self._clock.monotonic()
        health = {task.name: task_health(task, monotonic) for task in found.tasks.values()} if found else {}
        return {name: each for name, each in health.items() if each.kind}

    def statuses(self) -> list[PeriodicStatus]:
        """Return every task as an operator sees it, sorted by service and name."""
        self._runner.collect_finished()
        now, wall, monotonic = self._now(), self._clock.wall(), self._clock.monotonic()
        return [
            task_status(task, now, wall, monotonic)
            for name in sorted(self._groups)
            for _, task in sorted(self._groups[name].tasks.items())
        ]

    def last_runs(self, service: str, limit: int) -> list[PeriodicRun]:
        """Return the records of at most `limit` tasks of a service, those whose last run failed first."""
        found = self._groups.get(service)
        tasks = found.tasks.values() if found else ()
        failed = itertools.islice((task for task in tasks if task.last_error), limit)
        others = (task for task in tasks if not task.last_error)
        return [_to_record(task) for task in itertools.islice(itertools.chain(failed, others), limit)]

    def status(self, service: str, task: str) -> PeriodicStatus:
        """Return one task as an operator sees it.

        Raises:
            NotFound: There is no such task.
        """
        self._runner.collect_finished()
        return task_status(self._get_task(service, task), self._now(), self._clock.wall(), self._clock.monotonic())

    def unsaved_history(self, service: str, task: str) -> list[RunEntry]:
        """Return the runs of a task that `pop_history` has not handed out.

        Raises:
            NotFound: There is no such task.
        """
        self._runner.collect_finished()
        return list(self._get_task(service, task).unsaved_runs)

    def running_tasks(self, service: str) -> list[str]:
        """Return the names of the tasks of a service that are running or wait for a thread, also after `remove`."""
        self._runner.collect_finished()
        found = self._groups.get(service)
        tasks = [*(found.tasks.values() if found else ()), *self._removed_tasks.get(service, ())]
        return sorted(task.name for task in tasks if task.is_running)

    def late_tasks(self, service: str) -> set[str]:
        """Return the names of the tasks that were due again before their run had ended, also after `remove`."""
        found = self._groups.get(service)
        tasks = [*(found.tasks.values() if found else ()), *self._removed_tasks.get(service, ())]
        return {task.name for task in tasks if task.is_running and task.is_late}

    def pop_changed_runs(self) -> list[PeriodicRun]:
        """Return the record of every task that has changed since the last call, for the database."""
        self._runner.collect_finished()
        changed, self._changed_tasks = self._changed_tasks, {}
        unsaved, self._unsaved_records = self._unsaved_records, {}
        unsaved.update({key: _to_record(task) for key, task in changed.items()})
        return list(unsaved.values())

    def put_back_runs(self, runs: Iterable[PeriodicRun]) -> None:
        """Take back records that could not be stored; `pop_changed_runs` returns them again, or newer ones."""
        self._unsaved_records.update({(run.service, run.task): run for run in runs})

    def pop_history(self) -> dict[tuple[str, str], list[RunEntry]]:
        """Return the runs since the last call, by service and task, for the database."""
        self._runner.collect_finished()
        found = {}
        for task in self._tasks_with_history():
            if task.unsaved_runs:
                found[task.service, task.name], task.unsaved_runs = task.unsaved_runs, []
        return found

    def put_back_history(self, runs: Mapping[tuple[str, str], list[RunEntry]]) -> None:
        """Take back runs that could not be stored; those of tasks that were removed meanwhile are lost."""
        for task in self._tasks_with_history():
            if before := runs.get((task.service, task.name)):
                task.unsaved_runs = recent_runs([*before, *task.unsaved_runs])

    def _tasks_with_history(self) -> Iterator[PeriodicTask]:
        """Yield the tasks there are, and those removed since; of one name, the newest last."""
        for removed in self._removed_tasks.values():
            yield from removed
        for group in self._groups.values():
            yield from group.tasks.values()

    def restore(self, runs: Iterable[PeriodicRun]) -> None:
        """Restore records from before a restart; must be called before `add`.

        The counts continue from there, and a spacing counts from the last run: a daily task runs once a day even if the
        daemon is restarted twice a day.
        """
        self._restored_runs.update({(run.service, run.task): run for run in runs})

    # The heap and the timer -----------------------------------------------------------------------------------------

    def _schedule(self, task: PeriodicTask) -> None:
        # An outdated entry of a task is dropped when it is due: cheaper than searching the heap.
        if not task.is_active:
            task.heap_entry = 0
            return
        self._entry_count += 1
        task.heap_entry = self._entry_count
        heapq.heappush(self._heap, (task.due_at, task.heap_entry, task))

    def _compact(self) -> None:
        """Drop outdated entries, which would otherwise stay in memory until they are due."""
        self._heap = [row for row in self._heap if row[1] == row[2].heap_entry]
        heapq.heapify(self._heap)

    def _arm_timer(self) -> None:
        heap = self._heap
        while heap and heap[0][1] != heap[0][2].heap_entry:
            heapq.heappop(heap)
        if not heap:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        when = heap[0][0] + (_BATCH_DELAY if len(heap) > _BATCH_THRESHOLD else 0.0)
        if self._timer is not None:
            if self._timer.when() == when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        """Start everything that is due. One wake-up, however many there are."""
        self._timer = None
        self._runner.collect_finished()
        heap, now = self._heap, self._now()
        wall = self._clock.wall()
        while heap and (heap[0][0] <= now + _TIME_EPSILON or self._is_due_soon(*heap[0], now)):
            _, entry, task = heapq.heappop(heap)
            if entry != task.heap_entry:
                continue
            self._begin_due(task, now, wall)
            self._schedule(task)
        self._arm_timer()

    def _begin_due(self, task: PeriodicTask, now: float, wall: float) -> None:
        try:
            if self._is_due(task, now, wall):
                task.pending_due = max(wall, task.cron_wall)
                self._runner.start_due(task, self._groups[task.service])
                self._plan_next(task, task.plan_next, now, wall, later=True)
        except Exception as error:  # noqa: BLE001 - the heap must be armed again, or no task would run any longer
            if not task.postponed_reason:
                _log.error("periodic task %s of %s could not be started", task.name, task.service, exc_info=error)
            self._postpone(task, now, error_line(error))

    def _is_due(self, task: PeriodicTask, now: float, wall: float) -> bool:
        """Return whether a task whose entry is due must run; a cron task may find that the clock was set."""
        if not task.has_calendar:
            return True
        if task.postponed_reason:
            self._plan_next(task, task.plan_resumed, now, wall, later=True)
            return False
        try:
            return task.check_calendar(now, wall, self._rng)
        except (ArithmeticError, OSError, ValueError) as error:
            self._postpone(task, now, error_line(error))
            return False

    def _plan_next(
        self,
        task: PeriodicTask,
        plan: Callable[[float, float, random.Random], None],
        now: float,
        wall: float,
        *,
        later: bool = False,
    ) -> None:
        """Let a task compute its next time; whatever it returns or raises, the loop and other tasks continue.

        Args:
            task: The task.
            plan: Its method that computes the time.
            now: The loop's time.
            wall: The wall time.
            later: Whether the time must be later than now, so that the task is not due again at once.
        """
        try:
            plan(now, wall, self._rng)
        except (ArithmeticError, OSError, ValueError) as error:
            self._postpone(task, now, error_line(error))
            return
        if later and not task.due_at > now + _TIME_EPSILON:
            self._postpone(task, now, "it is not later than now")
        else:
            task.postponed_reason = ""

    def _postpone(self, task: PeriodicTask, now: float, why: str) -> None:
        """Postpone a task: a time that is not later than now would block the loop indefinitely."""
        if not task.postponed_reason:
            text = "periodic task %s of %s (%s) is postponed by %s: its next due time cannot be determined, %s"
            _log.error(text, task.name, task.service, task.spacing_text, format_seconds(_POSTPONE_DELAY), why)
        task.postponed_reason = why
        task.plan_at(now + _POSTPONE_DELAY)

    @staticmethod
    def _is_due_soon(due: float, entry: int, task: PeriodicTask, now: float) -> bool:
        return entry != task.heap_entry or (due <= now + _EARLY_START and task.spacing >= 1 and not task.settings.cron)

    def _on_run_end(self, task: PeriodicTask, started: float, seconds: float) -> None:
        self._mark_changed(task)
        if task.settings.cron and task.runs_missed:
            self._on_record_due()
        if started and self._on_run is not None:
            self._on_run(task.service, task.name, started, seconds, task.last_error)

    # Helpers --------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._loop.time()

    def _get_task(self, service: str, task: str) -> PeriodicTask:
        found = self._groups.get(service)
        if found is None or task not in found.tasks:
            raise NotFound(
                f"periodic task {task} of service {service} not found",
                hint="see `ostler periodic list`",
                service=service,
            )
        return found.tasks[task]

    def _mark_changed(self, task: PeriodicTask) -> None:
        """Remember that the record of a task has changed, and the record itself of a removed one."""
        self._changed_tasks[task.service, task.name] = task
        if task.is_removed:
            self._restored_runs.pop((task.service, task.name), None)
            self._restored_runs[task.service, task.name] = _to_record(task)
            if len(self._restored_runs) > _MAX_RESTORED_RUNS:
                del self._restored_runs[next(iter(self._restored_runs))]

    def _restore_record(self, task: PeriodicTask) -> None:
        run = self._restored_runs.pop((task.service, task.name), None)
        if run is not None:
            task.runs, task.errors = run.runs, run.errors
            task.last_run, task.last_seconds, task.last_error = run.last_run, run.last_seconds, run.last_error
            task.last_due = run.last_due
            if run.paused_at:
                task.pause = Pause(run.paused_at, run.paused_by, run.pause_reason)


def _to_record(task: PeriodicTask) -> PeriodicRun:
    pause = task.pause or Pause(0.0, "", "")
    return PeriodicRun(
        task.service,
        task.name,
        task.runs,
        task.errors,
        task.last_run,
        task.last_seconds,
        task.last_error,
        task.last_due,
        pause.at,
        pause.by,
        pause.reason,
    )
