"""`ostler periodic`: what runs by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.config.units import format_seconds
from ostler.types import CONTROL_TOPIC, PeriodicStatus

app = kit.app(help="List periodic tasks, run one now, pause and resume.")

Service = Annotated[str, typer.Argument(help="The service's topic", show_default=False)]
Task = Annotated[str, typer.Argument(help="The task, as `ostler periodic list` names it", show_default=False)]


def state_of(task: PeriodicStatus) -> str:
    """Return what a task is: running, paused, disabled, failing or waiting."""
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
    kit.Column("state", state_of),
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
def run(service: Service, task: Task) -> None:
    """Run a task now.

    Its regular runs stay where they are.
    """
    with kit.client() as client:
        found = client.on(type=PeriodicStatus).call(CONTROL_TOPIC, "periodic_run", service=service, task=task)
    _changed(found, "was started")


@app.command()
def pause(service: Service, task: Task) -> None:
    """Keep a task from running.

    Until it is resumed, or the daemon restarts.
    """
    _set_paused(service, task, paused=True)


@app.command()
def resume(service: Service, task: Task) -> None:
    """Let a paused task run again."""
    _set_paused(service, task, paused=False)


def _set_paused(service: str, task: str, *, paused: bool) -> None:
    with kit.client() as client:
        found = client.on(type=PeriodicStatus).call(
            CONTROL_TOPIC, "periodic_pause", service=service, task=task, paused=paused
        )
    _changed(found, "is paused" if found.paused else "runs again")


def _changed(found: PeriodicStatus, what: str) -> None:
    if kit.json_wanted():
        kit.emit(found)
    else:
        kit.say(kit.printable(f"{found.service} {found.task} {what}"))
