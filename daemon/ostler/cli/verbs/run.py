"""`ostler run`: only for its help and for mistakes; what is right goes through `ostler.cli.start` without typer."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit, session, start

app = kit.app(group=False)


@app.command()
def run(
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="A value that wins over the files; may be repeated"),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="How much to log: debug, info, warning or error")
    ] = None,
) -> None:
    """Be the daemon, in the foreground, until it is stopped.

    SIGTERM and Ctrl-C stop it in order, a second one fast; SIGHUP (or `ostler reload`) has it read its configuration
    again; SIGUSR2 writes what it does right now to the log.
    """
    raise typer.Exit(start.start(session.current(), start.Start(overrides or [], log_level)))
