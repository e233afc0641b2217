"""What is said to fit can be read: held against msgspec itself, with types and values of every kind."""

import datetime as dt
import uuid
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import hypothesis.strategies as st
import msgspec
from hypothesis import given

from ostler.messaging.apicheck.type_compatibility import TypeCompatibility, TypeSchema
from ostler.messaging.interface.wire_types import unencodable_reason

DAY = dt.datetime(2027, 1, 15, 8, tzinfo=dt.UTC)
ONE = uuid.UUID(int=1)
PLAIN: dict[Any, list[Any]] = {
    int: [0, -7, 2**40],
    float: [0.5, -1.0],
    str: ["", "a", "long enough"],
    bool: [True, False],
    bytes: [b"", b"x"],
    type(None): [None],
    dt.datetime: [DAY],
    uuid.UUID: [ONE],
    Literal["a", "b"]: ["a", "b"],
    Literal["a"]: ["a"],
    Literal[1, 2]: [1, 2],
    Annotated[int, msgspec.Meta(ge=0)]: [0, 2**40],
    Annotated[int, msgspec.Meta(ge=0, le=5)]: [0, 5],
    Annotated[str, msgspec.Meta(max_length=1)]: ["", "a"],
}


def struct(fields):
    """Return a struct with the fields that are given: a type, or a type and whether it may be left out."""
    return msgspec.defstruct("Row", [(name, kind) for name, kind in fields.items()], kw_only=True)


def with_default(parts):
    name, kind, other = parts
    return msgspec.defstruct(
        "Row", [("a", other), (name, kind | None if kind is not type(None) else kind, None)], kw_only=True
    )


def union(parts):
    try:
        found = Union[tuple(parts)]  # noqa: UP007 - of as many as there are
        return parts[0] if unencodable_reason(found) else found
    except TypeError:
        return parts[0]


KINDS = st.recursive(
    st.sampled_from(list(PLAIN)),
    lambda inner: st.one_of(
        inner.map(lambda kind: list[kind]),
        inner.map(lambda kind: dict[str, kind]),
        st.lists(inner, min_size=2, max_size=3).map(union),
        st.tuples(inner, inner).map(lambda kinds: tuple[kinds]),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=2).map(struct),
        st.tuples(st.sampled_from("bc"), st.sampled_from([int, str]), inner).map(with_default),
    ),
    max_leaves=5,
)


def some(draw, kind):
    """Return a value of a type."""
    if kind in PLAIN:
        return draw(st.sampled_from(PLAIN[kind]))
    origin, inner = get_origin(kind), get_args(kind)
    if origin is list:
        return [some(draw, inner[0]) for _ in range(draw(st.integers(0, 2)))]
    if origin is dict:
        return {key: some(draw, inner[1]) for key in draw(st.sets(st.sampled_from("abz"), max_size=2))}
    if origin is tuple:
        return tuple(some(draw, part) for part in inner)
    if inner:
        return some(draw, draw(st.sampled_from(inner)))
    return kind(**{field.name: some(draw, field.type) for field in msgspec.structs.fields(kind)})


@given(st.data(), KINDS, KINDS)
def test_what_is_said_to_fit_can_be_read(data, reader, writer):
    one, other = TypeSchema(), TypeSchema()
    read, written = one.schema_of(reader), other.schema_of(writer)
    # Passing is the assertion: what cannot be read raises.
    if not TypeCompatibility(one.types, other.types, complete=True).find_incompatibilities(read, written, "it"):
        msgspec.msgpack.decode(msgspec.msgpack.encode(some(data.draw, writer)), type=reader)


@given(KINDS)
def test_every_type_fits_itself(kind):
    one, other = TypeSchema(), TypeSchema()
    assert (
        TypeCompatibility(one.types, other.types, complete=False).find_incompatibilities(
            one.schema_of(kind), other.schema_of(kind), "it"
        )
        == []
    )


@given(KINDS)
def test_a_shape_is_plain_data(kind):
    shapes = TypeSchema()
    whole = [shapes.schema_of(kind), shapes.types]
    assert msgspec.json.decode(msgspec.json.encode(whole)) == whole


def test_a_whole_number_is_no_float_where_the_union_names_some_whole_numbers():
    one, other = TypeSchema(), TypeSchema()
    reader, writer = one.schema_of(Union[float, Literal[1, 2]]), other.schema_of(int)  # noqa: UP007 - as the others here
    assert TypeCompatibility(one.types, other.types, complete=True).find_incompatibilities(reader, writer, "it")
    assert not TypeCompatibility(one.types, other.types, complete=True).find_incompatibilities(
        reader, other.schema_of(Literal[2]), "it"
    )
    assert not TypeCompatibility(one.types, other.types, complete=True).find_incompatibilities(
        one.schema_of(float | str), writer, "it"
    )
