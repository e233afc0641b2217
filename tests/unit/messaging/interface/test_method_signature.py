from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import typing
import uuid
from typing import Annotated, Any, Literal

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from ostler.errors import ContractError, InvalidArguments, MalformedMessage
from ostler.messaging import Context
from ostler.messaging.interface.introspection import describe_arguments, parse_argument_docs
from ostler.messaging.interface.method_signature import MethodSignature
from ostler.messaging.interface.wire_types import type_name, unencodable_reason
from ostler.types import CALL_OPTIONS, DaemonStatus


class Colour(enum.Enum):
    RED = "red"


class Tree(msgspec.Struct):
    children: list[Tree] = []


class Unknown:
    """A class that messages do not know."""


class Manager:
    def plain(self, ctx: Context, name: str, size: int = 10, tags: list[str] = []) -> str: ...  # noqa: B006
    def named(self, ctx: Context, *, name: str, colour: Colour = Colour.RED) -> None: ...
    def nothing(self, ctx: Context): ...
    def tree(self, ctx: Context, tree: Tree) -> Tree: ...
    def limited(
        self, ctx: Context, port: Annotated[int, msgspec.Meta(ge=1, le=65535)], mode: Literal["a", "b"]
    ) -> Any: ...
    def secret(self, ctx: Context, password: Annotated[str, msgspec.Meta(min_length=40)]) -> None: ...


class Wrong:
    def no_context() -> None: ...
    def untyped(self, ctx, name): ...
    def stars(self, ctx, *names: str): ...
    def double_stars(self, ctx, **names: str): ...
    def unknown_argument(self, ctx, thing: Unknown): ...
    def unknown_inside(self, ctx, things: dict[str, list[Unknown | None]]): ...
    def unknown_result(self, ctx) -> Unknown: ...
    def unresolved(self, ctx, thing: Elsewhere): ...  # noqa: F821
    def any_object(self, ctx, thing: object): ...


def signature(name, owner=Manager):
    return MethodSignature(getattr(owner(), name), f"lamp.{name}")


def decode(method, /, *, lenient=False, **arguments):
    return signature(method).decode(msgspec.msgpack.encode(arguments), lenient=lenient)


def test_arguments_are_decoded_into_their_types_with_defaults():
    assert decode("plain", name="a") == (("a", 10, []), {})
    assert decode("named", name="a") == ((), {"name": "a", "colour": Colour.RED})
    assert decode("nothing") == ((), {})
    assert decode("tree", tree={"children": [{}]})[0] == (Tree([Tree()]),)


@pytest.mark.failure_mode("RPC", "arguments of the wrong type, too many, too few, unknown")
@pytest.mark.parametrize(
    ("method", "arguments", "words", "argument", "expected", "got"),
    [
        ("plain", {}, "lamp.plain needs the argument 'name'; it takes: name: str", "name", ["name"], []),
        ("plain", {"nam": 1}, "no argument 'nam'; did you mean 'name'?", "nam", ["name", "size", "tags"], ["nam"]),
        ("nothing", {"x": 1}, "takes no argument 'x'; it takes none", "x", [], ["x"]),
        ("plain", {"name": 5}, "argument 'name' of lamp.plain must be str, not int", "name", "str", "int"),
        ("plain", {"name": "a", "size": None}, "'size' of lamp.plain must be int, not null", "size", "int", "null"),
        ("plain", {"name": "a", "tags": ["b", 3]}, "argument 'tags[1]' of lamp.plain", "tags", "str", "int"),
        ("named", {"name": "a", "colour": "blue"}, "Colour (invalid enum value), not 'blue'", "colour", None, "'blue'"),
        ("limited", {"port": 0, "mode": "a"}, "'port' of lamp.limited must be int >= 1, not 0", "port", None, "0"),
        ("limited", {"port": 1, "mode": "c"}, "argument 'mode' of lamp.limited", "mode", None, None),
    ],
)  # fmt: skip
def test_arguments_of_the_wrong_type_too_many_too_few_unknown(method, arguments, words, argument, expected, got):
    with pytest.raises(InvalidArguments) as caught:
        decode(method, **arguments)
    facts = caught.value.details
    assert words in str(caught.value)
    assert facts["argument"] == argument
    assert expected is None or facts["expected"] == expected
    assert got is None or facts["got"] == got


def test_an_error_does_not_repeat_a_text_that_may_be_a_secret():
    with pytest.raises(InvalidArguments) as caught:
        decode("secret", password="hunter2")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.details)


def test_lenient_decoding_reads_texts():
    assert decode("plain", lenient=True, name="a", size="20", tags='["x", "y"]') == (("a", 20, ["x", "y"]), {})
    with pytest.raises(InvalidArguments, match="must be int, not str"):
        decode("plain", lenient=True, name="a", size="ten")
    with pytest.raises(InvalidArguments):
        decode("plain", name="a", size="20")


@pytest.mark.parametrize("given", [{"size": "9" * 25}, {"tags": '["a"]', "size": "-" + "9" * 20}])
def test_a_text_is_not_read_as_a_number_that_no_message_carries(given):
    with pytest.raises(InvalidArguments, match="more than 64 bits"):
        decode("plain", lenient=True, name="a", **given)
    assert decode("plain", lenient=True, name="9" * 25, size=str(2**64 - 1))[0][:2] == ("9" * 25, 2**64 - 1)


def test_arguments_that_are_no_map_are_refused():
    with pytest.raises(InvalidArguments, match="not a map"):
        signature("plain").decode(msgspec.msgpack.encode([1]))
    with pytest.raises(InvalidArguments, match="not a map"):
        signature("plain").decode(msgspec.msgpack.encode({1: 2}))
    with pytest.raises(MalformedMessage):
        signature("plain").decode(b"\x81\xa4name\xa5x")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("no_context", "signature of lamp.no_context cannot be read"),
        ("untyped", "argument 'name' of lamp.untyped has no type annotation; annotate it"),
        ("stars", "argument 'names' of lamp.stars cannot be given by name"),
        ("double_stars", "argument 'names' of lamp.double_stars"),
        ("unknown_argument", "argument 'thing' of lamp.unknown_argument cannot be encoded: Unknown"),
        ("unknown_inside", "argument 'things' of lamp.unknown_inside cannot be encoded: Unknown"),
        ("unknown_result", "the result of lamp.unknown_result cannot be encoded: Unknown"),
        ("unresolved", "name 'Elsewhere' is not defined"),
        ("any_object", "object is not a type that messages support"),
    ],
)
def test_what_cannot_go_over_the_wire_is_an_error_at_load_by_name(method, words):
    with pytest.raises(ContractError) as caught:
        signature(method, Wrong)
    assert words in str(caught.value)


def test_a_method_without_a_context_is_refused():
    def alone() -> None: ...

    with pytest.raises(ContractError, match="must take `ctx: Context` as its first argument"):
        MethodSignature(alone, "lamp.alone")


def test_signatures_are_described_as_people_write_them():
    described = describe_arguments(signature("plain"), {"size": "How large."})
    assert [(each.name, each.type, each.required, each.default, each.doc) for each in described] == [
        ("name", "str", True, "", ""), ("size", "int", False, "10", "How large."),
        ("tags", "list[str]", False, "[]", ""),
    ]  # fmt: skip
    assert type_name(signature("named").arguments[1].type) == "Colour"
    assert type_name(dict[str, int | None]) == "dict[str, int | None]"
    assert type_name(tuple[int, ...]) == "tuple[int, ...]"
    assert type_name(Literal["a", 1]) == "'a' | 1"
    assert type_name(None) == "None"
    assert type_name(Any) == "any"
    assert type_name(signature("limited").arguments[0].type) == "int"


def test_the_types_of_the_daemon_itself_fit():
    assert unencodable_reason(DaemonStatus) == ""
    assert unencodable_reason(None) == ""
    assert "Unknown" in unencodable_reason(list[Unknown])


class Frozen(msgspec.Struct, frozen=True):
    x: int


class Fields(typing.NamedTuple):
    a: int
    b: str = "x"


class Table(typing.TypedDict):
    a: int
    b: typing.NotRequired[str]


@dataclasses.dataclass
class Plain:
    a: int
    inner: Tree = dataclasses.field(default_factory=Tree)


class Red(msgspec.Struct, tag=True):
    x: int


class Blue(msgspec.Struct, tag=True):
    x: int


T = typing.TypeVar("T")


class Box(msgspec.Struct, typing.Generic[T]):
    inside: T
    more: list[Box[T]] = []


class Mixed(enum.Enum):
    A = "a"
    B = 1


Short = Annotated[str, msgspec.Meta(max_length=1)]


class Crashing(msgspec.Struct):
    again: list[Crashing]
    inside: tuple[int, str] | Annotated[int, msgspec.Meta(ge=1)]


UNFIT = [
    (Tree | Frozen, "must be tagged"),
    (list[int] | set[int], "more than one array-like"),
    (str | dt.datetime, "more than one str-like"),
    (dict[str, int] | Tree, "more than one dict-like"),
    (int | Unknown, "custom type"),
    (Mixed, "either all str or all int"),
    (Literal[1.5], "Literal may only contain"),
    (set[Tree], "the items of a set cannot be of the type Tree, which is not frozen"),
    (set[list[int]], "the items of a set cannot be lists, sets or maps"),
    (dict[Plain, int], "the keys of a map cannot be of the type Plain, which is not frozen"),
    (frozenset[dict[str, int]], "the items of a set cannot be"),
    (pathlib.Path, "Path is not a type that messages support"),
    (Box[Unknown], "Unknown is not a type that messages support"),
    (collections.OrderedDict, "OrderedDict is not a type"),
    (complex, "complex is not a type"),
    (Exception, "Exception is not a type"),
    (typing.Callable[[int], str], "Callable is not a type"),
    (msgspec.Raw, "Raw does not say"),
    (memoryview, "MemoryView does not say"),
    (Short | tuple[int, int], "mixes a type with limits and a tuple of fixed length, which msgspec does not support"),
    (list[tuple[()] | Annotated[dict[str, int], msgspec.Meta(max_length=2)] | None], "mixes a type with limits"),
    (dict[str, Crashing], "mixes a type with limits"),
]


@pytest.mark.parametrize(("kind", "words"), UNFIT)
def test_types_that_cannot_be_told_apart_or_read_again_are_refused_at_load(kind, words):
    def method(ctx, thing): ...

    method.__annotations__ = {"thing": kind, "return": None}
    with pytest.raises(ContractError) as caught:
        MethodSignature(method, "lamp.method")
    assert words in str(caught.value)
    assert "lamp.method" in str(caught.value)
    method.__annotations__ = {"thing": int, "return": list[kind]}
    with pytest.raises(ContractError, match=r"the result of lamp\.method"):
        MethodSignature(method, "lamp.method")


@pytest.mark.parametrize(
    "kind",
    [
        Short | tuple[int, ...], str | tuple[int, int], Short | Fields, tuple[Short, int],
        Annotated[str, "x"] | tuple[int, int],
    ],
)  # fmt: skip
def test_what_looks_like_the_mix_that_kills_the_process_is_none(kind):
    assert unencodable_reason(kind) == ""
    assert msgspec.msgpack.Decoder(kind)


VALUES = st.one_of(
    st.builds(Plain, st.integers(-(2**63), 2**64 - 1), st.builds(Tree, st.lists(st.builds(Tree), max_size=2))).map(
        lambda value: (Plain, value)
    ),
    st.sampled_from(Colour).map(lambda value: (Colour, value)),
    st.datetimes(timezones=st.sampled_from([dt.UTC, None])).map(lambda value: (dt.datetime, value)),
    st.dates().map(lambda value: (dt.date, value)),
    st.times().map(lambda value: (dt.time, value)),
    st.timedeltas(dt.timedelta(-9999), dt.timedelta(9999)).map(lambda value: (dt.timedelta, value)),
    st.binary(max_size=50).map(lambda value: (bytes, value)),
    st.uuids().map(lambda value: (uuid.UUID, value)),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda value: (decimal.Decimal, value)),
    st.one_of(st.builds(Red, st.integers(0, 9)), st.builds(Blue, st.integers(0, 9)), st.none()).map(
        lambda value: (Red | Blue | None, value)
    ),
    st.one_of(st.integers(-9, 9), st.text(max_size=5), st.booleans()).map(lambda value: (int | str | bool, value)),
    st.frozensets(st.integers(0, 9)).map(lambda value: (frozenset[int], value)),
    st.sets(st.builds(Frozen, st.integers(0, 9))).map(lambda value: (set[Frozen], value)),
    st.dictionaries(st.tuples(st.integers(0, 9), st.text(max_size=3)), st.floats(allow_nan=False)).map(
        lambda value: (dict[tuple[int, str], float], value)
    ),
    st.builds(Fields, st.integers(0, 9), st.text(max_size=3)).map(lambda value: (Fields, value)),
    st.fixed_dictionaries({"a": st.integers(0, 9)}, optional={"b": st.text(max_size=3)}).map(
        lambda value: (Table, value)
    ),
    st.builds(Box, st.integers(0, 9)).map(lambda value: (Box[int], value)),
)


@hypothesis.given(VALUES)
def test_what_is_accepted_at_load_comes_back_as_it_went(pair):
    kind, value = pair

    def method(ctx, thing): ...

    method.__annotations__ = {"thing": kind, "return": kind}
    method.__defaults__ = (value,)
    found = MethodSignature(method, "lamp.method")
    assert found.decode(msgspec.msgpack.encode({"thing": value})) == ((value,), {})
    assert found.decode(b"\x80") == ((value,), {})


def test_a_default_that_is_changed_by_one_call_is_whole_for_the_next():
    def method(ctx, tags: list[str] = ["a"], tree: Tree = Tree(), plain: Plain = Plain(1)) -> None: ...  # noqa: B006, B008

    found = MethodSignature(method, "lamp.method")
    first, tree, plain = found.decode(b"\x80")[0]
    first.append("b")
    tree.children.append(Tree())
    plain.a = 2
    assert found.decode(b"\x80")[0] == (["a"], Tree(), Plain(1))


@pytest.mark.parametrize(
    ("kind", "default", "words"),
    [
        (int, None, "does not fit its type int: Expected `int`, got `None`; annotate it as `int | None`"),
        (int, "ten", "does not fit its type int"),
        (str, Unknown(), "does not fit its type str"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "Expected `int` >= 1"),
    ],
)  # fmt: skip
def test_a_default_that_does_not_fit_is_refused_at_load(kind, default, words):
    def method(ctx, thing=None): ...

    method.__annotations__ = {"thing": kind, "return": None}
    method.__defaults__ = (default,)
    with pytest.raises(ContractError) as caught:
        MethodSignature(method, "lamp.method")
    assert words in str(caught.value)


def test_no_name_is_reserved_for_an_argument():
    def method(
        ctx,
        topic: str,
        method: str,
        host: str,
        timeout: int,
        type: str,  # noqa: A002
        on_progress: bool,
        *,
        retry: int,
        credit: int,
        args: str,
        kwargs: str,
    ) -> str: ...

    signature = MethodSignature(method, "lamp.method")
    given = {
        each.name: {"timeout": 1, "retry": 2, "credit": 3, "on_progress": True}.get(each.name, "x")
        for each in signature.arguments
    }
    assert signature.decode(msgspec.msgpack.encode(given)) == ((), given)


@pytest.mark.parametrize("word", sorted(CALL_OPTIONS))
def test_an_option_of_a_call_that_came_as_an_argument_is_told_to_be_one(word):
    with pytest.raises(InvalidArguments, match=rf"takes no argument '{word}'; .*client\.on\({word}=…\)") as caught:
        MethodSignature(Manager().named, "lamp.named").decode(msgspec.msgpack.encode({word: "x"}))
    assert ("on a command line" in str(caught.value)) is (word in ("host", "timeout"))


def test_a_huge_or_secret_value_is_not_repeated():
    found = MethodSignature(Manager().named, "lamp.named")
    with pytest.raises(InvalidArguments) as caught:
        found.decode(msgspec.msgpack.encode({"name": "a", "colour": "x" * 1_000_000}))
    assert len(str(caught.value)) < 200
    assert caught.value.details["got"] == "this str"
    with pytest.raises(InvalidArguments) as caught:
        found.decode(msgspec.msgpack.encode({f"{number}{'x' * 1000}": 1 for number in range(1000)}))
    assert len(str(caught.value)) < 1500
    assert "and 990 more" in str(caught.value)
    assert len(str(caught.value.details)) < 1500

    def pin(ctx, code: Annotated[int, msgspec.Meta(ge=10_000)], colour: Colour) -> None: ...

    for arguments in ({"code": 4711, "colour": "red"}, {"code": 10_000, "colour": "hunter2"}):
        with pytest.raises(InvalidArguments) as caught:
            MethodSignature(pin, "lamp.pin", ["code", "colour"]).decode(msgspec.msgpack.encode(arguments))
        assert "4711" not in f"{caught.value} {caught.value.details}"
        assert "hunter2" not in f"{caught.value} {caught.value.details}"


def test_an_error_says_where_inside_an_argument_it_is():
    def method(ctx, things: dict[str, list[Colour]]) -> None: ...

    with pytest.raises(InvalidArguments, match=r"argument 'things\[\.\.\.\]\[1\]' of lamp.method must be") as caught:
        MethodSignature(method, "lamp.method").decode(msgspec.msgpack.encode({"things": {"a": ["red", "blue"]}}))
    assert caught.value.details["argument"] == "things"


def test_a_method_that_yields_has_the_type_of_its_items_as_result():
    class Streams:
        def some(self, ctx: Context, first: int = 0) -> typing.Iterator[Tree]:
            yield Tree()

        async def more(self, ctx: Context) -> typing.AsyncIterator[int]:
            yield 1

        def unnamed(self, ctx: Context) -> list[int]:
            yield 1

    assert (signature("some", Streams).is_streaming, signature("some", Streams).result) == (True, Tree)
    assert signature("more", Streams).result is int
    assert not signature("plain").is_streaming
    with pytest.raises(ContractError, match=r"lamp.unnamed yields, but its annotation does not say what"):
        signature("unnamed", Streams)


def test_the_docstring_says_what_arguments_are():
    doc = """Do it.

    More words: not of an argument.

    Args:
        name: Its name,
            on two lines.
        size (int): How large: in bytes.

    Returns:
        nothing: at all.
    """
    assert parse_argument_docs(doc) == {"name": "Its name, on two lines.", "size": "How large: in bytes."}
    assert parse_argument_docs("") == {}


def test_a_type_without_a_json_schema_says_so():
    def method(ctx, things: dict[tuple[int, int], bytes]) -> Any: ...

    arguments, result = MethodSignature(method, "lamp.method").schema()
    assert arguments["title"] == "lamp.method"
    assert result == {}
