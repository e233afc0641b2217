"""Any value against any annotated argument: the right value, or a refusal that names the argument, and no secret."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostler.errors import InvalidArguments, MalformedMessage
from ostler.messaging.access.secret_arguments import SecretText
from ostler.messaging.interface.method_signature import MethodSignature

SECRET = "hunter2-correct-horse"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Tree(msgspec.Struct):
    name: str = ""
    children: list["Tree"] = []


class Tagged(msgspec.Struct, tag="tagged"):
    size: int


class Other(msgspec.Struct, tag="other"):
    text: str


class Picky(msgspec.Struct):
    size: int

    def __post_init__(self):
        if self.size < 0:
            raise ValueError(f"no size: {self.size}")


@dataclasses.dataclass
class Plain:
    a: int
    b: Tree | None = None


class Pair(NamedTuple):
    a: int
    b: str = ""


class Table(TypedDict, total=False):
    a: int
    b: list[str]


class Login(msgspec.Struct):
    user: str
    password: SecretText


KINDS = [
    int, float, str, bool, bytes, bytearray, None, Any, list, dict, list[int], list[str | None], dict[str, int],
    dict[int, str], dict[str, list[Tree]], set[int], frozenset[str], tuple[int, str], tuple[int, ...], int | str,
    int | None, bytes | None, Colour, Level, Colour | None, list[Colour], Literal["a", "b", 3], Tree, Tagged | Other,
    Plain,
    Pair, Table, Picky, dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID, SecretText, Login,
    list[Login], Annotated[int, msgspec.Meta(ge=1, le=9)], Annotated[str, msgspec.Meta(max_length=3)], tuple[str, ...],
    Annotated[str, msgspec.Meta(pattern="^[a-z]+$")], collections.abc.Sequence[int], collections.abc.Mapping[str,
    float],
]  # fmt: skip
WORDS = st.sampled_from(
    ["", "1", "-1", "1.5", "nan", "inf", "1e999", "true", "null", "red", "{}", "[1]", '{"name": "x"}', "9" * 400, "0x1",
     "2026-01-01T00:00:00Z", "2026-01-01", "P1D", "-P99999999999D", "00000000-0000-0000-0000-000000000000", "²", "\0"]
)  # fmt: skip
SIMPLE = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=8), WORDS,
    st.binary(max_size=20), st.datetimes(timezones=st.just(dt.UTC)),
)  # fmt: skip
KEYS = st.one_of(
    st.text(max_size=3), st.sampled_from(["a", "b", "name", "children", "type", "size", "user", "password"])
)
VALUES = st.recursive(
    SIMPLE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.integers(0, 9), inner, max_size=4),
    max_leaves=12,
)


def signature_of(kind, secrets=()):
    def method(ctx, given): ...

    method.__annotations__ = {"given": kind, "return": None}
    return MethodSignature(method, "shop.take", secrets)


SIGNATURES = [(kind, signature_of(kind)) for kind in KINDS]


def test_there_are_enough_kinds():
    assert len(SIGNATURES) >= 40


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(SIGNATURES), VALUES, st.booleans())
def test_any_value_fits_or_is_refused_by_the_name_of_its_argument(kind_and_signature, value, lenient):
    kind, signature = kind_and_signature
    raw = msgspec.msgpack.encode({"given": value})
    try:
        ((found,), named) = signature.decode(raw, lenient=lenient)
    except InvalidArguments as error:
        _says_what_is_wrong(error)
    else:
        assert named == {}
        again = msgspec.convert(found, kind) if kind is not Any else found
        assert repr(again) == repr(found)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*SIGNATURES, *((kind, signature_of(kind, ["given"])) for kind in KINDS)]),
    VALUES,
    st.sampled_from(["password", "user", "x"]),
    st.booleans(),
)
def test_no_refusal_repeats_a_secret(kind_and_signature, value, name, lenient):
    _, signature = kind_and_signature
    if "given" not in signature.secrets:
        return
    nested = [{"user": "u", "password": [SECRET]}, [{"password": {SECRET: 1}}]]
    for given_ in (SECRET, [SECRET], {name: SECRET, "more": value}, *nested):
        try:
            signature.decode(msgspec.msgpack.encode({"given": given_}), lenient=lenient)
        except InvalidArguments as error:
            shown = f"{error} {error.details}"
        else:
            shown = ""
        assert SECRET not in shown


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(SIGNATURES), st.binary(max_size=40), st.booleans(), st.booleans())
def test_any_bytes_are_arguments_or_refused(kind_and_signature, data, begun, lenient):
    raw = b"\x81\xa5given" + data if begun else data
    # Passing is the assertion: no other error is raised.
    try:
        kind_and_signature[1].decode(raw, lenient=lenient)
    except (InvalidArguments, MalformedMessage) as error:
        _travels(error)


def _says_what_is_wrong(error):
    assert error.details["method"] == "shop.take"
    assert error.details["argument"] == "given"
    assert error.details["expected"]
    assert error.details["got"]
    assert "'given" in error.message
    assert len(str(error)) < 2000
    _travels(error)


def _travels(error):
    from ostler.messaging.wire.envelope import decode_to_client, encode_failure, error_from_failure

    assert str(error_from_failure(decode_to_client(encode_failure(1, error)))) == str(error)


@pytest.mark.parametrize("depth", [10, 1000, 300_000])
def test_depth_is_no_way_out(depth):
    for _, signature in SIGNATURES:
        for part in (b"\x91", b"\x81\xa1a", b"\x81\xa8children\x91"):
            # How much is too much: some 1,000 with Python 3.11, nearly 10,000 with 3.13, 150,000 with 3.14.
            with pytest.raises((InvalidArguments, MalformedMessage)) if depth > 1000 else _whatever():
                signature.decode(b"\x81\xa5given" + part * depth + b"\x01")


class _whatever:
    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        return kind is None or issubclass(kind, InvalidArguments | MalformedMessage)
