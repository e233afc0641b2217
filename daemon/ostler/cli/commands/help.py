"""`ostler help`: the help of a command, as `--help` shows it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ostler.cli import kit

app = kit.app(group=False)


@app.command()
def help(  # noqa: A001 - the command's name
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", help="The command: `service show`", show_default=False)
    ] = None,
) -> None:
    """Show the help of a command."""
    parent = context.find_root()
    command: Any = parent.command
    for word in words or ():
        found = command.get_command(parent, word) if hasattr(command, "get_command") else None
        if found is None:
            parent.fail(f"unknown command {word}")
        parent = type(context)(found, info_name=word, parent=parent, **found.context_settings)
        command = found
    typer.echo(command.get_help(parent))
