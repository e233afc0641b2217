"""`ostler reload`: have the configuration read again, and wait for what comes of it."""

from __future__ import annotations

import typer

from ostler.cli import kit
from ostler.errors import FAILED
from ostler.types import CONTROL_TOPIC, Verdict

PATIENCE = 300.0
"""Seconds to wait for a verdict: drivers may have to be initialised again."""

app = kit.app(group=False)


@app.command()
def reload() -> None:
    """Have the daemon read its configuration again, and wait for its verdict.

    A configuration with a problem changes nothing; every problem is shown, and the exit code is 78. When it was taken
    over and a service could not follow, the exit code is 1. It is the same as SIGHUP, except that it tells how it went.
    """
    with kit.client(timeout=PATIENCE) as client:
        verdict = client.on(type=Verdict).call(CONTROL_TOPIC, "reload")
    if kit.json_wanted():
        kit.emit(verdict)
    else:
        show(verdict)
    if not verdict.ok:
        raise typer.Exit(FAILED)


def show(verdict: Verdict) -> None:
    """Show a verdict to people; problems go to stderr."""
    for problem in verdict.problems:
        kit.warn(kit.printable(problem))
    kit.say(kit.printable(verdict.summary))
    for line in verdict.pending:
        kit.say(f"  {kit.printable(line)}")
    if verdict.changes:
        kit.say()
        kit.show_table(verdict.changes, [kit.Column("option", "path"), "old", "new", "needs"])
    if verdict.needs_restart:
        kit.say()
        kit.say("Needs a restart (`systemctl restart ostler`) before it is in force:")
        for name in verdict.needs_restart:
            kit.say(f"  {kit.printable(name)}")
