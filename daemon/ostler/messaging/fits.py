"""Whether what one side writes can be read by the other, by the shapes of types (see `rpc/shapes.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Types = Mapping[str, Mapping[str, Any]]

_AS_TEXT = {"datetime", "date", "time", "timedelta", "uuid", "decimal"}
_AT_LEAST = ("ge", "gt", "min_length")
_AT_MOST = ("le", "lt", "max_length")
_EXACTLY = ("multiple_of", "pattern", "tz")


class Fits:
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
        self._known: dict[tuple[str, str], list[str]] = {}

    def misfits(self, read: Any, written: Any, where: str) -> list[str]:
        """Return what does not fit, a phrase each, empty when all does.

        Args:
            read: The shape that the reader expects.
            written: The shape that the writer sends.
            where: What it is, for the phrases.
        """
        return list(self._misfits(read, written, where))

    def _misfits(self, read: Any, written: Any, where: str) -> Iterator[str]:
        read, written = _form(read), _form(written)
        if read["kind"] == "any":
            return
        if read["kind"] != "ref" or written["kind"] != "ref":
            yield from self._compared(read, written, where)
            return
        pair = (read["ref"], written["ref"])
        if pair not in self._known:
            self._known[pair] = []  # as far as it holds itself, it fits if the rest does
            self._known[pair] = list(self._compared(read, written, where))
        yield from self._known[pair]

    def _compared(self, read: Any, written: Any, where: str) -> Iterator[str]:
        if written["kind"] == "union":
            for part in written["of"]:
                yield from self._misfits(read, part, where)
        elif read["kind"] == "union":
            if all(self.misfits(part, written, where) for part in self._parts_for(read["of"], written)):
                yield f"{where} may be {_name(written)}"
        else:
            one, other = self._reader.get(read.get("ref", ""), read), self._writer.get(written.get("ref", ""), written)
            if one["kind"] == other["kind"]:
                yield from self._same_kind(one, other, where)
            else:
                yield from self._other_kind(one, other, where)

    def _parts_for(self, parts: list[Any], written: Any) -> list[Any]:
        """Return the parts of a union that may take what is written.

        A whole number is not taken for a `float` where the union names some whole numbers: `1 | 2 | float` reads no 3.
        """
        forms = [_form(part) for part in parts]
        of_ints = any(form["kind"] == "enum" and any(type(value) is int for value in form["values"]) for form in forms)
        if written["kind"] not in ("int", "enum") or not of_ints:
            return parts
        return [part for part, form in zip(parts, forms, strict=True) if form["kind"] != "float"]

    def _other_kind(self, read: Any, written: Any, where: str) -> Iterator[str]:
        kinds = (read["kind"], written["kind"])
        if kinds == ("float", "int") or (kinds[0] == "str" and kinds[1] in _AS_TEXT and set(read) == {"kind"}):
            return
        if kinds[1] == "enum" and set(read) == {"kind"} and kinds[0] in ("str", "int"):
            fitting = str if kinds[0] == "str" else int
            if all(isinstance(value, fitting) for value in written["values"]):
                return
        if kinds == ("list", "tuple") and set(read) == {"kind", "items"}:
            for number, part in enumerate(written["items"]):
                yield from self._misfits(read["items"], part, f"{where}[{number}]")
            return
        if kinds == ("map", "struct") and read["keys"] == "str":
            for name, field in written["fields"].items():
                yield from self._misfits(read["values"], field["type"], f"{where}.{name}")
            return
        yield f"{where} may be {_name(written)}, not {_name(read)}"

    def _same_kind(self, read: Any, written: Any, where: str) -> Iterator[str]:
        yield from _limits(read, written, where)
        kind = read["kind"]
        if kind == "enum":
            for value in written["values"]:
                if value not in read["values"]:
                    yield f"{where} may be {value!r}"
        elif kind == "list":
            yield from self._misfits(read["items"], written["items"], f"{where}[]")
        elif kind == "map":
            yield from self._misfits(read["keys"], written["keys"], f"a key of {where}")
            yield from self._misfits(read["values"], written["values"], f"{where}[]")
        elif kind == "tuple":
            yield from self._tuple(read["items"], written["items"], where)
        elif kind == "array":
            yield from self._array(read["fields"], written["fields"], where)
        elif kind == "struct":
            yield from self._struct(read, written, where)

    def _tuple(self, read: Any, written: Any, where: str) -> Iterator[str]:
        if len(read) != len(written):
            yield f"{where} has {len(written)} items, not {len(read)}"
            return
        for number, (one, other) in enumerate(zip(read, written, strict=True)):
            yield from self._misfits(one, other, f"{where}[{number}]")

    def _array(self, read: Any, written: Any, where: str) -> Iterator[str]:
        for number, field in enumerate(read):
            if number >= len(written):
                if field["required"]:
                    yield f"{where} has no {field['name']}"
                continue
            yield from self._misfits(field["type"], written[number]["type"], f"{where}.{field['name']}")

    def _struct(self, read: Any, written: Any, where: str) -> Iterator[str]:
        if read.get("tag") != written.get("tag"):
            yield f"{where} has the tag {written.get('tag')}, not {read.get('tag')}"
        for name, field in read["fields"].items():
            other = written["fields"].get(name)
            if other is None:
                if field["required"]:
                    yield f"{where} has no {name}"
                continue
            if field["required"] and not other["required"] and not (self._complete and not written.get("sparse")):
                yield f"{where} may come without {name}"
            yield from self._misfits(field["type"], other["type"], f"{where}.{name}")
        if read.get("closed"):
            for name in written["fields"]:
                if name not in read["fields"]:
                    yield f"{where} has {name}, and no other fields than its own may be there"


def lost_fields(old: Any, new: Any, old_types: Types, new_types: Types) -> list[str]:
    """Return the fields that were in a type and are not any more, `Lamp.on` each; by the names of the types."""
    return list(_lost(_form(old), _form(new), (old_types, new_types), set()))


def _lost(old: Any, new: Any, types: tuple[Types, Types], seen: set[tuple[str, str]]) -> Iterator[str]:
    if old["kind"] == new["kind"] == "ref":
        pair = (old["ref"], new["ref"])
        if pair not in seen:
            seen.add(pair)
            yield from _lost_of(pair, types, seen)
        return
    for key in ("items", "values", "of"):
        left, right = old.get(key), new.get(key)
        if old["kind"] == "enum" or left is None or right is None or isinstance(left, list) != isinstance(right, list):
            continue
        for one, other in zip(left, right, strict=False) if isinstance(left, list) else [(left, right)]:
            yield from _lost(_form(one), _form(other), types, seen)


def _lost_of(pair: tuple[str, str], types: tuple[Types, Types], seen: set[tuple[str, str]]) -> Iterator[str]:
    before, after = types[0][pair[0]], types[1][pair[1]]
    if not before["kind"] == after["kind"] == "struct":
        return
    for name, field in before["fields"].items():
        if name not in after["fields"]:
            yield f"{pair[0]}.{name}"
        else:
            yield from _lost(_form(field["type"]), _form(after["fields"][name]["type"]), types, seen)


def _form(shape: Any) -> Any:
    """Return a shape as a map with a `kind`."""
    if isinstance(shape, str):
        return {"kind": shape}
    return {"kind": "ref", **shape} if "ref" in shape else shape


def _name(shape: Any) -> str:
    shape = _form(shape)
    return str(shape.get("ref", shape["kind"]))


def _limits(read: Any, written: Any, where: str) -> Iterator[str]:
    for name in _AT_LEAST:
        if name in read and (name not in written or written[name] < read[name]):
            yield f"{where} may have less than {name} {read[name]}"
    for name in _AT_MOST:
        if name in read and (name not in written or written[name] > read[name]):
            yield f"{where} may have more than {name} {read[name]}"
    for name in _EXACTLY:
        if name in read and read[name] != written.get(name):
            yield f"{where} need not have {name} {read[name]!r}"
