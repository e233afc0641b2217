"""JSON Schemas of what commands show with `-o json`, from the types that they declare."""

from __future__ import annotations

import re
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from ostler.cli.shown_types import ShownTypes

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TIME_FORMAT = "date-time"


def output_schema(path: str, shown: ShownTypes) -> dict[str, Any]:
    """Return the schema of the document of a command, or of each line of it.

    Args:
        path: The command: `service list`.
        shown: What it declares.
    """
    schemas, shared = msgspec.json.schema_components(
        [_resolve(kind) for kind in shown.kinds], schema_hook=_schema_of_other_type, ref_template="#/$defs/{name}"
    )
    found = list(schemas)
    item = found[0] if len(found) == 1 else {"anyOf": found}
    document: dict[str, Any] = {"$schema": DIALECT, "title": f"ostler {path}"}
    if shown.lines:
        document["description"] = "One document each line."
    document |= {"type": "array", "items": item} if shown.many else item
    if shared:
        document["$defs"] = shared
    adapted: dict[str, Any] = _as_shown(document)
    return adapted


def _resolve(kind: Any) -> Any:
    if not isinstance(kind, str):
        return kind
    module, _, name = kind.partition(":")
    return getattr(import_module(module), name)


def _schema_of_other_type(kind: type) -> dict[str, Any]:
    # What msgspec does not know is shown as text.
    return {"type": "string", "description": "a path" if issubclass(kind, Path) else kind.__name__}


def _as_shown(schema: Any) -> Any:
    """Return a schema of msgspec as it holds for output: wall times are text or null, and every field is there."""
    if isinstance(schema, list):
        return [_as_shown(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _as_shown(value) for key, value in schema.items()}
    if found.get("format") == _TIME_FORMAT and found.get("type") == "number":
        found["type"] = ["string", "null"]
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found["properties"] = {
            name: {key: value for key, value in each.items() if key != "default"}
            for name, each in found["properties"].items()
        }
        found["required"] = list(found["properties"])
        text, helps = _split_docstring(str(schema.get("description", "")))
        found["description"] = text
        for name, each in found["properties"].items():
            if name in helps:
                each["description"] = helps[name]
    return found


def _split_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring and what it says of each attribute, each as one line."""
    text, _, section = (*re.split(r"\n\s*(Attributes|Args):\n", f"{cleandoc(doc)}\n", maxsplit=1), "", "")[:3]
    parts = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)[1:]
    return _one_line(text), {name: _one_line(said) for name, said in zip(parts[::2], parts[1::2], strict=True)}


def _one_line(text: str) -> str:
    return " ".join(text.split())
