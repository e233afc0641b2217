"""Secret arguments: how they are declared, found, and kept out of what is written.

A secret is an ordinary value for the method itself. Around it, whatever Ostler writes or sends (log, audit, errors,
spans) shows `***` in its place: by the argument's name where arguments are shown, and by the value where a text of
somebody else's could hold it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, inspect

from ostler.errors import OstlerError, to_plain
from ostler.log.masking import MASK, mask_deep, mask_values
from ostler.redaction import MAX_VALUES_PER_REQUEST, MIN_SECRET_LENGTH, TOO_MANY_MASK, Value

SecretText = Annotated[
    str, Meta(extra={"ostler_secret": True}, extra_json_schema={"format": "password", "writeOnly": True})
]
"""A text that is never shown: the type of a password among the arguments of a method, or in a struct among them."""

SecretFinder = Callable[[Any, list[Any]], None]


def has_secret(kind: Any) -> bool:
    """Return whether a type is `SecretText` or has one in it, at any depth."""
    try:
        return any(_is_secret(part) for part in _walk_types(inspect.type_info(kind), set()))
    except (TypeError, ValueError, NameError):
        return False  # the check of the signature says so


def searchable_values(values: Iterable[Any]) -> tuple[Value, ...]:
    """Return secret arguments as they are looked for in texts, as text or bytes; those too short are left out.

    Of more than `MAX_VALUES_PER_REQUEST` only `TOO_MANY_MASK` is returned.
    """
    found: dict[Value, None] = {}
    for value in values:
        kept: Value = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else str(value)
        if len(kept) >= MIN_SECRET_LENGTH:
            found[kept] = None
            if len(found) > MAX_VALUES_PER_REQUEST:
                return (TOO_MANY_MASK,)
    return tuple(found)


def make_finder(kind: Any) -> SecretFinder:
    """Return a function that adds the secrets in a value of this type to a list."""
    info = inspect.type_info(kind)

    def find(value: Any, into: list[Any]) -> None:
        _collect(info, value, into)

    return find


def collect_all(value: Any, into: list[Any]) -> None:
    """Add every value in it to the list; for an argument that is secret as a whole."""
    if type(value) is list:  # before what costs more: there may be tens of thousands
        _collect_items(value, into)
    elif isinstance(value, Mapping):
        _collect_items(value.values(), into)
    elif isinstance(value, tuple | set | frozenset | list):
        _collect_items(value, into)
    elif hasattr(value, "__struct_fields__") or hasattr(value, "__dataclass_fields__"):
        collect_all(msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview)), into)
    elif value is not None and not isinstance(value, bool):
        into.append(value)


def _collect_items(items: Iterable[Any], into: list[Any]) -> None:
    for item in items:
        if type(item) is str:
            into.append(item)
        elif item != []:
            collect_all(item, into)


def redact_in_error(error: OstlerError, secrets: tuple[Value, ...]) -> OstlerError:
    """Return the error without these secrets and the process's in its texts and facts; itself when there are none."""
    message, hint = _redact_text(error.message, secrets), _redact_text(error.hint, secrets)
    try:
        facts = {
            _redact_text(name, secrets): to_plain(mask_deep(value, secrets)) for name, value in error.details.items()
        }
    except Exception:  # noqa: BLE001 - a plugin may have put anything there: what goes round, or raises when it is shown
        facts = {}
    if (message, hint, facts) == (error.message, error.hint, error.details):
        return error
    # Its class may have a constructor of its own; what every error has is what is changed.
    hidden = copy.copy(error)
    hidden.args = (message,)
    hidden.message, hidden.hint, hidden.details = message, hint, facts
    return hidden


def _redact_text(text: str, secrets: tuple[Value, ...]) -> str:
    return mask_values(text, secrets)


def _is_secret(info: inspect.Type) -> bool:
    return isinstance(info, inspect.Metadata) and bool((info.extra or {}).get("ostler_secret"))


def _walk_types(info: inspect.Type, seen: set[Any]) -> Iterator[inspect.Type]:
    yield info
    inner = getattr(info, "cls", None)
    if inner is not None:
        if inner in seen:
            return
        seen.add(inner)
    for part in component_types(info):
        yield from _walk_types(part, seen)


def component_types(info: inspect.Type) -> Iterator[inspect.Type]:
    """Return the types that a type is made of."""
    for name in ("type", "item_type", "key_type", "value_type"):
        part = getattr(info, name, None)
        if isinstance(part, inspect.Type):
            yield part
    for name in ("types", "item_types"):
        yield from getattr(info, name, ())
    yield from (field.type for field in getattr(info, "fields", ()))


def _collect(info: inspect.Type, value: Any, into: list[Any]) -> None:
    """Walk a value along its type. Where a union leaves open which type it is, every one that fits is followed."""
    if _is_secret(info):
        collect_all(value, into)
    elif isinstance(info, inspect.Metadata):
        _collect(info.type, value, into)
    elif isinstance(info, inspect.UnionType):
        for part in info.types:
            _collect(part, value, into)
    elif isinstance(value, Mapping):
        _collect_from_mapping(info, value, into)
    elif isinstance(value, list | tuple | set | frozenset) and not hasattr(value, "_fields"):
        _collect_from_items(info, value, into)
    elif isinstance(value, getattr(info, "cls", ())):
        for field in getattr(info, "fields", ()):
            _collect(field.type, getattr(value, field.name, None), into)


def _collect_from_items(info: inspect.Type, value: Collection[Any], into: list[Any]) -> None:
    kinds = getattr(info, "item_types", None) or [getattr(info, "item_type", None)] * len(value)
    for kind, item in zip(kinds, value, strict=False):
        if kind is not None:
            _collect(kind, item, into)


def _collect_from_mapping(info: inspect.Type, value: Mapping[Any, Any], into: list[Any]) -> None:
    if isinstance(info, inspect.DictType):
        for key, item in value.items():
            _collect(info.key_type, key, into)
            _collect(info.value_type, item, into)
    elif isinstance(info, inspect.TypedDictType):
        for field in info.fields:
            _collect(field.type, value.get(field.encode_name), into)


__all__ = [
    "MASK",
    "MIN_SECRET_LENGTH",
    "SecretText",
    "collect_all",
    "component_types",
    "has_secret",
    "make_finder",
    "redact_in_error",
    "searchable_values",
]
