"""`ostler run`, for its help and for usage errors; valid command lines run `ostler.cli.fast_run` without typer."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import fast_run, invocation, kit

app = kit.app(group=False)


@app.command()
def run(
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="A value that overrides the files; may be repeated"),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Log level: debug, info, warning or error")
    ] = None,
    safe: Annotated[
        bool, typer.Option("--safe", help="Load only plugins that come with Ostler, and leave out what needs others")
    ] = False,
    dev: Annotated[
        bool, typer.Option("--dev", help="Start the daemon again when files of a plugin change, to develop it")
    ] = False,
) -> None:
    """Run the daemon in the foreground until it is stopped.

    SIGTERM and Ctrl-C stop it gracefully, a second one fast; SIGHUP (or `ostler reload`) reloads the configuration;
    SIGUSR2 writes the internal state to the log.
    """
    options = fast_run.RunOptions(overrides or [], log_level, safe)
    if dev:
        from ostler.cli.dev_mode import supervise  # only for this option

        raise typer.Exit(supervise(invocation.current_invocation(), options))
    raise typer.Exit(fast_run.run_foreground(invocation.current_invocation(), options))
