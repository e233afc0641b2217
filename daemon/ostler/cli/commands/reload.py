"""`ostler reload`: reloads the configuration, and waits for the result."""

from __future__ import annotations

import typer

from ostler.cli import kit
from ostler.errors import EXIT_FAILURE
from ostler.types import CONTROL_TOPIC, ReloadResult

RELOAD_TIMEOUT = 300.0
"""Seconds to wait for the result: drivers may have to be initialised again."""

app = kit.app(group=False)


@app.command()
def reload() -> None:
    """Reload the configuration of the daemon, and wait for the result.

    An invalid configuration changes nothing; every problem is shown, and the exit code is 78. If it was applied and a
    service failed to adopt it, the exit code is 1. SIGHUP does the same, without showing the result.
    """
    with kit.client(timeout=RELOAD_TIMEOUT) as client:
        verdict = client.on(type=ReloadResult).call(CONTROL_TOPIC, "reload")
    if kit.json_wanted():
        kit.emit(verdict)
    else:
        show_verdict(verdict)
    if not verdict.ok:
        raise typer.Exit(EXIT_FAILURE)


def show_verdict(verdict: ReloadResult) -> None:
    """Show the result; problems go to stderr."""
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
        kit.say("These changes take effect after a restart (`systemctl restart ostler`):")
        for name in verdict.needs_restart:
            kit.say(f"  {kit.printable(name)}")
