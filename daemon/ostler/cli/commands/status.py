"""`ostler status`: help and usage errors only; a valid command goes through `ostler.cli.fast_status`, without typer."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import fast_status, invocation, kit
from ostler.types import DaemonStatus

app = kit.app(group=False)


@app.command()
@kit.shows(DaemonStatus)
def status(
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if there is a problem, for monitoring")] = False,
) -> None:
    """Show the daemon, its services and drivers, and problems with their reasons."""
    raise typer.Exit(fast_status.run_status(invocation.current_invocation(), check))
