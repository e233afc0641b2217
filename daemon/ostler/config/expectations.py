"""What an option's value must be, in plain words: for error messages and for the reference page."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pydantic
from pydantic.fields import FieldInfo

from ostler.config.options import Expects, OptionsModel, facts_of, read_seconds, read_size
from ostler.config.units import SECONDS_MAX, SIZE_MAX, format_size

_SHOWN = 60
_LISTS = (list, tuple, set, frozenset, Sequence)
_SECONDS_EXAMPLE = ' (such as 30, "30s" or "5min")'
_SIZE_EXAMPLE = ' (such as "10GiB" or 4096)'


class Kind(msgspec.Struct, frozen=True):
    """A type with the constraints that stand beside it, and words of its own where `Field` gave some."""

    type: Any
    constraints: tuple[Any, ...] = ()
    words: str = ""


def kind_of(field: FieldInfo) -> Kind:
    """Return the kind of an option's value."""
    return Kind(field.annotation, tuple(field.metadata), facts_of(field).expects)


def item_kind(kind: Kind, key: str | int) -> Kind | None:
    """Return the kind of what stands at a key or number inside a value of a kind; None when that is not known."""
    for choice in _choices(kind):
        inner = get_args(choice.type)
        if isinstance(key, int) and get_origin(choice.type) in _LISTS and inner:
            return Kind(_item_type(inner, key, fixed=get_origin(choice.type) is tuple))
        if isinstance(key, str) and get_origin(choice.type) in (dict, Mapping) and len(inner) == 2:
            return Kind(inner[1])
        model = _as_model(choice.type)
        if isinstance(key, str) and model is not None and key in model.model_fields:
            return kind_of(model.model_fields[key])
    return None


def _item_type(inner: tuple[Any, ...], number: int, *, fixed: bool) -> Any:
    return inner[number] if fixed and Ellipsis not in inner and number < len(inner) else inner[0]


def model_in(kind: Kind) -> type[OptionsModel] | None:
    """Return the model of a kind that is a table of options."""
    return next((model for choice in _choices(kind) if (model := _as_model(choice.type)) is not None), None)


def holds_secret(kind: Kind) -> bool:
    """Return whether a kind is the type `Secret`, perhaps an optional one."""
    return any(choice.type is pydantic.SecretStr for choice in _choices(kind))


def expected(kind: Kind, *, examples: bool = True) -> str:
    """Return what a value must be: `a whole number from 1 to 1024`, `true or false`, `a list, each item text`.

    Args:
        kind: The kind of the value.
        examples: Whether to show how time spans and sizes are written.
    """
    words = kind.words or " or ".join(dict.fromkeys(_words(choice) for choice in _choices(kind)))
    return words if examples else words.replace(_SECONDS_EXAMPLE, "").replace(_SIZE_EXAMPLE, "")


def shown(value: object) -> str:
    """Return a value as it stands in a message: as in TOML, cut where it is long, tables and lists by their kind."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if not isinstance(value, str):
        return f"{type(value).__name__} {value}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f'{text[:_SHOWN]}…"'


def _choices(kind: Kind) -> list[Kind]:
    # One for each branch of a union, without None: TOML has no such value.
    if (named := getattr(kind.type, "__value__", None)) is not None:  # `type Token = Secret | None`
        return _choices(Kind(named, kind.constraints, kind.words))
    origin = get_origin(kind.type)
    if origin is Annotated:
        bare, *more = get_args(kind.type)
        return _choices(Kind(bare, (*kind.constraints, *_flat(more)), kind.words))
    if origin in (Union, types.UnionType):
        branches = [branch for branch in get_args(kind.type) if branch is not type(None)]
        return [choice for branch in branches for choice in _choices(Kind(branch, kind.constraints))]
    return [kind]


def _flat(annotations: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for annotation in annotations:
        found += annotation.metadata if isinstance(annotation, FieldInfo) else [annotation]
    return found


def _as_model(kind: Any) -> type[OptionsModel] | None:
    return kind if isinstance(kind, type) and issubclass(kind, OptionsModel) else None


def _words(kind: Kind) -> str:
    origin = get_origin(kind.type)
    own = next((constraint.words for constraint in kind.constraints if isinstance(constraint, Expects)), "")
    if own or has_unit(kind):
        return own or _unit_words(kind)
    if origin is Literal:
        return _one_of(get_args(kind.type))
    if origin in _LISTS:
        return _list_words(kind)
    if origin in (dict, Mapping) or kind.type is dict or _as_model(kind.type):
        return "a table"
    return _class_words(kind)


def has_unit(kind: Kind) -> str:
    """Return `s` for the type `Seconds`, `B` for `Size`, nothing for any other."""
    readers = {getattr(constraint, "func", None) for choice in _choices(kind) for constraint in choice.constraints}
    return "s" if read_seconds in readers else "B" if read_size in readers else ""


def _unit_words(kind: Kind) -> str:
    if has_unit(kind) == "s":
        return f"a time span{_range(kind, 's')}{_SECONDS_EXAMPLE}"
    return f"a size{_range(kind, 'B')}{_SIZE_EXAMPLE}"


def _class_words(kind: Kind) -> str:
    if kind.type is Any or not isinstance(kind.type, type):
        return "any value" if kind.type is Any else "another value"
    if issubclass(kind.type, Enum):
        return _one_of([member.value for member in kind.type])
    if kind.type is pydantic.SecretStr:
        return 'a secret: {credential = "name"} or {file = "/path"}'
    if issubclass(kind.type, PurePath):
        return "a path"
    simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
    words = simple.get(kind.type, f"a value for {kind.type.__name__}")
    return f"{words}{_text_limits(kind)}" if kind.type is str else f"{words}{_range(kind)}"


def _one_of(values: Iterable[Any]) -> str:
    texts = [shown(value) for value in values]
    return texts[0] if len(texts) == 1 else f"one of {', '.join(texts)}"


def _list_words(kind: Kind) -> str:
    inner = [item for item in get_args(kind.type) if item is not Ellipsis]
    least = _limit(kind, "min_length")
    count = f" of at least {least}" if least else ""
    return f"a list{count}, each item {expected(Kind(inner[0]))}" if inner else f"a list{count}"


def _text_limits(kind: Kind) -> str:
    pattern, least, most = (_limit(kind, name) for name in ("pattern", "min_length", "max_length"))
    parts = [f" that matches {getattr(pattern, 'pattern', pattern)}"] if pattern is not None else []
    if least:
        parts.append(" that is not empty" if least == 1 else f" of at least {least} characters")
    if most is not None:
        parts.append(f" of at most {most} characters")
    return ",".join(parts)


def _limit(kind: Kind, name: str) -> Any:
    found = [limit for constraint in kind.constraints if (limit := getattr(constraint, name, None)) is not None]
    if len(found) > 1:  # the type and the option both have one
        return max(found) if name in {"ge", "gt", "min_length"} else min(found)
    return found[0] if found else None


def _range(kind: Kind, unit: str = "") -> str:
    at_least, above, at_most, below = (_limit(kind, name) for name in ("ge", "gt", "le", "lt"))
    if unit == "B":
        at_least, at_most = at_least or None, None if at_most == SIZE_MAX else at_most
    if unit == "s" and at_most == SECONDS_MAX and (at_least is not None or above is not None):
        at_most = None  # a century, which says nothing unless somebody is above it
    if at_least is not None and at_most is not None:
        return f" from {_number(at_least, unit)} to {_number(at_most, unit)}"
    at_most_words = "of at most" if above is None else "at most"
    pairs = (("of at least", at_least), ("above", above), (at_most_words, at_most), ("below", below))
    parts = [f"{words} {_number(limit, unit)}" for words, limit in pairs if limit is not None]
    return f" {' and '.join(parts)}" if parts else ""


def _number(value: Any, unit: str) -> str:
    if unit == "B" and isinstance(value, int):
        return format_size(value)
    return f"{value:g}{unit if value else ''}" if isinstance(value, float | int) and unit else str(value)
