"""`ostler periodic`: periodic tasks."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.config.units import format_seconds
from ostler.types import CONTROL_TOPIC, PeriodicHistory, PeriodicStatus

app = kit.app(help="List and show periodic tasks, run one now, pause and resume.")

ServiceArgument = Annotated[str, typer.Argument(help="The service's topic", show_default=False)]
TaskArgument = Annotated[str, typer.Argument(help="The task, as `ostler periodic list` names it", show_default=False)]


def format_state(task: PeriodicStatus) -> str:
    """Return the state of a task: running, hung, slow, paused, disabled, failing, postponed, held or waiting."""
    if task.running_since:
        what = "hung" if task.health == "hung" else "running"
        return f"{what} for {kit.human_elapsed(task.running_since)}"
    states = {
        "disabled": not task.enabled,
        "paused": task.paused,
        "failing": task.last_error,
        "postponed": task.postponed,
        task.health: task.health,
        "held": task.held,
    }
    return next((name for name, applies in states.items() if applies), "waiting")


def format_pause(task: PeriodicStatus) -> str:
    """Return since when a task is paused, by whom and why; empty when it is not."""
    if not task.paused:
        return ""
    by = f" by {task.paused_by}" if task.paused_by else ""
    reason = f": {task.pause_reason}" if task.pause_reason else ""
    return f"since {kit.human_time(task.paused_at)}{by}{reason}"


COLUMNS = [
    kit.Column("service", priority=0, key=True),
    kit.Column("task", priority=0, min_width=12, key=True),
    kit.Column("spacing", priority=2),
    kit.Column("state", format_state, priority=0, min_width=10),
    kit.Column("last run", lambda task: kit.human_time(task.last_run), priority=2, min_width=19),
    kit.Column(
        "took", lambda task: format_seconds(task.last_seconds, units=2) if task.runs else "-", right=True, priority=3
    ),
    kit.Column("next run", lambda task: kit.human_age(task.next_run), priority=0, min_width=11),
    kit.Column("runs", right=True, priority=3),
    kit.Column("errors", right=True, priority=1),
    kit.Column("last error", lambda task: task.last_error or format_pause(task)),
]

_FIELDS: list[str | kit.Column] = [
    "service", "task",
    kit.Column("state", format_state),
    kit.Column("problem", lambda task: task.why or task.postponed),
    kit.Column("paused", format_pause),
    "spacing", "window", "missed",
    kit.Column("time limit", lambda task: format_seconds(task.time_limit, units=2) if task.time_limit else ""),
    kit.Column("next run", lambda task: kit.human_time(task.next_run)),
    kit.Column("last run", lambda task: kit.human_time(task.last_run)),
    kit.Column("late by", lambda task: format_seconds(task.lateness, units=2) if task.lateness >= 1 else ""),
    "runs", "errors",
    kit.Column("skipped", lambda task: task.skipped or ""),
    kit.Column("failures in a row", "failures"),
    "last_error",
]  # fmt: skip

_RUN_COLUMNS = [
    kit.Column("started", lambda run: kit.human_time(run.started), priority=0, min_width=19),
    kit.Column("took", lambda run: format_seconds(run.seconds, units=2), right=True),
    kit.Column("error", priority=0),
]


@app.command("list")
@kit.view
@kit.shows(PeriodicStatus, many=True)
def list_tasks() -> None:
    """List tasks with their runs and errors."""
    with kit.client() as client:
        tasks = client.on(type=list[PeriodicStatus]).call(CONTROL_TOPIC, "periodic_list")
    kit.show_table(tasks, COLUMNS, empty="There are no periodic tasks.")


@app.command()
@kit.shows(PeriodicStatus)
def run(service: ServiceArgument, task: TaskArgument) -> None:
    """Run a task now.

    The schedule of its regular runs does not change.
    """
    with kit.client() as client:
        found = client.on(type=PeriodicStatus).call(CONTROL_TOPIC, "periodic_run", service=service, task=task)
    _show_task(found, "started")


@app.command()
@kit.view
@kit.shows(PeriodicHistory)
def show(service: ServiceArgument, task: TaskArgument) -> None:
    """Show a task with its last runs.

    These are the newest 20, and the newest failures among those before. The newest runs are last.
    """
    with kit.client() as client:
        found = client.on(type=PeriodicHistory).call(CONTROL_TOPIC, "periodic_show", service=service, task=task)
    if kit.json_wanted():
        kit.emit(found)
        return
    if kit.names_wanted():
        kit.show_table([found.task], COLUMNS)
        return
    kit.show_fields(found.task, names=_FIELDS)
    kit.say("")
    kit.show_table(found.runs, _RUN_COLUMNS, empty="It has not run yet.")


@app.command()
@kit.shows(PeriodicStatus)
def pause(
    service: ServiceArgument,
    task: TaskArgument,
    reason: Annotated[str, typer.Option(help="Why; shown with the task", show_default=False)] = "",
) -> None:
    """Pause a task.

    It stays paused until it is resumed, also over restarts of the daemon. A run in progress continues to its end.
    """
    with kit.client() as client:
        found = client.on(type=PeriodicStatus).call(
            CONTROL_TOPIC, "periodic_pause", service=service, task=task, reason=reason
        )
    _show_task(found, "paused" if found.paused else "resumed")


@app.command()
@kit.shows(PeriodicStatus)
def resume(service: ServiceArgument, task: TaskArgument) -> None:
    """Resume a paused task.

    It runs at its next regular time; runs that were due meanwhile are not made up for.
    """
    with kit.client() as client:
        found = client.on(type=PeriodicStatus).call(CONTROL_TOPIC, "periodic_resume", service=service, task=task)
    _show_task(found, "paused" if found.paused else "resumed")


def _show_task(found: PeriodicStatus, what: str) -> None:
    if kit.json_wanted():
        kit.emit(found)
        return
    kit.confirm_done(f"{found.service} {found.task} {what}")
    if found.unsaved:
        kit.say(kit.printable(f"This is in effect but not stored yet, a crash would lose it: {found.unsaved}"))
