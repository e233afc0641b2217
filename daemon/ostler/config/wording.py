"""What pydantic found wrong with a table, as plain sentences with their paths."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ostler.config.expectations import Kind, expected, holds_secret, item_kind, kind_of, model_in, shown
from ostler.config.layers import dotted
from ostler.config.options import OptionsModel, facts_of
from ostler.config.positions import Path
from ostler.config.units import SECONDS_MAX
from ostler.spelling import nearest

# Errors whose own words say more than the type that was expected: those that our validators or a plugin's raise.
_OWN_WORDS = {"ostler_unit", "value_error", "assertion_error"}
_KEY_WEIGHT, _TYPE_WEIGHT = 10, 100_000


class _Place(msgspec.Struct, frozen=True):
    """Where an error is: its path in the data, and, when it is of one branch of a union, which, and where that is."""

    path: Path
    union: Path
    branch: str


def sentences(
    errors: Iterable[Mapping[str, Any]],
    model: type[OptionsModel],
    data: Mapping[str, Any],
    table: tuple[str, ...],
    ignored: Collection[Path] = (),
) -> Iterator[tuple[Path, str]]:
    """Yield what pydantic found, one entry for each wrong value.

    Args:
        errors: The errors of a `ValidationError`.
        model: The model of the table.
        data: The table.
        table: The table's path.
        ignored: Paths below the table whose values are not the real ones.

    Yields:
        The path to point at (the table's for a missing key), and the sentence.
    """
    wrong: set[Path] = set()
    for error, path in _of_best_branches([(error, _real_path(error, model, data)) for error in errors]):
        if error["type"] == "missing":
            yield (*table, *path[:-1]), missing_key(model, path, table)
            continue
        if error["type"] == "extra_forbidden":
            yield (*table, *path), _unknown_option(model, path, table)
            continue
        if path not in wrong and path not in ignored:  # one value that fits no branch of a union is one mistake
            wrong.add(path)
            yield (*table, *path), f"{dotted((*table, *path))}: {_complaint(error, model, data, path)}"


def missing_key(model: type[OptionsModel], location: Path, table: tuple[str, ...]) -> str:
    """Return the sentence for a required key that is not there."""
    around = _model_at(model, location[:-1])
    field = around.model_fields.get(str(location[-1])) if around else None
    about = f": {field.description}" if field is not None and field.description else ""
    return f'missing required key "{location[-1]}" in [{dotted((*table, *location[:-1]))}]{about}'


def unknown_key(name: str, known: Iterable[str], where: str, what: str = "key") -> str:
    """Return the sentence for a key or table that nobody knows, with the nearest one that is known."""
    names = sorted(known)
    near = nearest(name, names)
    advice = f'did you mean "{near}"?' if near else f"known here: {', '.join(names) or 'none'}"
    return f'unknown {what} "{name}"{where}; {advice}'


def _unknown_option(model: type[OptionsModel], location: Path, table: tuple[str, ...]) -> str:
    around = _model_at(model, location[:-1])
    known = around.model_fields if around else ()
    return unknown_key(str(location[-1]), known, f" in [{dotted((*table, *location[:-1]))}]")


def _model_at(model: type[OptionsModel], path: Path) -> type[OptionsModel] | None:
    kind: Kind | None = Kind(model)
    for part in path:
        kind = item_kind(kind, part) if kind else None
    return model_in(kind) if kind else None


def _real_path(error: Mapping[str, Any], model: type[OptionsModel], data: Mapping[str, Any]) -> _Place:
    # pydantic mixes names of union branches into its locations; only what leads through the data is a path.
    location = tuple(error["loc"])
    last = location[-1:] if error["type"] == "missing" else ()
    node: Any = data
    path: Path = ()
    union: Path = ()
    branch = ""
    for part in location[: len(location) - len(last)]:
        known = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if known:
            node = node[part]
            path = (*path, part)
        elif not branch:
            union, branch = path, str(part)
    if not path and not last and location and location[0] in model.model_fields:
        return _Place(location[:1], (), "")  # a default that is wrong
    return _Place((*path, *last), union, branch)


def _of_best_branches(
    found: Sequence[tuple[Mapping[str, Any], _Place]],
) -> Iterator[tuple[Mapping[str, Any], Path]]:
    """Yield errors with their paths; where a value may be one of several, those of the branch that has the fewest."""
    counts: dict[Path, dict[str, int]] = {}
    for error, place in found:
        of_union = counts.setdefault(place.union, {})
        # Keys say more than values of which branch is meant.
        weight = _KEY_WEIGHT if error["type"] in ("missing", "extra_forbidden") else 1
        if place.path == place.union:  # it is not of that type at all
            weight = _TYPE_WEIGHT
        of_union[place.branch] = of_union.get(place.branch, 0) + weight
    for error, place in found:
        rivals = {branch: count for branch, count in counts[place.union].items() if branch}
        if not place.branch or place.branch == min(rivals, key=lambda branch: rivals[branch]):
            yield error, place.path


def _complaint(error: Mapping[str, Any], model: type[OptionsModel], data: Mapping[str, Any], path: Path) -> str:
    if error["type"] in _OWN_WORDS or not path:
        return str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    kind, value, hidden = _kind_and_value(model, data, path)
    if kind is None:
        return f"{error['msg']}, got {'***' if hidden else shown(value)}"
    most = " of at most a century" if error["type"] == "less_than_equal" and error["ctx"]["le"] == SECONDS_MAX else ""
    return f"expected {expected(kind)}{most}, got {'***' if hidden else shown(value)}"


def _kind_and_value(model: type[OptionsModel], data: Mapping[str, Any], path: Path) -> tuple[Kind | None, Any, bool]:
    field = model.model_fields[str(path[0])]
    kind: Kind | None = kind_of(field)
    value: Any = data.get(str(path[0]), field.default)
    hidden = facts_of(field).secret or (kind is not None and holds_secret(kind))
    for part in path[1:]:
        kind = item_kind(kind, part) if kind else None
        value = value[part]
        hidden = hidden or (kind is not None and holds_secret(kind))
    return kind, value, hidden
