"""`ostler help`: the help of a command, as `--help` shows it, and the schema of what it shows for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ostler.cli import kit
from ostler.cli.shown_types import shown_types
from ostler.errors import NotFound, PluginError

app = kit.app(group=False)


@app.command()
@kit.shows(dict[str, Any])
def help(  # noqa: A001 - the command's name
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", help="The command: `service show`", show_default=False)
    ] = None,
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Print the JSON Schema of what it shows with -o json; of all without a command"),
    ] = False,
) -> None:
    """Show the help of a command, or the schema of its output."""
    parent = context.find_root()
    command: Any = parent.command
    for word in words or ():
        found = command.get_command(parent, word) if hasattr(command, "get_command") else None
        if found is None:
            parent.fail(f"unknown command {word}")
        parent = type(context)(found, info_name=word, parent=parent, **found.context_settings)
        command = found
    if schema:
        _print_schemas(parent, command, words or [])
        return
    typer.echo(command.get_help(parent))


def _print_schemas(context: Any, command: Any, words: list[str]) -> None:
    from ostler.cli.output_schema import output_schema  # only for schemas

    found = {
        path: output_schema(path, shown)
        for path, each in leaves(context, command, words)
        if (shown := shown_types(each)) is not None
    }
    if not found:
        raise NotFound(f"{' '.join(words)} shows nothing for programs", hint="`ostler help --schema` lists what does")
    print(kit.to_json(found if hasattr(command, "commands") or not words else next(iter(found.values()))))  # noqa: T201 - a document


def leaves(context: Any, command: Any, words: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield a command, or those below it, with their words. Those of plugins that cannot be imported are left out."""
    if not hasattr(command, "list_commands"):
        yield " ".join(words), command
        return
    for name in command.list_commands(context):
        try:
            child = command.get_command(context, name)
        except PluginError as error:
            kit.warn(error.message)
        else:
            yield from leaves(context, child, [*words, name])
