"""Arguments that nobody but their method may see: how they are declared, found, and kept out of what is written.

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

from ostler.errors import OstlerError, plain
from ostler.log.secrets import MASK, mask_deep, mask_values
from ostler.redaction import MOST_OF_REQUEST, SHORTEST, TOO_MANY, Value

SecretText = Annotated[
    str, Meta(extra={"ostler_secret": True}, extra_json_schema={"format": "password", "writeOnly": True})
]
"""A text that is shown nowhere: the type of a password among the arguments of a method, or in a struct among them."""

Find = Callable[[Any, list[Any]], None]


def holds_secret(kind: Any) -> bool:
    """Return whether a type is `SecretText` or has one in it, at any depth."""
    try:
        return any(_is_secret(part) for part in _walk(inspect.type_info(kind), set()))
    except (TypeError, ValueError, NameError):
        return False  # the check of the signature says so


def values_of(values: Iterable[Any]) -> tuple[Value, ...]:
    """Return secret arguments as they are looked for in texts, as text or bytes; those too short are left out.

    Of more than `MOST_OF_REQUEST` only `TOO_MANY` is returned.
    """
    found: dict[Value, None] = {}
    for value in values:
        kept: Value = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else str(value)
        if len(kept) >= SHORTEST:
            found[kept] = None
            if len(found) > MOST_OF_REQUEST:
                return (TOO_MANY,)
    return tuple(found)


def finder(kind: Any) -> Find:
    """Return a function that adds the secrets in a value of this type to a list."""
    info = inspect.type_info(kind)

    def find(value: Any, into: list[Any]) -> None:
        _find(info, value, into)

    return find


def everything(value: Any, into: list[Any]) -> None:
    """Add every value in it to the list; for an argument that is secret as a whole."""
    if type(value) is list:  # before what costs more: there may be tens of thousands
        _everything_of(value, into)
    elif isinstance(value, Mapping):
        _everything_of(value.values(), into)
    elif isinstance(value, tuple | set | frozenset | list):
        _everything_of(value, into)
    elif hasattr(value, "__struct_fields__") or hasattr(value, "__dataclass_fields__"):
        everything(msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview)), into)
    elif value is not None and not isinstance(value, bool):
        into.append(value)


def _everything_of(items: Iterable[Any], into: list[Any]) -> None:
    for item in items:
        if type(item) is str:
            into.append(item)
        elif item != []:
            everything(item, into)


def hide_in_error(error: OstlerError, secrets: tuple[Value, ...]) -> OstlerError:
    """Return the error without these secrets and the process's in its texts and facts; itself when there are none."""
    message, hint = _hidden(error.message, secrets), _hidden(error.hint, secrets)
    try:
        facts = {_hidden(name, secrets): plain(mask_deep(value, secrets)) for name, value in error.facts.items()}
    except Exception:  # noqa: BLE001 - a plugin may have put anything there: what goes round, or raises when it is shown
        facts = {}
    if (message, hint, facts) == (error.message, error.hint, error.facts):
        return error
    # Its class may have a constructor of its own; what every error has is what is changed.
    hidden = copy.copy(error)
    hidden.args = (message,)
    hidden.message, hidden.hint, hidden.facts = message, hint, facts
    return hidden


def _hidden(text: str, secrets: tuple[Value, ...]) -> str:
    return mask_values(text, secrets)


def _is_secret(info: inspect.Type) -> bool:
    return isinstance(info, inspect.Metadata) and bool((info.extra or {}).get("ostler_secret"))


def _walk(info: inspect.Type, seen: set[Any]) -> Iterator[inspect.Type]:
    yield info
    inner = getattr(info, "cls", None)
    if inner is not None:
        if inner in seen:
            return
        seen.add(inner)
    for part in parts(info):
        yield from _walk(part, seen)


def parts(info: inspect.Type) -> Iterator[inspect.Type]:
    """Return the types that a type is made of."""
    for name in ("type", "item_type", "key_type", "value_type"):
        part = getattr(info, name, None)
        if isinstance(part, inspect.Type):
            yield part
    for name in ("types", "item_types"):
        yield from getattr(info, name, ())
    yield from (field.type for field in getattr(info, "fields", ()))


def _find(info: inspect.Type, value: Any, into: list[Any]) -> None:
    """Walk a value along its type. Where a union leaves open which type it is, every one that fits is followed."""
    if _is_secret(info):
        everything(value, into)
    elif isinstance(info, inspect.Metadata):
        _find(info.type, value, into)
    elif isinstance(info, inspect.UnionType):
        for part in info.types:
            _find(part, value, into)
    elif isinstance(value, Mapping):
        _find_in_mapping(info, value, into)
    elif isinstance(value, list | tuple | set | frozenset) and not hasattr(value, "_fields"):
        _find_in_items(info, value, into)
    elif isinstance(value, getattr(info, "cls", ())):
        for field in getattr(info, "fields", ()):
            _find(field.type, getattr(value, field.name, None), into)


def _find_in_items(info: inspect.Type, value: Collection[Any], into: list[Any]) -> None:
    kinds = getattr(info, "item_types", None) or [getattr(info, "item_type", None)] * len(value)
    for kind, item in zip(kinds, value, strict=False):
        if kind is not None:
            _find(kind, item, into)


def _find_in_mapping(info: inspect.Type, value: Mapping[Any, Any], into: list[Any]) -> None:
    if isinstance(info, inspect.DictType):
        for key, item in value.items():
            _find(info.key_type, key, into)
            _find(info.value_type, item, into)
    elif isinstance(info, inspect.TypedDictType):
        for field in info.fields:
            _find(field.type, value.get(field.encode_name), into)


__all__ = [
    "MASK",
    "SHORTEST",
    "SecretText",
    "everything",
    "finder",
    "hide_in_error",
    "holds_secret",
    "parts",
    "values_of",
]
