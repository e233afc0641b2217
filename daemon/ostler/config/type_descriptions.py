"""Describes the valid values of an option in words, for error messages and for the reference page."""

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

from ostler.config.options import Expects, OptionsModel, coerce_seconds, coerce_size, option_metadata
from ostler.config.units import SECONDS_MAX, SIZE_MAX, format_size

_MAX_TEXT_LENGTH = 60
_LIST_TYPES = (list, tuple, set, frozenset, Sequence)
_SECONDS_EXAMPLE = ' (such as 30, "30s" or "5min")'
_SIZE_EXAMPLE = ' (such as "10GiB" or 4096)'


class ConstrainedType(msgspec.Struct, frozen=True):
    """A type with its constraints, and its description if `Field` has one."""

    type: Any
    constraints: tuple[Any, ...] = ()
    description: str = ""


def type_of_field(field: FieldInfo) -> ConstrainedType:
    """Return the kind of an option's value."""
    return ConstrainedType(field.annotation, tuple(field.metadata), option_metadata(field).expects)


def type_of_item(kind: ConstrainedType, key: str | int) -> ConstrainedType | None:
    """Return the kind of the value at a key or index inside a value of a kind; None if it is unknown."""
    for choice in _union_members(kind):
        inner = get_args(choice.type)
        if isinstance(key, int) and get_origin(choice.type) in _LIST_TYPES and inner:
            return ConstrainedType(_item_annotation(inner, key, fixed=get_origin(choice.type) is tuple))
        if isinstance(key, str) and get_origin(choice.type) in (dict, Mapping) and len(inner) == 2:
            return ConstrainedType(inner[1])
        model = _as_options_model(choice.type)
        if isinstance(key, str) and model is not None and key in model.model_fields:
            return type_of_field(model.model_fields[key])
    return None


def _item_annotation(inner: tuple[Any, ...], number: int, *, fixed: bool) -> Any:
    return inner[number] if fixed and Ellipsis not in inner and number < len(inner) else inner[0]


def options_model_of(kind: ConstrainedType) -> type[OptionsModel] | None:
    """Return the model of a kind that is a table of options."""
    return next(iter(options_models_of(kind)), None)


def options_models_of(kind: ConstrainedType) -> list[type[OptionsModel]]:
    """Return the models of a kind that is a table of options: several for a union of them."""
    found = [_as_options_model(choice.type) for choice in _union_members(kind)]
    return [model for model in found if model is not None]


def is_secret_type(kind: ConstrainedType) -> bool:
    """Return whether a kind is the type `Secret`, also if optional."""
    return any(choice.type is pydantic.SecretStr for choice in _union_members(kind))


def describe_type(kind: ConstrainedType, *, examples: bool = True) -> str:
    """Return a description of valid values: `a whole number from 1 to 1024`, `true or false`, `a list, each item text`.

    Args:
        kind: The kind of the value.
        examples: Whether to add examples of time spans and sizes.
    """
    words = kind.description or " or ".join(dict.fromkeys(_describe_member(choice) for choice in _union_members(kind)))
    return words if examples else words.replace(_SECONDS_EXAMPLE, "").replace(_SIZE_EXAMPLE, "")


def format_value(value: object) -> str:
    """Return a value for a message: as in TOML and cut if it is long; for tables and lists their kind."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if not isinstance(value, str):
        return f"{type(value).__name__} {value}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT_LENGTH else f'{text[:_MAX_TEXT_LENGTH]}…"'


def _union_members(kind: ConstrainedType) -> list[ConstrainedType]:
    # One for each branch of a union, without None, which TOML does not have.
    if (named := getattr(kind.type, "__value__", None)) is not None:  # `type Token = Secret | None`
        return _union_members(ConstrainedType(named, kind.constraints, kind.description))
    origin = get_origin(kind.type)
    if origin is Annotated:
        bare, *more = get_args(kind.type)
        return _union_members(ConstrainedType(bare, (*kind.constraints, *_flatten_metadata(more)), kind.description))
    if origin in (Union, types.UnionType):
        branches = [branch for branch in get_args(kind.type) if branch is not type(None)]
        return [choice for branch in branches for choice in _union_members(ConstrainedType(branch, kind.constraints))]
    return [kind]


def _flatten_metadata(annotations: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for annotation in annotations:
        found += annotation.metadata if isinstance(annotation, FieldInfo) else [annotation]
    return found


def _as_options_model(kind: Any) -> type[OptionsModel] | None:
    return kind if isinstance(kind, type) and issubclass(kind, OptionsModel) else None


def _describe_member(kind: ConstrainedType) -> str:
    origin = get_origin(kind.type)
    own = next((constraint.words for constraint in kind.constraints if isinstance(constraint, Expects)), "")
    if own or unit_of(kind):
        return own or _describe_unit(kind)
    if origin is Literal:
        return _describe_choices(get_args(kind.type))
    if origin in _LIST_TYPES:
        return _describe_list(kind)
    if origin in (dict, Mapping) or kind.type is dict or _as_options_model(kind.type):
        return "a table"
    return _describe_class(kind)


def unit_of(kind: ConstrainedType) -> str:
    """Return `s` for the type `Seconds`, `B` for `Size`, an empty text for any other."""
    readers = {
        getattr(constraint, "func", None) for choice in _union_members(kind) for constraint in choice.constraints
    }
    return "s" if coerce_seconds in readers else "B" if coerce_size in readers else ""


def _describe_unit(kind: ConstrainedType) -> str:
    if unit_of(kind) == "s":
        return f"a time span{_describe_range(kind, 's')}{_SECONDS_EXAMPLE}"
    return f"a size{_describe_range(kind, 'B')}{_SIZE_EXAMPLE}"


def _describe_class(kind: ConstrainedType) -> str:
    if kind.type is Any or not isinstance(kind.type, type):
        return "any value" if kind.type is Any else "another value"
    if issubclass(kind.type, Enum):
        return _describe_choices([member.value for member in kind.type])
    if kind.type is pydantic.SecretStr:
        return 'a secret: {credential = "name"} or {file = "/path"}'
    if issubclass(kind.type, PurePath):
        return "a path"
    simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
    words = simple.get(kind.type, f"a value for {kind.type.__name__}")
    return f"{words}{_describe_text_limits(kind)}" if kind.type is str else f"{words}{_describe_range(kind)}"


def _describe_choices(values: Iterable[Any]) -> str:
    texts = [format_value(value) for value in values]
    return texts[0] if len(texts) == 1 else f"one of {', '.join(texts)}"


def _describe_list(kind: ConstrainedType) -> str:
    inner = [item for item in get_args(kind.type) if item is not Ellipsis]
    least = _constraint_value(kind, "min_length")
    count = f" of at least {least}" if least else ""
    return f"a list{count}, each item {describe_type(ConstrainedType(inner[0]))}" if inner else f"a list{count}"


def _describe_text_limits(kind: ConstrainedType) -> str:
    pattern, least, most = (_constraint_value(kind, name) for name in ("pattern", "min_length", "max_length"))
    parts = [f" that matches {getattr(pattern, 'pattern', pattern)}"] if pattern is not None else []
    if least:
        parts.append(" that is not empty" if least == 1 else f" of at least {least} characters")
    if most is not None:
        parts.append(f" of at most {most} characters")
    return ",".join(parts)


def _constraint_value(kind: ConstrainedType, name: str) -> Any:
    found = [limit for constraint in kind.constraints if (limit := getattr(constraint, name, None)) is not None]
    if len(found) > 1:  # the type and the option both have one
        return max(found) if name in {"ge", "gt", "min_length"} else min(found)
    return found[0] if found else None


def _describe_range(kind: ConstrainedType, unit: str = "") -> str:
    at_least, above, at_most, below = (_constraint_value(kind, name) for name in ("ge", "gt", "le", "lt"))
    if unit == "B":
        at_least, at_most = at_least or None, None if at_most == SIZE_MAX else at_most
    if unit == "s" and at_most == SECONDS_MAX and (at_least is not None or above is not None):
        at_most = None  # a century, which is only worth mentioning if a value exceeds it
    if at_least is not None and at_most is not None:
        return f" from {_format_number(at_least, unit)} to {_format_number(at_most, unit)}"
    at_most_words = "of at most" if above is None else "at most"
    pairs = (("of at least", at_least), ("above", above), (at_most_words, at_most), ("below", below))
    parts = [f"{words} {_format_number(limit, unit)}" for words, limit in pairs if limit is not None]
    return f" {' and '.join(parts)}" if parts else ""


def _format_number(value: Any, unit: str) -> str:
    if unit == "B" and isinstance(value, int):
        return format_size(value)
    return f"{value:g}{unit if value else ''}" if isinstance(value, float | int) and unit else str(value)
