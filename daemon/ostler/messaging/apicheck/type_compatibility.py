"""Types by what they look like on the wire, and whether what one side writes can be read by the other.

The shapes are plain data that can be written to a file and compared. A plain type is its name (`int`), one with limits
a map (`{"kind": "int", "ge": 1}`). Lists, sets and open tuples are one thing on the wire and one shape here, as enums
and literals are. Types with fields stand under their names in a table of their own, for they may hold themselves:
`{"ref": "Lamp"}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


Types = Mapping[str, Mapping[str, Any]]

_TEXT_ENCODED_KINDS = {"datetime", "date", "time", "timedelta", "uuid", "decimal"}
_LOWER_BOUNDS = ("ge", "gt", "min_length")
_UPPER_BOUNDS = ("le", "lt", "max_length")
_EXACT_CONSTRAINTS = ("multiple_of", "pattern", "tz")


class TypeCompatibility:
    """Finds what a reader of one version cannot take of what a writer of another one sends.

    Args:
        reader: The table of types of the reader.
        writer: The table of types of the writer.
        complete: Whether the writer sends every field of a struct, those with defaults too, as services do.
    """

    def __init__(self, reader: Types, writer: Types, *, complete: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._complete = complete
        self._cache: dict[tuple[str, str], list[str]] = {}

    def find_incompatibilities(self, read: Any, written: Any, where: str) -> list[str]:
        """Return what does not fit, a phrase each, empty when all does.

        Args:
            read: The shape that the reader expects.
            written: The shape that the writer sends.
            where: What it is, for the phrases.
        """
        return list(self._incompatibilities(read, written, where))

    def _incompatibilities(self, read: Any, written: Any, where: str) -> Iterator[str]:
        read, written = _as_map(read), _as_map(written)
        if read["kind"] == "any":
            return
        if read["kind"] != "ref" or written["kind"] != "ref":
            yield from self._compare(read, written, where)
            return
        pair = (read["ref"], written["ref"])
        if pair not in self._cache:
            self._cache[pair] = []  # as far as it holds itself, it fits if the rest does
            self._cache[pair] = list(self._compare(read, written, where))
        yield from self._cache[pair]

    def _compare(self, read: Any, written: Any, where: str) -> Iterator[str]:
        if written["kind"] == "union":
            for part in written["of"]:
                yield from self._incompatibilities(read, part, where)
        elif read["kind"] == "union":
            if all(
                self.find_incompatibilities(part, written, where)
                for part in self._matching_members(read["of"], written)
            ):
                yield f"{where} may be {_schema_name(written)}"
        else:
            one, other = self._reader.get(read.get("ref", ""), read), self._writer.get(written.get("ref", ""), written)
            if one["kind"] == other["kind"]:
                yield from self._compare_same_kind(one, other, where)
            else:
                yield from self._compare_different_kinds(one, other, where)

    def _matching_members(self, parts: list[Any], written: Any) -> list[Any]:
        """Return the parts of a union that may take what is written.

        A whole number is not taken for a `float` where the union names some whole numbers: `1 | 2 | float` reads no 3.
        """
        forms = [_as_map(part) for part in parts]
        of_ints = any(form["kind"] == "enum" and any(type(value) is int for value in form["values"]) for form in forms)
        if written["kind"] not in ("int", "enum") or not of_ints:
            return parts
        return [part for part, form in zip(parts, forms, strict=True) if form["kind"] != "float"]

    def _compare_different_kinds(self, read: Any, written: Any, where: str) -> Iterator[str]:
        kinds = (read["kind"], written["kind"])
        if kinds == ("float", "int") or (
            kinds[0] == "str" and kinds[1] in _TEXT_ENCODED_KINDS and set(read) == {"kind"}
        ):
            return
        if kinds[1] == "enum" and set(read) == {"kind"} and kinds[0] in ("str", "int"):
            fitting = str if kinds[0] == "str" else int
            if all(isinstance(value, fitting) for value in written["values"]):
                return
        if kinds == ("list", "tuple") and set(read) == {"kind", "items"}:
            for number, part in enumerate(written["items"]):
                yield from self._incompatibilities(read["items"], part, f"{where}[{number}]")
            return
        if kinds == ("map", "struct") and read["keys"] == "str":
            for name, field in written["fields"].items():
                yield from self._incompatibilities(read["values"], field["type"], f"{where}.{name}")
            return
        yield f"{where} may be {_schema_name(written)}, not {_schema_name(read)}"

    def _compare_same_kind(self, read: Any, written: Any, where: str) -> Iterator[str]:
        yield from _compare_constraints(read, written, where)
        kind = read["kind"]
        if kind == "enum":
            for value in written["values"]:
                if value not in read["values"]:
                    yield f"{where} may be {value!r}"
        elif kind == "list":
            yield from self._incompatibilities(read["items"], written["items"], f"{where}[]")
        elif kind == "map":
            yield from self._incompatibilities(read["keys"], written["keys"], f"a key of {where}")
            yield from self._incompatibilities(read["values"], written["values"], f"{where}[]")
        elif kind == "tuple":
            yield from self._compare_tuples(read["items"], written["items"], where)
        elif kind == "array":
            yield from self._compare_arrays(read["fields"], written["fields"], where)
        elif kind == "struct":
            yield from self._compare_structs(read, written, where)

    def _compare_tuples(self, read: Any, written: Any, where: str) -> Iterator[str]:
        if len(read) != len(written):
            yield f"{where} has {len(written)} items, not {len(read)}"
            return
        for number, (one, other) in enumerate(zip(read, written, strict=True)):
            yield from self._incompatibilities(one, other, f"{where}[{number}]")

    def _compare_arrays(self, read: Any, written: Any, where: str) -> Iterator[str]:
        for number, field in enumerate(read):
            if number >= len(written):
                if field["required"]:
                    yield f"{where} has no {field['name']}"
                continue
            yield from self._incompatibilities(field["type"], written[number]["type"], f"{where}.{field['name']}")

    def _compare_structs(self, read: Any, written: Any, where: str) -> Iterator[str]:
        if read.get("tag") != written.get("tag"):
            yield f"{where} has the tag {written.get('tag')}, not {read.get('tag')}"
        for name, field in read["fields"].items():
            other = written["fields"].get(name)
            if other is None:
                if field["required"]:
                    yield f"{where} has no {name}"
                continue
            if field["required"] and not other["required"] and not (self._complete and not written.get("sparse")):
                yield f"{where} may lack {name}"
            yield from self._incompatibilities(field["type"], other["type"], f"{where}.{name}")
        if read.get("closed"):
            for name in written["fields"]:
                if name not in read["fields"]:
                    yield f"{where} has {name}, which is not one of its fields, and others are not allowed"


def removed_fields(old: Any, new: Any, old_types: Types, new_types: Types) -> list[str]:
    """Return the fields that were in a type and are not any more, `Lamp.on` each; by the names of the types."""
    return list(_removed(_as_map(old), _as_map(new), (old_types, new_types), set()))


def _removed(old: Any, new: Any, types: tuple[Types, Types], seen: set[tuple[str, str]]) -> Iterator[str]:
    if old["kind"] == new["kind"] == "ref":
        pair = (old["ref"], new["ref"])
        if pair not in seen:
            seen.add(pair)
            yield from _removed_from(pair, types, seen)
        return
    for key in ("items", "values", "of"):
        left, right = old.get(key), new.get(key)
        if old["kind"] == "enum" or left is None or right is None or isinstance(left, list) != isinstance(right, list):
            continue
        for one, other in zip(left, right, strict=False) if isinstance(left, list) else [(left, right)]:
            yield from _removed(_as_map(one), _as_map(other), types, seen)


def _removed_from(pair: tuple[str, str], types: tuple[Types, Types], seen: set[tuple[str, str]]) -> Iterator[str]:
    before, after = types[0][pair[0]], types[1][pair[1]]
    if not before["kind"] == after["kind"] == "struct":
        return
    for name, field in before["fields"].items():
        if name not in after["fields"]:
            yield f"{pair[0]}.{name}"
        else:
            yield from _removed(_as_map(field["type"]), _as_map(after["fields"][name]["type"]), types, seen)


def _as_map(shape: Any) -> Any:
    """Return a shape as a map with a `kind`."""
    if isinstance(shape, str):
        return {"kind": shape}
    return {"kind": "ref", **shape} if "ref" in shape else shape


def _schema_name(shape: Any) -> str:
    shape = _as_map(shape)
    return str(shape.get("ref", shape["kind"]))


def _compare_constraints(read: Any, written: Any, where: str) -> Iterator[str]:
    for name in _LOWER_BOUNDS:
        if name in read and (name not in written or written[name] < read[name]):
            yield f"{where} may be below {name} {read[name]}"
    for name in _UPPER_BOUNDS:
        if name in read and (name not in written or written[name] > read[name]):
            yield f"{where} may be above {name} {read[name]}"
    for name in _EXACT_CONSTRAINTS:
        if name in read and read[name] != written.get(name):
            yield f"{where} need not have {name} {read[name]!r}"
