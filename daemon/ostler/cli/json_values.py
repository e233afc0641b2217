"""Values as they are shown to programs: wall times of structs as RFC 3339 or null; only for JSON and YAML."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import fields

from ostler.time_text import to_rfc3339
from ostler.wall_time import WALL_TIME_MARK


def to_shown(value: Any) -> Any:
    """Return a value with each `WallTime` of a struct as RFC 3339 text, None for never; structs become dictionaries.

    Structs that are arrays are left as they are. A number in a plain dictionary stays a number: nobody says of it that
    it is a time.

    Args:
        value: Anything msgspec can encode.

    Raises:
        RecursionError: It is nested too deeply.
    """
    if isinstance(value, msgspec.Struct):
        if value.__struct_config__.array_like:
            return value
        return {
            name: to_rfc3339(getattr(value, attribute)) if is_time else to_shown(getattr(value, attribute))
            for attribute, name, is_time in _struct_fields(type(value))
        }
    if isinstance(value, Mapping):
        return {key: to_shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_shown(item) for item in value]
    return value


def moments_by_name(value: Any) -> Any:
    """Return a value without types, from the daemon itself, with each number called `since` as a moment.

    Args:
        value: What was decoded from a message: details of an error, a dump.
    """
    if isinstance(value, Mapping):
        return {
            key: to_rfc3339(item)
            if key == "since" and isinstance(item, int | float) and not isinstance(item, bool)
            else moments_by_name(item)
            for key, item in value.items()
        }
    return [moments_by_name(item) for item in value] if isinstance(value, list | tuple) else value


@cache
def _struct_fields(kind: type[msgspec.Struct]) -> list[tuple[str, str, bool]]:
    """Return the attributes of a struct with their names in JSON, and whether each is a wall time."""
    hints = get_type_hints(kind, include_extras=True)
    return [(each.name, each.encode_name, _is_wall_time(hints[each.name])) for each in fields(kind)]


def _is_wall_time(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return any(isinstance(each, msgspec.Meta) and WALL_TIME_MARK in (each.extra or {}) for each in get_args(hint))
    return any(map(_is_wall_time, get_args(hint)))  # `WallTime | None`
