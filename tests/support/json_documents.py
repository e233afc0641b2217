"""What commands show with `-o json`, compared with the schemas that they declare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import jsonschema
import typer

from ostler.cli.command_tree import root_command
from ostler.cli.commands.help import leaves
from ostler.cli.global_options import split_global_options
from ostler.cli.output_schema import output_schema
from ostler.cli.shown_types import shown_types

ANY_DOCUMENT = {"call", "submit", "dump", "config schema", "plugin api", "help"}
"""Commands that show what others made: a result, a schema."""


@cache
def schemas() -> dict[str, tuple[dict[str, Any], bool]]:
    """Return the schema of each command, in which nothing else is allowed, and whether it holds for each line."""
    root = root_command()
    context = typer.Context(root)
    return {
        path: (_without_other_fields(output_schema(path, shown)), shown.lines)
        for path, command in leaves(context, root, [])
        if (shown := shown_types(command)) is not None
    }


def command_path(argv: Sequence[str]) -> str:
    """Return the command in a command line, without its options and arguments; empty if there is none."""
    words = split_global_options(argv).rest
    paths = schemas()
    for length in range(min(3, len(words)), 0, -1):
        if (path := " ".join(words[:length])) in paths:
            return path
    return ""


def check_documents(argv: Sequence[str], text: str) -> None:
    """Compare what a command has written with its schema.

    Args:
        argv: The command line.
        text: What it has written; nothing is compared if it is empty.

    Raises:
        AssertionError: It does not fit, or the command declares nothing.
    """
    path = command_path(argv)
    if not path or path in ANY_DOCUMENT or not text.strip():
        return
    schema, lines = schemas()[path]
    for line in text.splitlines() if lines or "--follow" in argv else [text]:
        try:
            jsonschema.validate(json.loads(line), _item(schema) if "--follow" in argv else schema)
        except jsonschema.ValidationError as error:
            raise AssertionError(f"`ostler {path}` does not show what it declares: {error}") from None


def _item(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema["items"], "$defs": schema["$defs"]} if "items" in schema else schema


def _without_other_fields(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_other_fields(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _without_other_fields(value) for key, value in schema.items()}
    if found.get("type") == "object" and isinstance(found.get("properties"), dict):
        found.setdefault("additionalProperties", False)
    return found
