"""Turns the errors of pydantic into sentences with the paths of the values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ostler.config.layers import dotted
from ostler.config.options import OptionsModel, option_metadata
from ostler.config.toml_positions import KeyPath
from ostler.config.type_descriptions import (
    ConstrainedType,
    describe_type,
    format_value,
    is_secret_type,
    options_model_of,
    type_of_field,
    type_of_item,
)
from ostler.config.units import SECONDS_MAX
from ostler.spelling import nearest

# Errors whose own message is more specific than the expected type: those raised by our validators or a plugin's.
_SELF_EXPLAINING_ERRORS = {"ostler_unit", "value_error", "assertion_error"}
_KEY_WEIGHT, _TYPE_WEIGHT = 10, 100_000


class _ErrorLocation(msgspec.Struct, frozen=True):
    """The location of an error: its path in the data, and for a branch of a union the union's path and the branch."""

    path: KeyPath
    union: KeyPath
    branch: str


def error_messages(
    errors: Iterable[Mapping[str, Any]],
    model: type[OptionsModel],
    data: Mapping[str, Any],
    table: tuple[str, ...],
    ignored: Collection[KeyPath] = (),
) -> Iterator[tuple[KeyPath, str, bool]]:
    """Yield the errors of pydantic, one for each invalid value.

    Args:
        errors: The errors of a `ValidationError`.
        model: The model of the table.
        data: The table.
        table: The table's path.
        ignored: Paths below the table whose values are not the real ones.

    Yields:
        The path of the problem (the table's for a missing key), the sentence, and whether the key is wrong, not its
        value.
    """
    wrong: set[KeyPath] = set()
    for error, path in _errors_of_best_branch([(error, _locate_error(error, model, data)) for error in errors]):
        if error["type"] == "missing":
            yield (*table, *path[:-1]), missing_key_message(model, path, table), False
            continue
        if error["type"] == "extra_forbidden":
            yield (*table, *path), _unknown_option_message(model, path, table), True
            continue
        if path not in wrong and path not in ignored:  # a value that matches no branch of a union is one problem
            wrong.add(path)
            yield (*table, *path), f"{dotted((*table, *path))}: {_value_message(error, model, data, path)}", False


def missing_key_message(model: type[OptionsModel], location: KeyPath, table: tuple[str, ...]) -> str:
    """Return the sentence for a missing required key."""
    around = _model_at(model, location[:-1])
    field = around.model_fields.get(str(location[-1])) if around else None
    about = f": {field.description}" if field is not None and field.description else ""
    return f'missing required key "{location[-1]}" in [{dotted((*table, *location[:-1]))}]{about}'


def unknown_key_message(name: str, known: Iterable[str], where: str, what: str = "key") -> str:
    """Return the sentence for an unknown key or table, with the most similar known one."""
    names = sorted(known)
    near = nearest(name, names)
    advice = f'did you mean "{near}"?' if near else f"available: {', '.join(names) or 'none'}"
    return f'unknown {what} "{name}"{where}; {advice}'


def _unknown_option_message(model: type[OptionsModel], location: KeyPath, table: tuple[str, ...]) -> str:
    around = _model_at(model, location[:-1])
    known = around.model_fields if around else ()
    return unknown_key_message(str(location[-1]), known, f" in [{dotted((*table, *location[:-1]))}]")


def _model_at(model: type[OptionsModel], path: KeyPath) -> type[OptionsModel] | None:
    kind: ConstrainedType | None = ConstrainedType(model)
    for part in path:
        kind = type_of_item(kind, part) if kind else None
    return options_model_of(kind) if kind else None


def _locate_error(error: Mapping[str, Any], model: type[OptionsModel], data: Mapping[str, Any]) -> _ErrorLocation:
    # pydantic adds names of union branches to its locations; only keys and indexes of the data belong to the path.
    location = tuple(error["loc"])
    last = location[-1:] if error["type"] == "missing" else ()
    node: Any = data
    path: KeyPath = ()
    union: KeyPath = ()
    branch = ""
    for part in location[: len(location) - len(last)]:
        known = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if known:
            node = node[part]
            path = (*path, part)
        elif not branch:
            union, branch = path, str(part)
    if not path and not last and location and location[0] in model.model_fields:
        return _ErrorLocation(location[:1], (), "")  # an invalid default
    return _ErrorLocation((*path, *last), union, branch)


def _errors_of_best_branch(
    found: Sequence[tuple[Mapping[str, Any], _ErrorLocation]],
) -> Iterator[tuple[Mapping[str, Any], KeyPath]]:
    """Yield errors with their paths; for a union only those of the branch with the fewest errors."""
    counts: dict[KeyPath, dict[str, int]] = {}
    for error, place in found:
        of_union = counts.setdefault(place.union, {})
        # Errors of keys are a stronger sign of the wrong branch than errors of values.
        weight = _KEY_WEIGHT if error["type"] in ("missing", "extra_forbidden") else 1
        if place.path == place.union:  # the value is not of that type at all
            weight = _TYPE_WEIGHT
        of_union[place.branch] = of_union.get(place.branch, 0) + weight
    for error, place in found:
        rivals = {branch: count for branch, count in counts[place.union].items() if branch}
        if not place.branch or place.branch == min(rivals, key=lambda branch: rivals[branch]):
            yield error, place.path


def _value_message(error: Mapping[str, Any], model: type[OptionsModel], data: Mapping[str, Any], path: KeyPath) -> str:
    if error["type"] in _SELF_EXPLAINING_ERRORS or not path:
        return str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    kind, value, hidden = _type_and_value(model, data, path)
    if kind is None:
        return f"{error['msg']}, got {'***' if hidden else format_value(value)}"
    most = " of at most a century" if error["type"] == "less_than_equal" and error["ctx"]["le"] == SECONDS_MAX else ""
    return f"expected {describe_type(kind)}{most}, got {'***' if hidden else format_value(value)}"


def _type_and_value(
    model: type[OptionsModel], data: Mapping[str, Any], path: KeyPath
) -> tuple[ConstrainedType | None, Any, bool]:
    field = model.model_fields[str(path[0])]
    kind: ConstrainedType | None = type_of_field(field)
    value: Any = data.get(str(path[0]), field.default)
    hidden = option_metadata(field).secret or (kind is not None and is_secret_type(kind))
    for part in path[1:]:
        kind = type_of_item(kind, part) if kind else None
        value = value[part]
        hidden = hidden or (kind is not None and is_secret_type(kind))
    return kind, value, hidden
