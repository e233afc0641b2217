from __future__ import annotations

import msgspec
import pytest

from ostler import InvalidArguments
from ostler.wall_time import WallTime
from ostler_http.api.schema_values import bytes_from_base64, moments_to_rfc3339


class Leaf(msgspec.Struct):
    at: WallTime = 0.0
    data: bytes = b""
    text: str = ""
    maybe: WallTime | None = None


class Tree(msgspec.Struct):
    leaf: Leaf
    children: list[Tree] = []
    by_name: dict[str, Leaf] = {}
    pair: tuple[int, WallTime] = (0, 0.0)


class Plain(msgspec.Struct):
    text: str
    number: float = 0.0


def schema(kind):
    return msgspec.json.schema(kind)


def test_a_schema_without_such_values_needs_nothing():
    assert bytes_from_base64(schema(Plain)) is None
    assert moments_to_rfc3339(schema(Plain)) is None


def test_moments_are_written_wherever_the_schema_has_them():
    value = {
        "leaf": {"at": 1800000000.25, "text": "1800000000"},
        "children": [{"leaf": {"at": 0.0, "maybe": None}, "children": [], "pair": [7, 1800000000.0]}],
        "by_name": {"x": {"maybe": 1800000000.0}},
        "unknown": 1800000000.0,
    }
    assert moments_to_rfc3339(schema(Tree))(value) == {
        "leaf": {"at": "2027-01-15T08:00:00.250Z", "text": "1800000000"},
        "children": [{"leaf": {"at": None, "maybe": None}, "children": [], "pair": [7, "2027-01-15T08:00:00.000Z"]}],
        "by_name": {"x": {"maybe": "2027-01-15T08:00:00.000Z"}},
        "unknown": 1800000000.0,
    }


@pytest.mark.parametrize("moment", [1e300, -1.0, float("nan"), True, "text"])
def test_what_is_no_moment_is_null(moment):
    assert moments_to_rfc3339(schema(Leaf))({"at": moment}) == {"at": None}


def test_bytes_are_read_wherever_the_schema_has_them():
    value = {"leaf": {"data": "AP8="}, "children": [{"leaf": {"data": ""}}], "by_name": {"x": {"text": "AP8="}}}
    assert bytes_from_base64(schema(Tree))(value) == {
        "leaf": {"data": b"\x00\xff"}, "children": [{"leaf": {"data": b""}}], "by_name": {"x": {"text": "AP8="}},
    }  # fmt: skip


@pytest.mark.parametrize("text", ["AP8", "A P8=", "?", "ä", "AP8=\n"])
def test_what_is_no_base64_is_refused(text):
    with pytest.raises(InvalidArguments, match="base64"):
        bytes_from_base64(schema(Leaf))({"data": text})


@pytest.mark.parametrize("value", [None, 7, "x", [1], {"leaf": 3, "children": {}, "by_name": []}])
def test_what_does_not_fit_the_schema_is_left_for_the_method_to_refuse(value):
    assert bytes_from_base64(schema(Tree))(value) == value
