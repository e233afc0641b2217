"""Generates `docs/json.md` from what commands declare: `python -m ostler.cli.json_reference > docs/json.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from ostler.cli.command_tree import COMMANDS, root_command
from ostler.cli.commands.help import leaves
from ostler.cli.output_schema import output_schema
from ostler.cli.shown_types import shown_types

_PAGE_HEADER = """# Output for programs

What each command shows with `-o json` (or `--json`), and with `-o yaml`. This page is generated from the declarations
of the commands (`python -m ostler.cli.json_reference > docs/json.md`); a test fails if it is out of date, and tests
compare what commands show with it. `ostler help --schema COMMAND` prints the JSON Schema of a command, also of those of
plugins, and `ostler help --schema` all of them.

- A moment is RFC 3339 in UTC with milliseconds (`2027-01-15T08:00:00.000Z`), or null for never and unknown. It is the
  wall time of the host that reports it.
- Time spans are numbers of seconds, sizes numbers of bytes, counts numbers. Names and reasons that are not known are
  empty texts.
- Every field is always there. Later versions may add fields: ignore what you do not know.
- In `details` of errors and in `dump` only `since` is a moment.
- What a method returns (`call`, `submit --wait`, `result` of operations) and payloads of events are shown as they came;
  moments are numbers of seconds since 1970 there. Daemons, clients and plugins exchange those.

## Commands

| command | shows |
|---|---|
"""


def render() -> str:
    """Return the page as Markdown."""
    rows: list[str] = []
    shared: dict[str, Any] = {}
    root = root_command()
    for name in COMMANDS:
        for path, command in leaves(None, root.get_command(None, name), [name]):
            shown = shown_types(command)
            if shown is None:
                continue
            schema = output_schema(path, shown)
            shared |= schema.get("$defs", {})
            text = _text_of(schema) + (", one each line" if shown.lines else "")
            rows.append(f"| [`{path}`](cli.md#ostler-{path.replace(' ', '-')}) | {text} |")
    lines = [_PAGE_HEADER.rstrip("\n"), *rows, "", "## Types", ""]
    for kind in sorted(shared):
        lines += _type_section(kind, shared[kind])
    return "\n".join(lines).rstrip("\n") + "\n"


def _type_section(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    if text := schema.get("description"):
        yield text
        yield ""
    if "enum" in schema:
        yield f"One of {', '.join(f'`{value}`' for value in schema['enum'])}."
        yield ""
    if properties := schema.get("properties"):
        yield from ("| field | type | |", "|---|---|---|")
        for field, of in properties.items():
            yield f"| `{field}` | {_text_of(of)} | {str(of.get('description', '')).replace('|', chr(92) + '|')} |"
        yield ""


def _text_of(schema: dict[str, Any]) -> str:
    """Return the type that a schema stands for, as words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_text_of(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    return "moment or null" if schema.get("format") == "date-time" else _text_of_plain_type(schema)


def _text_of_plain_type(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_text_of(schema['items'])}" if schema.get("items") else "list"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {_text_of(values)}" if isinstance(values, dict) and values else "object"
    return {"string": "text", "integer": "whole number", "number": "number"}.get(kind, str(kind))


if __name__ == "__main__":
    sys.stdout.write(render())
