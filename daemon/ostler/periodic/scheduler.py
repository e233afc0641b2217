"""Runs the periodic tasks of all services on one heap and one timer."""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any

from ostler.aio import TaskOwner, WorkerPool
from ostler.clock import Clock
from ostler.errors import NotFound, describe
from ostler.periodic.runs import Runs, TaskGroup
from ostler.periodic.task import PeriodicTask, tasks_of
from ostler.store import PeriodicRun
from ostler.types import PeriodicStatus

_log = logging.getLogger(__name__)
_SAME = 1e-6
"""Seconds by which two due times have to differ to be two."""
_PUT_OFF = 60.0
"""Seconds after which a task is looked at again whose next regular time is not later than now, or cannot be told."""
_MANY = 500
_LATE = 0.009
_EARLY = 0.018
"""With many tasks the wake-ups cost the most. So a task may start this early, together with one that is due now; and
where there are more than `_MANY`, the timer waits `_LATE` seconds for more of them."""

OnRun = Callable[[str, str, float, float, str], None]


class PeriodicScheduler:
    """One heap and one timer for the periodic tasks of all services. Made and used on the loop's thread.

    A run starts at its due time or, when the pool is full, as soon as a thread is free. The next due time is counted
    from the last one; times that passed meanwhile are skipped, and a task never runs twice at once. Whatever a run
    raises, SystemExit included, is counted, kept in the status, and logged once until the task works again.

    Args:
        clock: The source of time.
        owner: Owns the runs of `async def` tasks.
        on_run: Told after each run: service, task, wall time of the start, seconds, error text or empty.
        chance: For the jitter.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        owner: TaskOwner,
        on_run: OnRun | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._owner = owner
        self._on_run = on_run
        self._chance = chance or random.Random()  # noqa: S311 - spreads runs, guards nothing
        self._services: dict[str, TaskGroup] = {}
        self._leaving: dict[str, list[PeriodicTask]] = {}
        self._restored: dict[tuple[str, str], PeriodicRun] = {}
        self._changed: dict[tuple[str, str], PeriodicTask] = {}
        self._heap: list[tuple[float, int, PeriodicTask]] = []
        self._entries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._runs = Runs(clock, owner, self._loop, self._ended, eager=on_run is not None)

    # What there is to run -------------------------------------------------------------------------------------------

    def add(self, service: str, manager: object, pool: WorkerPool, options: Any) -> None:
        """Begin to run the periodic tasks of a manager; replaces those of a service of the same name.

        Args:
            service: The topic of the service.
            manager: Whose methods are marked with `@periodic`.
            pool: The threads for `def` tasks.
            options: The service's options, for spacings and switches.

        Raises:
            ContractError: A task names an option that is not there or holds no spacing; nothing has begun.
        """
        tasks = {task.name: task for task in tasks_of(service, manager, options)}
        self.remove(service)
        self._services[service] = TaskGroup(tasks, pool)
        now, wall = self._now(), self._clock.wall()
        for task in tasks.values():
            self._restore(task)
            self._plan(task, task.plan_first, now, wall)
            self._push(task)
        self._arm()

    def remove(self, service: str) -> None:
        """Run the tasks of a service no more. A run that is under way is told so, and goes on to its end."""
        found = self._services.pop(service, None)
        if found is None:
            return
        self._leaving[service] = list(found.tasks.values())
        for task in found.tasks.values():
            task.removed = True
            task.cancel_run()
            task.entry = 0
            self._keep(task)
        self._compact()
        self._arm()

    def respace(self, service: str, options: Any) -> None:
        """Take over new options of a service: spacings and switches. Runs under way are not touched.

        Raises:
            ContractError: As `add`.
        """
        found = self._services.get(service)
        if found is None:
            return
        now, wall = self._now(), self._clock.wall()
        for task in found.tasks.values():
            spacing, enabled = task.spacing, task.enabled
            task.take(options)
            if task.enabled and not enabled:
                self._plan(task, task.plan_again, now, wall)
            elif task.spacing != spacing and not task.mark.cron:
                task.respaced(spacing, now, self._chance)
            elif task.enabled is enabled:
                continue
            self._push(task)
        self._compact()
        self._arm()

    def pause(self, service: str, task: str, paused: bool = True) -> None:
        """Keep a task from running by itself, or let it again; then its next run comes at its next regular time.

        Raises:
            NotFound: There is no such task.
        """
        found = self._task(service, task)
        if found.paused is paused:
            return
        found.paused = paused
        if not paused:
            self._plan(found, found.plan_again, self._now(), self._clock.wall())
        self._push(found)
        self._arm()

    def resume(self, service: str, task: str) -> None:
        """Let a paused task run again; see `pause`."""
        self.pause(service, task, paused=False)

    def run_now(self, service: str, task: str) -> None:
        """Begin a run at once, also of a paused or disabled task; its regular times stay as they are.

        Raises:
            NotFound: There is no such task.
            Conflict: It is running.
            Busy: The pool of the service is full.
        """
        self._runs.collect()
        self._runs.begin(self._task(service, task), self._services[service])

    # What can be seen -----------------------------------------------------------------------------------------------

    def troubles(self) -> list[str]:
        """Return the active tasks whose last run failed, and those that outlast their spacing, a line each."""
        lines = []
        for task in (task for name in sorted(self._services) for task in self._services[name].tasks.values()):
            if task.last_error and task.active:
                lines.append(
                    f"periodic task {task.name} of {task.service} failed, {task.errors} errors in {task.runs} runs: "
                    f"{task.last_error}"
                )
            if task.late and task.running:
                lasts = f", for {max(0.0, self._clock.wall() - task.running_since):.0f} s now"
                does = "runs" if task.running_since else "waits for a thread of its service"
                lines.append(
                    f"periodic task {task.name} of {task.service} {does} for longer than its spacing "
                    f"({task.spacing_text}){lasts if task.running_since else ''}"
                )
        return lines

    def statuses(self) -> list[PeriodicStatus]:
        """Return every task as an operator sees it, sorted by service and name."""
        self._runs.collect()
        now, wall = self._now(), self._clock.wall()
        return [
            PeriodicStatus(
                service=task.service,
                task=task.name,
                spacing=task.spacing_text,
                enabled=task.enabled,
                paused=task.paused,
                runs=task.runs,
                errors=task.errors,
                last_run=task.last_run,
                last_seconds=task.last_seconds,
                last_error=task.last_error,
                next_run=task.next_wall(now, wall),
                running_since=task.running_since,
            )
            for name in sorted(self._services)
            for _, task in sorted(self._services[name].tasks.items())
        ]

    def running(self, service: str) -> list[str]:
        """Return the names of the tasks of a service that run now or wait for a thread, after `remove` as well."""
        self._runs.collect()
        found = self._services.get(service)
        tasks = [*(found.tasks.values() if found else ()), *self._leaving.get(service, ())]
        return sorted(task.name for task in tasks if task.running)

    def late(self, service: str) -> set[str]:
        """Return the names of the tasks whose run was due again before it had ended, after `remove` as well."""
        found = self._services.get(service)
        tasks = [*(found.tasks.values() if found else ()), *self._leaving.get(service, ())]
        return {task.name for task in tasks if task.running and task.late}

    def changed_runs(self) -> list[PeriodicRun]:
        """Return the record of every task that has run since this was last asked, to be kept in the database."""
        self._runs.collect()
        changed, self._changed = self._changed, {}
        return [_record(task) for task in changed.values()]

    def restore(self, runs: Iterable[PeriodicRun]) -> None:
        """Take over records from before a restart; to be called before `add`.

        The counts go on from there, and a spacing counts from the last run: a task that runs once a day does so also
        where the daemon is restarted twice a day.
        """
        self._restored.update({(run.service, run.task): run for run in runs})

    # The heap and the timer -----------------------------------------------------------------------------------------

    def _push(self, task: PeriodicTask) -> None:
        # An entry that is no longer the task's own is dropped when it comes up: cheaper than to search the heap.
        if not task.active:
            task.entry = 0
            return
        self._entries += 1
        task.entry = self._entries
        heapq.heappush(self._heap, (task.due, task.entry, task))

    def _compact(self) -> None:
        """Drop dead entries, else those of removed services would stay in memory until they are due."""
        self._heap = [row for row in self._heap if row[1] == row[2].entry]
        heapq.heapify(self._heap)

    def _arm(self) -> None:
        heap = self._heap
        while heap and heap[0][1] != heap[0][2].entry:
            heapq.heappop(heap)
        if not heap:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        when = heap[0][0] + (_LATE if len(heap) > _MANY else 0.0)
        if self._timer is not None:
            if self._timer.when() == when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        """Begin everything that is due. One wake-up, however many there are."""
        self._timer = None
        self._runs.collect()
        heap, now = self._heap, self._now()
        wall = self._clock.wall()
        while heap and (heap[0][0] <= now + _SAME or self._soon(*heap[0], now)):
            _, entry, task = heapq.heappop(heap)
            if entry != task.entry:
                continue
            self._begin_due(task, now, wall)
            self._push(task)
        self._arm()

    def _begin_due(self, task: PeriodicTask, now: float, wall: float) -> None:
        try:
            if self._is_due(task, now, wall):
                self._runs.due(task, self._services[task.service])
                self._plan(task, task.plan_next, now, wall, later=True)
        except Exception as error:  # noqa: BLE001 - the heap must be armed again, or no task would run any more
            if not task.put_off:
                _log.error("periodic task %s of %s could not be begun", task.name, task.service, exc_info=error)
            self._put_off(task, now, describe(error))

    def _is_due(self, task: PeriodicTask, now: float, wall: float) -> bool:
        """Return whether a task whose entry came up is to run; a cron task may find that the clock was set."""
        if not task.mark.cron:
            return True
        if task.put_off:
            self._plan(task, task.plan_again, now, wall, later=True)
            return False
        try:
            return task.look_at_cron(now, wall)
        except (ArithmeticError, OSError, ValueError) as error:
            self._put_off(task, now, describe(error))
            return False

    def _plan(
        self,
        task: PeriodicTask,
        plan: Callable[[float, float, random.Random], None],
        now: float,
        wall: float,
        *,
        later: bool = False,
    ) -> None:
        """Have a task compute its next time; whatever that gives or raises, the loop and other tasks go on.

        Args:
            task: The task.
            plan: Its method that computes the time.
            now: The loop's time.
            wall: The wall time.
            later: Whether the time has to be later than now, so that the task does not come up again at once.
        """
        try:
            plan(now, wall, self._chance)
        except (ArithmeticError, OSError, ValueError) as error:
            self._put_off(task, now, describe(error))
            return
        if later and not task.due > now + _SAME:
            self._put_off(task, now, "it is not later than now")
        else:
            task.put_off = ""

    def _put_off(self, task: PeriodicTask, now: float, why: str) -> None:
        """Look at a task again in a while: a time that is not later than now would hold up the loop for ever."""
        if not task.put_off:
            text = "periodic task %s of %s (%s) is put off by %g s: its next time cannot be told, %s"
            _log.error(text, task.name, task.service, task.spacing_text, _PUT_OFF, why)
        task.put_off = why
        task.plan_later(now + _PUT_OFF)

    @staticmethod
    def _soon(due: float, entry: int, task: PeriodicTask, now: float) -> bool:
        return entry != task.entry or (due <= now + _EARLY and task.spacing >= 1 and not task.mark.cron)

    def _ended(self, task: PeriodicTask, started: float, seconds: float) -> None:
        self._keep(task)
        if started and self._on_run is not None:
            self._on_run(task.service, task.name, started, seconds, task.last_error)

    # Small things ---------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._loop.time()

    def _task(self, service: str, task: str) -> PeriodicTask:
        found = self._services.get(service)
        if found is None or task not in found.tasks:
            raise NotFound(
                f"service {service} has no periodic task {task}", hint="see `ostler periodic list`", service=service
            )
        return found.tasks[task]

    def _keep(self, task: PeriodicTask) -> None:
        """Remember that the record of a task has changed; and the record itself of one that is no more."""
        self._changed[task.service, task.name] = task
        if task.removed:
            self._restored[task.service, task.name] = _record(task)

    def _restore(self, task: PeriodicTask) -> None:
        run = self._restored.pop((task.service, task.name), None)
        if run is not None:
            task.runs, task.errors = run.runs, run.errors
            task.last_run, task.last_seconds, task.last_error = run.last_run, run.last_seconds, run.last_error


def _record(task: PeriodicTask) -> PeriodicRun:
    return PeriodicRun(
        task.service, task.name, task.runs, task.errors, task.last_run, task.last_seconds, task.last_error
    )
