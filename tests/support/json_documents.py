"""What commands show with `-o json`, compared with the schemas that they declare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer
from jsonschema import Draft202012Validator

from ostler.cli.command_tree import root_command
from ostler.cli.commands.help import leaves
from ostler.cli.global_options import split_global_options
from ostler.cli.output_schema import output_schema
from ostler.cli.shown_types import shown_types

ANY_DOCUMENT = {"call", "submit", "dump", "config schema", "plugin api", "help"}
"""Commands that show what others made: a result, a schema."""


@cache
def _root() -> Any:
    return root_command()


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of each command; it takes seconds, as it imports all of them."""
    return {
        path: output_schema(path, shown)
        for path, command in leaves(typer.Context(_root()), _root(), [])
        if (shown := shown_types(command)) is not None
    }


def command_path(argv: Sequence[str]) -> str:
    """Return the command in a command line, without its options and arguments; empty if there is none."""
    command, path = _root(), []
    for word in split_global_options(argv).rest:
        found = command.get_command(None, word) if hasattr(command, "get_command") else None
        if found is None:
            break
        command = found
        path.append(word)
    return "" if hasattr(command, "get_command") else " ".join(path)


@cache
def _validator(path: str) -> tuple[Draft202012Validator, bool] | None:
    """Return what checks a document of a command, in which nothing else is allowed, and whether it is one line."""
    command = _root()
    for word in path.split():
        command = command.get_command(None, word)
    shown = shown_types(command)
    if shown is None:
        return None
    return Draft202012Validator(_without_other_fields(output_schema(path, shown))), shown.lines


def check_documents(argv: Sequence[str], text: str) -> None:
    """Compare what a command has written with its schema. Only the module of that command is imported for it.

    Args:
        argv: The command line.
        text: What it has written; nothing is compared if it is empty.

    Raises:
        AssertionError: It does not fit.
    """
    path = command_path(argv)
    if not path or path in ANY_DOCUMENT or not text.strip() or (found := _validator(path)) is None:
        return
    validator, lines = found
    if "--follow" in argv and not lines:  # then the items of the list come one after another
        schema = validator.schema
        validator, lines = Draft202012Validator({**schema["items"], "$defs": schema["$defs"]}), True
    for line in text.splitlines() if lines else [text]:
        for error in validator.iter_errors(json.loads(line)):
            raise AssertionError(f"`ostler {path}` does not show what it declares: {error}")


def _without_other_fields(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_other_fields(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _without_other_fields(value) for key, value in schema.items()}
    if found.get("type") == "object" and isinstance(found.get("properties"), dict):
        found.setdefault("additionalProperties", False)
    return found
