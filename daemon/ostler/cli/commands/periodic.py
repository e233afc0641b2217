"""`ostler periodic`: periodic tasks."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.config.units import format_seconds
from ostler.types import CONTROL_TOPIC, PeriodicStatus

app = kit.app(help="List periodic tasks, run one now, pause and resume.")

ServiceArgument = Annotated[str, typer.Argument(help="The service's topic", show_default=False)]
TaskArgument = Annotated[str, typer.Argument(help="The task, as `ostler periodic list` names it", show_default=False)]


def format_state(task: PeriodicStatus) -> str:
    """Return the state of a task: running, paused, disabled, failing or waiting."""
    if task.running_since:
        return f"running for {kit.human_elapsed(task.running_since)}"
    if not task.enabled:
        return "disabled"
    if task.paused:
        return "paused"
    return "failing" if task.last_error else "waiting"


COLUMNS = [
    kit.Column("service"),
    kit.Column("task"),
    kit.Column("spacing"),
    kit.Column("state", format_state),
    kit.Column("last run", lambda task: kit.human_time(task.last_run)),
    kit.Column("took", lambda task: format_seconds(task.last_seconds, units=2) if task.runs else "-", right=True),
    kit.Column("next run", lambda task: kit.human_age(task.next_run)),
    kit.Column("runs", right=True),
    kit.Column("errors", right=True),
    kit.Column("last error", "last_error"),
]


@app.command("list")
def list_tasks() -> None:
    """List tasks with their runs and errors."""
    with kit.client() as client:
        tasks = client.on(type=list[PeriodicStatus]).call(CONTROL_TOPIC, "periodic_list")
    kit.show_table(tasks, COLUMNS, empty="There are no periodic tasks.")


@app.command()
def run(service: ServiceArgument, task: TaskArgument) -> None:
    """Run a task now.

    The schedule of its regular runs does not change.
    """
    with kit.client() as client:
        found = client.on(type=PeriodicStatus).call(CONTROL_TOPIC, "periodic_run", service=service, task=task)
    _show_task(found, "started")


@app.command()
def pause(service: ServiceArgument, task: TaskArgument) -> None:
    """Pause a task.

    It stays paused until it is resumed, or the daemon restarts.
    """
    _set_paused(service, task, paused=True)


@app.command()
def resume(service: ServiceArgument, task: TaskArgument) -> None:
    """Resume a paused task."""
    _set_paused(service, task, paused=False)


def _set_paused(service: str, task: str, *, paused: bool) -> None:
    with kit.client() as client:
        found = client.on(type=PeriodicStatus).call(
            CONTROL_TOPIC, "periodic_pause", service=service, task=task, paused=paused
        )
    _show_task(found, "paused" if found.paused else "resumed")


def _show_task(found: PeriodicStatus, what: str) -> None:
    if kit.json_wanted():
        kit.emit(found)
    else:
        kit.say(kit.printable(f"{found.service} {found.task} {what}"))
