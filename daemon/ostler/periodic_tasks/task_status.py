"""What is seen of a periodic task: its status, and whether it is failing, slow or hung."""

from __future__ import annotations

from typing import NamedTuple

from ostler.config.units import format_seconds
from ostler.periodic_tasks.task import PeriodicTask
from ostler.types import PeriodicStatus

FAILING_RUNS = 3
"""A task whose last runs failed, this many in a row, makes its service degraded."""


class TaskHealth(NamedTuple):
    """What is wrong with a task: `hung`, `slow` or `failing`, and a sentence; both empty when nothing is."""

    kind: str
    text: str


class TaskProblem(NamedTuple):
    """What an operator should know of a task, a sentence."""

    service: str
    task: str
    text: str


WELL = TaskHealth("", "")


def task_health(task: PeriodicTask, monotonic: float) -> TaskHealth:
    """Return what is wrong with a task.

    Hung is a run that exceeds the task's `time_limit`. Slow is a task that was due again before its run had ended, or
    whose last run exceeded its limit, until a run is in time. Failing is one whose last three runs failed. The sentence
    does not change as long as that lasts.

    Args:
        task: The task.
        monotonic: The current time of the monotonic clock.
    """
    what = f"periodic task {task.name} of {task.service}"
    seconds = _running_time(task, monotonic)
    if task.time_limit and max(seconds, task.last_seconds) > task.time_limit:
        kind = "hung" if seconds > task.time_limit else "slow"
        return TaskHealth(kind, f"{what} exceeds its limit ({format_seconds(task.time_limit)})")
    if task.failures >= FAILING_RUNS and task.is_active:
        text = f"{what} failed {FAILING_RUNS} times in a row or more often: {task.last_error}"
        return TaskHealth("failing", text)
    if task.is_late and task.is_running and not seconds:
        waits = "has been waiting for a thread of its service for longer than its spacing"
        return TaskHealth("slow", f"{what} {waits} ({task.spacing_text})")
    if task.is_late:
        return TaskHealth("slow", f"{what} is slower than its spacing ({task.spacing_text})")
    return WELL


def _running_time(task: PeriodicTask, monotonic: float) -> float:
    """Return the seconds for which it has been running; 0 when it is not, or waits for a thread."""
    started_at = task.started_at  # read once: the thread of the run changes it
    return max(0.0, monotonic - started_at) if task.is_running and started_at else 0.0


def problem_line(task: PeriodicTask, monotonic: float) -> str:
    """Return what an operator should look at, also a single failure; empty when there is nothing."""
    health, seconds = task_health(task, monotonic), _running_time(task, monotonic)
    if health.kind in ("hung", "slow"):
        if seconds:
            return f"{health.text}: it has been running for {format_seconds(round(seconds), units=2)} now"
        return (
            health.text
            if task.is_running
            else f"{health.text}: its last run took {format_seconds(task.last_seconds, units=2)}"
        )
    if not (task.last_error and task.is_active):
        return ""
    counts = f"{task.errors} errors in {task.runs} runs"
    return f"periodic task {task.name} of {task.service} failed, {counts}: {task.last_error}"


def task_status(task: PeriodicTask, now: float, wall: float, monotonic: float) -> PeriodicStatus:
    """Return a task as an operator sees it.

    Args:
        task: The task.
        now: The loop's time.
        wall: The wall time.
        monotonic: The time of the monotonic clock.
    """
    health, pause = task_health(task, monotonic), task.pause
    return PeriodicStatus(
        service=task.service,
        task=task.name,
        spacing=task.spacing_text,
        enabled=task.enabled,
        paused=pause is not None,
        paused_at=pause.at if pause else 0.0,
        paused_by=pause.by if pause else "",
        pause_reason=pause.reason if pause else "",
        runs=task.runs,
        errors=task.errors,
        failures=task.failures,
        last_run=task.last_run,
        last_seconds=task.last_seconds,
        last_error=task.last_error,
        next_run=task.next_run_at(now, wall),
        running_since=task.running_since,
        health=health.kind,
        why=health.text,
        window=task.window_text,
        missed="run once" if task.runs_missed else "skip",
        time_limit=task.time_limit,
        held=task.is_held,
        postponed=task.postponed_reason,
        added=task.is_added,
        lateness=task.lateness_at(monotonic),
        skipped=task.skipped,
    )
