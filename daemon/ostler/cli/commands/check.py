"""`ostler check`: validates the configuration without a daemon."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import fast_check, kit

app = kit.app(group=False)


@app.command()
def check(
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="A value that overrides the files; may be repeated"),
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Ask each driver whether it could work on this host")] = False,
    probe_timeout: Annotated[
        float, typer.Option("--probe-timeout", metavar="SECONDS", min=0.1, help="Time limit of each driver")
    ] = 10.0,
) -> None:
    """Check the whole configuration without a daemon, and report all problems.

    It finds what `ostler run` by the same user would refuse. Plugins are imported, and their sections, services and
    drivers are checked: every problem is a line `file:line:column: message`, and the exit code is 78. If the
    configuration is valid, the directories, the database and its migrations are checked, without changing them and also
    while a daemon runs; the exit code is 1 if a daemon could not start, or only without a service or driver whose
    plugin is broken.

    With `--probe` each driver is asked for obstacles on this host, such as a missing tool or an unreachable array, in a
    process of its own; the exit code is 1 if one reports any.
    """
    raise typer.Exit(fast_check.run_check(overrides or [], probe_timeout if probe else None))
