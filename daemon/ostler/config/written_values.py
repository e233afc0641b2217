"""How sizes and time spans are written: `500MB` as it stands in the file, and not 500000000."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ostler.config.options import OptionsModel
from ostler.config.type_descriptions import ConstrainedType, type_of_item, unit_of
from ostler.config.units import format_seconds, format_size, parse_seconds, parse_size


def written_text(model: type[OptionsModel], place: Sequence[str | int], value: Any, raw: Any) -> str:
    """Return the text of a size or time span with its unit; empty for any other value, and for a plain number.

    Args:
        model: The options of the table.
        place: The path of the value in that table.
        value: Its value: bytes, or seconds.
        raw: What the files have at its path; None for a default.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value:
        return ""
    unit = _unit_at(model, place)
    if not unit:
        return ""
    read, write = (parse_seconds, format_seconds) if unit == "s" else (parse_size, format_size)
    if raw is not None:
        return raw if isinstance(raw, str) and read(raw) == value else ""
    text = write(value)
    # Below a millisecond, and for a rounded size, the number says more.
    return text if "." not in text and read(text) == value else ""


def raw_value(data: Mapping[str, Any], path: Sequence[str | int]) -> Any:
    """Return what the merged files have at a path, None without it."""
    found: Any = data
    for key in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def _unit_at(model: type[OptionsModel], place: Sequence[str | int]) -> str:
    kind: ConstrainedType | None = ConstrainedType(model)
    for key in place:
        kind = type_of_item(kind, key) if kind is not None else None
    return unit_of(kind) if kind is not None else ""
