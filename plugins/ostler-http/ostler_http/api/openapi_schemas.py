"""The schemas of an OpenAPI document: those of methods as they came, and those of short names as they are shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import cleandoc
from typing import Any

import msgspec

Schema = dict[str, Any]
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")
_SECTIONS = re.compile(r"\n\s*(?:Attributes|Args):\n")
_ENTRY = re.compile(r"^    (\w+): ", re.MULTILINE)


class Components:
    """Collects the definitions that schemas use, each under one name.

    Attributes:
        schemas: The definitions by their names in the document.
    """

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}
        self._names: dict[tuple[str, bytes], str] = {}

    def add(self, schema: Mapping[str, Any], prefix: str = "", *, shown: bool = False) -> Schema:
        """Return a schema for the document; its definitions become components.

        Args:
            schema: A schema of msgspec with its definitions in `$defs`.
            prefix: What the names of the components begin with: the topic.
            shown: Whether it is that of values as `--json` shows them: moments are text or null, all fields are there.
        """
        found: Schema = _Translation(self, schema.get("$defs", {}), prefix, shown).translate(schema)
        return found

    def arguments(self, schema: Mapping[str, Any], prefix: str, title: str) -> Schema:
        """Return the schema of the arguments of a method: an object, with its properties at hand."""
        found = dict(schema)
        if "$ref" in found:
            definitions = found.get("$defs", {})
            found = {**definitions.get(_last_part(found["$ref"]), {}), "$defs": definitions}
        return {**self.add(found, prefix), "title": title}

    def name_for(self, wanted: str, content: bytes) -> tuple[str, bool]:
        """Return the name of a definition, and whether it is a new one.

        Args:
            wanted: The name that it should have.
            content: What it says, with all that it refers to: two with the same name and content are one.
        """
        if (known := self._names.get((wanted, content))) is not None:
            return known, False
        name, number = wanted, 2
        while name in self.schemas:
            name, number = f"{wanted}_{number}", number + 1
        self._names[wanted, content] = name
        self.schemas[name] = {}  # its place is taken, also for what refers to itself
        return name, True


class _Translation:
    """Translates one schema and the definitions that it uses."""

    def __init__(self, components: Components, definitions: Mapping[str, Any], prefix: str, shown: bool) -> None:
        self._components = components
        self._definitions = definitions
        self._prefix = prefix
        self._shown = shown

    def translate(self, schema: Any) -> Any:
        """Return a schema with its references, moments and descriptions as they hold in the document."""
        if isinstance(schema, list):
            return [self.translate(each) for each in schema]
        if not isinstance(schema, Mapping):
            return schema
        if "$ref" in schema:
            return {"$ref": f"#/components/schemas/{self._refer(_last_part(schema['$ref']))}"}
        if schema.get("format") == "date-time" and schema.get("type") == "number":
            return self._moment(schema)
        found = {
            key: value if key in ("default", "enum", "const", "required") else self.translate(value)
            for key, value in schema.items()
            if key != "$defs"
        }
        if "properties" in found:
            self._describe(found)
        return found

    def _moment(self, schema: Mapping[str, Any]) -> Schema:
        if self._shown:
            return {"type": ["string", "null"], "format": "date-time", "description": "null for never"}
        kept = {"default": schema["default"]} if "default" in schema else {}
        return {"type": "number", "description": "seconds since 1970, 0 for never", **kept}

    def _describe(self, found: Schema) -> None:
        """Put what a docstring says of its attributes beside them."""
        properties: dict[str, Schema] = {name: dict(each) for name, each in found["properties"].items()}
        if self._shown:
            for each in properties.values():
                each.pop("default", None)
            found["required"] = list(properties)
        text, entries = split_docstring(str(found.get("description", "")))
        for name, said in entries.items():
            if name in properties:
                properties[name]["description"] = said
        found["properties"] = properties
        if text:
            found["description"] = text

    def _refer(self, name: str) -> str:
        definition = self._definitions.get(name, {})
        content = msgspec.json.encode([self._shown, self._reachable(name)], order="sorted")
        wanted = _NOT_IN_NAMES.sub("_", f"{self._prefix}.{name}" if self._prefix else name)
        found, is_new = self._components.name_for(wanted, content)
        if is_new:
            self._components.schemas[found] = self.translate(definition)
        return found

    def _reachable(self, name: str) -> dict[str, Any]:
        """Return a definition with all those that it refers to."""
        found: dict[str, Any] = {}
        waiting = [name]
        while waiting:
            each = waiting.pop()
            if each not in found:
                found[each] = self._definitions.get(each, {})
                waiting += _references(found[each])
        return found


def split_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring, and what it says of each attribute or argument, each as one line."""
    text, *rest = _SECTIONS.split(f"{cleandoc(doc)}\n", maxsplit=1)
    parts = _ENTRY.split(rest[0])[1:] if rest else []
    return " ".join(text.split()), {
        name: " ".join(said.split()) for name, said in zip(parts[::2], parts[1::2], strict=True)
    }


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for each in schema for name in _references(each)]
    if not isinstance(schema, Mapping):
        return []
    own = [_last_part(schema["$ref"])] if isinstance(schema.get("$ref"), str) else []
    return own + [name for each in schema.values() for name in _references(each)]


def _last_part(reference: str) -> str:
    return reference.rpartition("/")[2]
