"""`ostler reload`: reloads the configuration, and waits for the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ostler.cli import kit
from ostler.cli.fast_status import change_texts
from ostler.errors import EXIT_FAILURE
from ostler.reload_types import OptionChange, ReloadPlan, ReloadResult, ReloadStep
from ostler.types import CONTROL_TOPIC

RELOAD_TIMEOUT = 900.0
"""Seconds to wait for the result: work in progress of services that are restarted is waited for."""

_CHANGE_COLUMNS = [
    kit.Column("option", "path", priority=0, min_width=20),
    kit.Column("old", lambda change: change.old_text or change.old, priority=1, min_width=10),
    kit.Column("new", lambda change: change.new_text or change.new, priority=0, min_width=10),
    kit.Column("needs", priority=0, min_width=16),
]

app = kit.app(group=False)


@app.command()
@kit.shows(ReloadResult, ReloadPlan)
def reload(
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would change, and how, without changing anything")
    ] = False,
    keep_failed: Annotated[
        bool,
        typer.Option("--keep-failed", help="Keep new options and drivers that do not work yet; they are tried again"),
    ] = False,
) -> None:
    """Reload the configuration of the daemon, and wait for the result.

    An invalid configuration changes nothing; every problem is shown, and the exit code is 78. If a step fails, all of
    them are undone, everything runs as before, and the exit code is 1. SIGHUP does the same, without showing the
    result.
    """
    with kit.client(timeout=RELOAD_TIMEOUT) as client:
        if plan:
            planned = client.on(type=ReloadPlan).call(CONTROL_TOPIC, "reload_plan")
            kit.emit(planned) if kit.json_wanted() else show_plan(planned)
            return
        arguments = {"keep_failed": True} if keep_failed else {}  # an older daemon does not know it
        verdict = client.on(type=ReloadResult).call(CONTROL_TOPIC, "reload", **arguments)
    kit.emit(verdict) if kit.json_wanted() else show_verdict(verdict)
    if not verdict.ok:
        raise typer.Exit(EXIT_FAILURE)


def show_plan(plan: ReloadPlan) -> None:
    """Show what a reload would do; warnings go to stderr."""
    for warning in plan.warnings:
        kit.warn(kit.printable(warning))
    if not plan.changes and not plan.needs_restart:
        kit.say("Nothing has changed.")
        return
    show_changes(plan.changes)
    if plan.steps:
        kit.say()
        kit.say("Steps, in this order; if one fails, all of them are undone:")
        for number, step in enumerate(plan.steps, 1):
            kit.say(f"  {number}. {kit.printable(step_line(step))}")
    show_waiting(plan.needs_restart)


def show_verdict(verdict: ReloadResult) -> None:
    """Show the result; problems go to stderr."""
    for problem in verdict.problems:
        if problem not in verdict.summary:
            kit.warn(kit.printable(problem))
    kit.say(kit.printable(verdict.summary))
    for line in verdict.pending:
        kit.say(f"  {kit.printable(line)}")
    if verdict.changes:
        kit.say()
        show_changes(verdict.changes)
    steps = [step for step in verdict.steps if step.options]
    if any(step.outcome != "done" for step in steps):
        for step in steps:
            kit.say(f"  {kit.printable(f'{step.action} {step.subject}: {step.outcome}')}")
        if any(step.outcome == "failed" and "/" in step.subject for step in steps):
            kit.say("`ostler reload --keep-failed` applies it nevertheless, and tries failed drivers again.")
    show_waiting(verdict.needs_restart)


def show_changes(changes: Sequence[OptionChange]) -> None:
    """Show changes with their old and new values, and what each needs."""
    kit.show_table(changes, _CHANGE_COLUMNS)


def step_line(step: ReloadStep) -> str:
    """Return a step as a line: what is done, what became of it, and why."""
    notes = "; ".join(note for note in (step.outcome, step.why) if note)
    return f"{step.action} {step.subject}" + (f" ({notes})" if notes else "")


def show_waiting(changes: Sequence[OptionChange]) -> None:
    """Show the changes that wait for a new process, each with the value that runs until then."""
    if not changes:
        return
    kit.say()
    kit.say("These changes take effect after a restart (`systemctl restart ostler`):")
    for change in changes:
        old, new = change_texts(change)
        kit.say(f"  {kit.printable(f'{change.path}: {old} -> {new}')}")
