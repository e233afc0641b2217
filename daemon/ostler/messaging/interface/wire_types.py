"""Types that go over the wire: which do, and how people write them."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from functools import lru_cache
from types import UnionType
from typing import Any

import msgspec
from msgspec import inspect as looked

_CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length")
_SCALAR_TYPES = {type(None), bool, int, float, str, bytes}
_MUTABLE_TYPES = (looked.ListType, looked.SetType, looked.DictType, looked.TypedDictType, looked.ByteArrayType)
_TYPES_WITHOUT_SCHEMA = (looked.ExtType, looked.RawType, looked.MemoryViewType)


def unencodable_reason(kind: Any) -> str:
    """Return why a type cannot be encoded, empty when it can."""
    if kind is None or kind is Any or (isinstance(kind, type) and kind in _SCALAR_TYPES):
        return ""  # most are, and a start looks at all
    try:
        return _unencodable_reason(kind)
    except TypeError:  # it cannot be hashed: an annotation may hold anything
        return _unencodable_reason.__wrapped__(kind)


@lru_cache(maxsize=64)  # the methods of a manager speak of the same few types
def _unencodable_reason(kind: Any) -> str:
    if (mixed := find_crashing_union(kind)) is not None:
        return (
            f"{type_name(mixed)} mixes a type with limits and a tuple of fixed length, which msgspec does not support"
        )
    try:
        found = looked.type_info(kind)
    except (TypeError, ValueError, NameError, AttributeError, RecursionError) as error:
        return f"{type_name(kind)}: {error}"
    return _unencodable_part(found, [])


def find_crashing_union(kind: Any, seen: dict[int, Any] | None = None) -> Any:
    """Return a union in a type that would kill the process: msgspec (0.22) frees its decoder wrongly. None for none.

    Such a union has a part with limits (`Annotated[str, Meta(max_length=5)]`) and a tuple of fixed length. It has to be
    found before msgspec gets to see it.
    """
    seen = {} if seen is None else seen
    if id(kind) in seen:
        return None
    seen[id(kind)] = kind
    inner = typing.get_args(kind)
    if (
        typing.get_origin(kind) in (typing.Union, UnionType)
        and any(map(_has_constraints, inner))
        and any(map(_is_fixed, inner))
    ):
        return kind
    for part in (*inner, *_field_types(typing.get_origin(kind) or kind)):
        if (found := find_crashing_union(part, seen)) is not None:
            return found
    return None


def _has_constraints(kind: Any) -> bool:
    limits = getattr(kind, "__metadata__", ())
    return any(getattr(each, name, None) is not None for each in limits for name in _CONSTRAINTS)


def _is_fixed(kind: Any) -> bool:
    kind = getattr(kind, "__origin__", kind) if hasattr(kind, "__metadata__") else kind
    return typing.get_origin(kind) is tuple and Ellipsis not in typing.get_args(kind)


def _field_types(kind: Any) -> Sequence[Any]:
    if not isinstance(kind, type) or not hasattr(kind, "__annotations__"):
        return ()
    return _type_hints(kind)


@lru_cache(maxsize=64)
def _type_hints(kind: type) -> Sequence[Any]:
    try:
        return tuple(typing.get_type_hints(kind, include_extras=True).values())
    except (NameError, TypeError, AttributeError):  # msgspec says it better
        return ()


def _unencodable_part(info: looked.Type, seen: list[looked.Type]) -> str:
    if any(info is each for each in seen):
        return ""
    seen.append(info)
    if isinstance(info, looked.CustomType):
        return f"{type_name(info.cls)} is not a type that messages support"
    if isinstance(info, _TYPES_WITHOUT_SCHEMA):
        return f"{type(info).__name__.removesuffix('Type')} does not say what it contains"
    if unhashable := _unhashable_reason(info):
        return unhashable
    # Up to 7 ms: most arguments are plain, and a start does without it.
    from ostler.messaging.access.secret_arguments import component_types

    for part in component_types(info):
        if wrong := _unencodable_part(part, seen):
            return wrong
    return ""


def _unhashable_reason(info: looked.Type) -> str:
    """Return what is wrong with the elements of a set, or the keys of a map: Python could not keep them."""
    if isinstance(info, looked.SetType | looked.FrozenSetType) and not _is_hashable(info.item_type):
        return f"the items of a set cannot be {_mutable_type_name(info.item_type)}"
    if isinstance(info, looked.DictType) and not _is_hashable(info.key_type):
        return f"the keys of a map cannot be {_mutable_type_name(info.key_type)}"
    return ""


def _is_hashable(info: looked.Type) -> bool:
    if isinstance(info, _MUTABLE_TYPES):
        return False
    if isinstance(info, looked.StructType):
        settings = info.cls.__struct_config__
        return settings.frozen or not settings.eq or "__hash__" in vars(info.cls)
    if isinstance(info, looked.DataclassType):
        return bool(info.cls.__hash__)
    if isinstance(info, looked.UnionType):
        return all(map(_is_hashable, info.types))
    if isinstance(info, looked.TupleType):
        return all(map(_is_hashable, info.item_types))
    return True


def _mutable_type_name(info: looked.Type) -> str:
    cls = getattr(info, "cls", None)
    return f"of the type {cls.__name__}, which is not frozen" if cls is not None else "lists, sets or maps"


def type_name(kind: Any) -> str:
    """Return a type as people write it: `str`, `list[Lamp]`, `float | None`."""
    if isinstance(kind, list):  # the arguments of a Callable, which has no place here anyway
        return str(kind)
    if kind in _PLAIN_NAMES:
        return _PLAIN_NAMES[kind]
    origin = typing.get_origin(kind)
    if origin is None:
        return str(getattr(kind, "__name__", kind))
    return _generic_name(origin, typing.get_args(kind))


_PLAIN_NAMES: dict[Any, str] = {None: "None", type(None): "None", Any: "any"}


def _generic_name(origin: Any, arguments: tuple[Any, ...]) -> str:
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return " | ".join(repr(value) for value in arguments)
    if getattr(origin, "__name__", "") in ("Union", "UnionType"):
        return " | ".join(type_name(part) for part in arguments if part is not msgspec.UnsetType)
    inner = ", ".join("..." if part is Ellipsis else type_name(part) for part in arguments)
    return f"{getattr(origin, '__name__', str(origin))}[{inner}]"
