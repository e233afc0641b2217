"""`ostler status`: only for its help and for mistakes; what is right goes through `ostler.cli.glance` without typer."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import glance, kit, session

app = kit.app(group=False)


@app.command()
def status(
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 when something is not well, for monitoring")
    ] = False,
) -> None:
    """Show the daemon, its services and drivers, and what is not well and why."""
    raise typer.Exit(glance.start(session.current(), check))
