from __future__ import annotations

import datetime as dt

import msgspec

from ostler_http.api.json_text import to_json


def test_what_json_knows_is_written_as_it_is():
    assert to_json({"a": [1, 2.5, None, True, "ä\n"]}) == '{"a":[1,2.5,null,true,"ä\\n"]}'.encode()


def test_bytes_are_base64_and_numbers_that_are_none_are_null():
    assert to_json([b"\x00\xff", float("nan"), float("inf")]) == b'["AP8=",null,null]'


def test_moments_are_rfc_3339():
    assert to_json(dt.datetime(2027, 1, 15, 8, tzinfo=dt.UTC)) == b'"2027-01-15T08:00:00Z"'


def test_keys_that_are_no_text_are_written_as_text():
    assert to_json({1: "a", b"\x00": "b", (1, 2): "c", None: "d", 2.5: "e"}) == (
        b'{"1":"a","AA==":"b","[1,2]":"c","null":"d","2.5":"e"}'
    )


def test_what_else_msgpack_carries_is_written_somehow():
    assert to_json([msgspec.msgpack.Ext(5, b"\x00"), {b"x": {1}}]) == b'[{"code":5,"data":"AA=="},{"eA==":[1]}]'


def test_what_is_nested_endlessly_is_cut():
    value = {b"x": 1}
    for _ in range(5000):
        value = [value]
    assert to_json(value).startswith(b"[[[")
