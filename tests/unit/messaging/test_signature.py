from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from ostler.errors import BadEnvelope, ContractError, InvalidArguments
from ostler.messaging import Context
from ostler.messaging.rpc.signature import Signature, type_name, unfit
from ostler.types import DaemonStatus


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
    return Signature(getattr(owner(), name), f"lamp.{name}")


def decode(method, /, *, lenient=False, **arguments):
    return signature(method).decode(msgspec.msgpack.encode(arguments), lenient=lenient)


def test_arguments_are_decoded_into_their_types_with_defaults():
    assert decode("plain", name="a") == (("a", 10, []), {})
    assert decode("named", name="a") == ((), {"name": "a", "colour": Colour.RED})
    assert decode("nothing") == ((), {})
    assert decode("tree", tree={"children": [{}]})[0] == (Tree([Tree()]),)


@pytest.mark.parametrize(
    ("method", "arguments", "words", "argument", "expected", "got"),
    [
        ("plain", {}, "lamp.plain needs the argument 'name'; it takes: name: str", "name", ["name"], []),
        ("plain", {"nam": 1}, "no argument 'nam'; did you mean 'name'?", "nam", ["name", "size", "tags"], ["nam"]),
        ("nothing", {"x": 1}, "takes no argument 'x'; it takes none", "x", [], ["x"]),
        ("plain", {"name": 5}, "argument 'name' of lamp.plain must be str, not int", "name", "str", "int"),
        ("plain", {"name": "a", "size": None}, "'size' of lamp.plain must be int, not null", "size", "int", "null"),
        ("plain", {"name": "a", "tags": ["b", 3]}, "argument 'tags[1]' of lamp.plain", "tags", "str", "int"),
        ("named", {"name": "a", "colour": "blue"}, "invalid enum value 'blue'", "colour", None, "'blue'"),
        ("limited", {"port": 0, "mode": "a"}, "'port' of lamp.limited must be int >= 1, not 0", "port", None, "0"),
        ("limited", {"port": 1, "mode": "c"}, "argument 'mode' of lamp.limited", "mode", None, None),
    ],
)  # fmt: skip
def test_trap_arguments_of_the_wrong_type_too_many_too_few_unknown(method, arguments, words, argument, expected, got):
    with pytest.raises(InvalidArguments) as caught:
        decode(method, **arguments)
    facts = caught.value.facts
    assert words in str(caught.value)
    assert facts["argument"] == argument
    assert expected is None or facts["expected"] == expected
    assert got is None or facts["got"] == got


def test_an_error_does_not_repeat_a_text_that_may_be_a_secret():
    with pytest.raises(InvalidArguments) as caught:
        decode("secret", password="hunter2")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.facts)


def test_lenient_decoding_reads_texts():
    assert decode("plain", lenient=True, name="a", size="20", tags='["x", "y"]') == (("a", 20, ["x", "y"]), {})
    with pytest.raises(InvalidArguments, match="must be int, not str"):
        decode("plain", lenient=True, name="a", size="ten")
    with pytest.raises(InvalidArguments):
        decode("plain", name="a", size="20")


def test_arguments_that_are_no_map_are_refused():
    with pytest.raises(InvalidArguments, match="no map"):
        signature("plain").decode(msgspec.msgpack.encode([1]))
    with pytest.raises(InvalidArguments, match="no map"):
        signature("plain").decode(msgspec.msgpack.encode({1: 2}))
    with pytest.raises(BadEnvelope):
        signature("plain").decode(b"\x81\xa4name\xa5x")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("no_context", "signature of lamp.no_context cannot be read"),
        ("untyped", "argument 'name' of lamp.untyped has no type; annotate it"),
        ("stars", "argument 'names' of lamp.stars cannot be given by name"),
        ("double_stars", "argument 'names' of lamp.double_stars"),
        ("unknown_argument", "argument 'thing' of lamp.unknown_argument cannot go over the wire: Unknown"),
        ("unknown_inside", "argument 'things' of lamp.unknown_inside cannot go over the wire: Unknown"),
        ("unknown_result", "the result of lamp.unknown_result cannot go over the wire: Unknown"),
        ("unresolved", "name 'Elsewhere' is not defined"),
        ("any_object", "object is a type that messages do not know"),
    ],
)
def test_what_cannot_go_over_the_wire_is_an_error_at_load_by_name(method, words):
    with pytest.raises(ContractError) as caught:
        signature(method, Wrong)
    assert words in str(caught.value)


def test_a_method_without_a_context_is_refused():
    def alone() -> None: ...

    with pytest.raises(ContractError, match="must take `ctx: Context` as its first argument"):
        Signature(alone, "lamp.alone")


def test_signatures_are_described_as_people_write_them():
    described = signature("plain").describe()
    assert [(each.name, each.type, each.required, each.default) for each in described] == [
        ("name", "str", True, ""), ("size", "int", False, "10"), ("tags", "list[str]", False, "[]"),
    ]  # fmt: skip
    assert type_name(signature("named").arguments[1].type) == "Colour"
    assert type_name(dict[str, int | None]) == "dict[str, int | None]"
    assert type_name(tuple[int, ...]) == "tuple[int, ...]"
    assert type_name(Literal["a", 1]) == "'a' | 1"
    assert type_name(None) == "None"
    assert type_name(Any) == "any"
    assert type_name(signature("limited").arguments[0].type) == "int"


def test_the_types_of_the_daemon_itself_fit():
    assert unfit(DaemonStatus) == ""
    assert unfit(None) == ""
    assert "Unknown" in unfit(list[Unknown])
