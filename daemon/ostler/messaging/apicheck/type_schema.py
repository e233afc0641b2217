"""Types by what they look like on the wire, as plain data that can be written to a file and compared.

A plain type is its name (`int`), one with limits a map (`{"kind": "int", "ge": 1}`). Lists, sets and open tuples are
one thing on the wire and one shape here, as enums and literals are. Types with fields stand under their names in a
table of their own, for they may hold themselves: `{"ref": "Lamp"}`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import inspect as looked

from ostler.messaging.interface.wire_types import type_name

SchemaNode: TypeAlias = "str | dict[str, Any]"

_SCALAR_NAMES: dict[type, str] = {
    looked.AnyType: "any", looked.NoneType: "none", looked.BoolType: "bool", looked.IntType: "int",
    looked.FloatType: "float", looked.StrType: "str", looked.BytesType: "bytes", looked.ByteArrayType: "bytes",
    looked.DateTimeType: "datetime", looked.DateType: "date", looked.TimeType: "time",
    looked.TimeDeltaType: "timedelta", looked.UUIDType: "uuid", looked.DecimalType: "decimal",
}  # fmt: skip
_CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")
_RECORD_TYPES = looked.StructType | looked.DataclassType | looked.TypedDictType | looked.NamedTupleType


class TypeSchema:
    """The table of types with fields, filled while shapes are asked for."""

    def __init__(self) -> None:
        self.types: dict[str, dict[str, Any]] = {}
        self._names: dict[Any, str] = {}

    def schema_of(self, kind: Any) -> SchemaNode:
        """Return the shape of a type that can go over the wire."""
        return self._node(looked.type_info(type(None) if kind is None else kind))

    def _node(self, info: looked.Type) -> SchemaNode:
        if isinstance(info, looked.Metadata):
            return self._node(info.type)
        if (plain := _SCALAR_NAMES.get(type(info))) is not None:
            return _constrained_node(plain, info)
        if isinstance(info, looked.EnumType | looked.LiteralType):
            values = info.values if isinstance(info, looked.LiteralType) else [each.value for each in info.cls]
            return {"kind": "enum", "values": sorted(values, key=str)}
        if isinstance(info, looked.UnionType):
            found = [self._node(part) for part in info.types]
            return {"kind": "union", "of": sorted(found, key=lambda each: msgspec.json.encode(each, order="sorted"))}
        if isinstance(info, _RECORD_TYPES):
            return {"ref": self._define_type(info)}
        return self._container_node(info)

    def _container_node(self, info: looked.Type) -> SchemaNode:
        if isinstance(info, looked.TupleType):
            return {"kind": "tuple", "items": [self._node(part) for part in info.item_types]}
        if isinstance(info, looked.DictType | looked.FrozenDictType):
            found = {"kind": "map", "keys": self._node(info.key_type), "values": self._node(info.value_type)}
            return found | _constraints(info)
        if isinstance(info, looked.CollectionType):
            return {"kind": "list", "items": self._node(info.item_type)} | _constraints(info)
        return {"kind": type(info).__name__.removesuffix("Type").lower()}

    def _define_type(self, info: Any) -> str:
        known = self._names.get(info.cls)
        if known is not None:
            return known
        name = type_name(info.cls)
        if name in self.types:  # another class of that name
            name = f"{info.cls.__module__}.{name}"
        self._names[info.cls] = name
        self.types[name] = {}  # it may be among its own fields
        self.types[name] = self._fields(info)
        return name

    def _fields(self, info: Any) -> dict[str, Any]:
        ordered = isinstance(info, looked.NamedTupleType) or getattr(info, "array_like", False)
        found: dict[str, Any] = {"kind": "array" if ordered else "struct"}
        if getattr(info, "tag", None) is not None:
            found["tag"] = [info.tag_field, info.tag]
        if getattr(info, "forbid_unknown_fields", False):
            found["closed"] = True
        fields = {field.encode_name: self._field(field) for field in info.fields}
        found["fields"] = [{"name": name, **field} for name, field in fields.items()] if ordered else fields
        if isinstance(info, looked.TypedDictType) or _omits_fields(info.cls):
            found["sparse"] = True
        return found

    def _field(self, field: looked.Field) -> dict[str, Any]:
        found: dict[str, Any] = {"type": self._node(field.type), "required": field.required}
        if field.default is not msgspec.NODEFAULT and field.default is not msgspec.UNSET:
            found["default"] = msgspec.to_builtins(field.default, str_keys=True)
        return found


def _omits_fields(cls: Any) -> bool:
    settings = getattr(cls, "__struct_config__", None)
    return settings is not None and bool(settings.omit_defaults)


def _constraints(info: looked.Type) -> dict[str, Any]:
    return {name: value for name in _CONSTRAINTS if (value := getattr(info, name, None)) is not None}


def _constrained_node(plain: str, info: looked.Type) -> SchemaNode:
    limits = _constraints(info)
    return {"kind": plain, **limits} if limits else plain
