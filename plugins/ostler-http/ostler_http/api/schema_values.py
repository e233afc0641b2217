"""Values between JSON and messages, where their JSON Schema says that the two differ.

A schema is followed once, to a function that does what is needed and nothing else; None where nothing is: for most
methods there is no work at a request.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ostler import InvalidArguments
from ostler_http.api.problems import to_rfc3339

Change: TypeAlias = Callable[[Any], Any]
"""Returns a value in its other form; what does not fit the schema is returned as it is."""
Leaf: TypeAlias = Callable[[Mapping[str, Any]], Change | None]
"""Returns what is to be done with values of a schema without parts, None for nothing."""


def bytes_from_base64(schema: Mapping[str, Any]) -> Change | None:
    """Return what makes bytes of base64 text wherever a schema says that bytes are wanted; None if it never does.

    Raises:
        InvalidArguments: By the function: a text is not base64.
    """
    return _Follower(schema, lambda leaf: _decode if leaf.get("contentEncoding") == "base64" else None).follow(schema)


def moments_to_rfc3339(schema: Mapping[str, Any]) -> Change | None:
    """Return what makes RFC 3339 text (None for never) of wall times in seconds; None if a schema has none of them."""
    return _Follower(
        schema,
        lambda leaf: to_rfc3339 if leaf.get("type") == "number" and leaf.get("format") == "date-time" else None,
    ).follow(schema)


def _decode(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArguments(
            "bytes must be base64 text (RFC 4648, with padding)", hint="such as `base64 -w0 FILE` prints"
        ) from None


class _Follower:
    """Follows a schema and its definitions, each of these once."""

    def __init__(self, root: Mapping[str, Any], leaf: Leaf) -> None:
        self._definitions: Mapping[str, Any] = root.get("$defs", {})
        self._leaf = leaf
        self._known: dict[str, Change | None] = {}
        self._in_progress: set[str] = set()

    def follow(self, schema: Any) -> Change | None:
        """Return what is to be done with values of a schema, None for nothing."""
        if not isinstance(schema, Mapping):
            return None
        if "$ref" in schema:
            return self._follow_reference(str(schema["$ref"]).rpartition("/")[2])
        if "anyOf" in schema:
            return _one_of([self.follow(each) for each in schema["anyOf"]])
        return self._follow_parts(schema)

    def _follow_parts(self, schema: Mapping[str, Any]) -> Change | None:
        if "properties" in schema:
            return self._object(schema)
        if isinstance(schema.get("additionalProperties"), Mapping):
            return _each_value(self.follow(schema["additionalProperties"]))
        if isinstance(schema.get("items"), Mapping):
            return _each_item(self.follow(schema["items"]))
        if isinstance(schema.get("prefixItems"), list):
            return _each_place([self.follow(each) for each in schema["prefixItems"]])
        return self._leaf(schema)

    def _follow_reference(self, name: str) -> Change | None:
        if name in self._in_progress:  # a type that contains itself: what it comes to is known by its first use
            return lambda value: change(value) if (change := self._known.get(name)) else value
        if name not in self._known:
            self._in_progress.add(name)
            self._known[name] = self.follow(self._definitions.get(name, {}))
            self._in_progress.discard(name)
        return self._known[name]

    def _object(self, schema: Mapping[str, Any]) -> Change | None:
        changes = {
            name: change for name, each in schema["properties"].items() if (change := self.follow(each)) is not None
        }
        if not changes:
            return None

        def change_object(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            return {name: changes[name](item) if name in changes else item for name, item in value.items()}

        return change_object


def _one_of(changes: list[Change | None]) -> Change | None:
    needed = [change for change in changes if change is not None]
    if not needed:
        return None

    def change_in_turn(value: Any) -> Any:
        for change in needed:  # each leaves alone what is not of its kind
            value = value if value is None else change(value)
        return value

    return change_in_turn


def _each_value(change: Change | None) -> Change | None:
    if change is None:
        return None
    return lambda value: {key: change(item) for key, item in value.items()} if isinstance(value, dict) else value


def _each_item(change: Change | None) -> Change | None:
    if change is None:
        return None
    return lambda value: [change(item) for item in value] if isinstance(value, list | tuple) else value


def _each_place(changes: list[Change | None]) -> Change | None:
    if not any(changes):
        return None

    def change_places(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        padded = [*changes, *[None] * (len(value) - len(changes))]
        return [change(item) if change else item for change, item in zip(padded, value, strict=False)]

    return change_places
