"""Bends real messages into what a broken or hostile peer could send. The same seed gives the same bytes again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

encode = msgspec.msgpack.encode

NUMBERS = [
    0, 1, -1, 2, 3, 7, 31, 32, 63, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63), 0.0, -0.0, 1e-300, 1e300, float("nan"), float("inf"),
    float("-inf"),
]  # fmt: skip
DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
VALUES: list[Any] = [
    *NUMBERS, None, True, False, "", "x", "1", "1.0", "²", "9" * 255, "x" * 256, "\0", "\n", "é" * 40, b"", b"\xff", [],
    [1, 2, 3], [[]], {}, {"text": "x"}, {"": ""}, {"text": []}, {1: 2}, {"items": -1}, {"items": 2**63}, DEEP,
    [0] * 300,
    msgspec.msgpack.Ext(5, b"ext"), msgspec.msgpack.Ext(-1, b"\xff" * 12),
]  # fmt: skip
ODD = [
    b"", b"\x00", b"\xc0", b"\xc1", b"\x90", b"\x91\x01", b"\x80", b"\x91" * 3000, b"\x81\xa0" * 1500, b"\xff" * 64,
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdc\xff\xff",
    b"\xdd\x00\x00\x00\x03\x01\x01\x07", b"\xdc\x00\x03\x02\x01\x07", b"\x93\xcd\x00\x02\xcc\x01\xce\x00\x00\x00\x07",
    b"\x93\x01\x01\xcf\xff\xff\xff\xff\xff\xff\xff\xff", b"\x93\x02\x01\xcf\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x96\x01\x01\x07\xa4shop\xa4echo\x81\xa4text" + b"\x91" * 3000,
    b"\x96\x01\x01\x07\xa4shop\xa4echo\xdf\xff\xff\xff\xff",
    b"\x96\x01\x01\x07\xa4shop\xa4echo\x81\xa4text\xa2\xff\xfe", b"\x96\x01\x01\x07\xa2\xff\xfe\xa4echo\x80",
    b"\x96\x01\x01\x07\xa4shop\xa4echo\x82\xa4text\xa1a\xa4text\xa1b", b"\x96\x01\x01\x07\xa4shop\xa4echo\x81\x90\x01",
    b"\x96\x01\x01\x07\xa4shop\xa4echo\x81\x80\x01", b"\x96\x01\x01\x07\xa4shop\xa4echo\x81\xc0\x01",
]  # fmt: skip
_TAIL = [b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xcb\x7f\xf8" + bytes(6), b"\xdd\xff\xff\xff\xff", b"\xc0"]


class Mutator:
    """Makes messages out of real ones.

    Args:
        seed: What decides all that follows.
        corpus: Real messages, encoded.
    """

    def __init__(self, seed: int | str, corpus: Sequence[bytes] = ()) -> None:
        self.dice = random.Random(str(seed))
        self.corpus = list(corpus) or [b"x"]

    def number(self, below: int) -> int:
        """Return a number from 0 on; several times as fast as `randrange`."""
        return int(self.dice.random() * below)

    def one_of(self, things: Sequence[Any]) -> Any:
        """Return one of the things."""
        return things[int(self.dice.random() * len(things))]

    def bent(self, data: bytes) -> bytes:
        """Return the bytes with up to four changes: cut off, spliced, flipped, grown, numbers at their extremes."""
        for _ in range(1 + self.number(4)):
            at = self.number(len(data) + 1)
            how = self.number(8)
            if how == 0:
                data = data[:at]
            elif how == 1:
                other = self.one_of(self.corpus)
                data = data[:at] + other[self.number(len(other)) :]
            elif how == 2:
                data = data[:at] + bytes((self.number(256),)) + data[at + 1 :]
            elif how == 3:
                data = (
                    data[:at] + bytes((data[at] ^ (1 << self.number(8)),)) + data[at + 1 :] if at < len(data) else data
                )
            elif how == 4:
                data = data[:at] + self.dice.randbytes(1 + self.number(6)) + data[at:]
            elif how == 5:
                data = data[:at] + data[at + 1 + self.number(4) :]
            elif how == 6:
                data = data[:at] + self.one_of(_TAIL) + data[at + 1 :]
            else:
                data = data[:at] + data[self.number(len(data) + 1) :][:64] + data[at:]
        return data

    def wrong(self, message: Sequence[Any]) -> bytes:
        """Return a message, a list of fields, with one of another type, one left out or some too many."""
        fields = list(message)
        how = self.number(8)
        if how == 0:
            del fields[self.number(len(fields))]
        elif how == 1:
            fields.append(self.one_of(VALUES))
        elif how == 2:
            fields = fields[: self.number(len(fields))]
        else:
            fields[self.number(len(fields))] = self.one_of(VALUES)
        return encode(fields)

    def any(self, message: Sequence[Any]) -> bytes:
        """Return something made of a message: as it is, wrong in a field, bent, or nothing of the kind."""
        how = self.dice.random()
        if how < 0.35:
            return encode(message)
        if how < 0.6:
            return self.wrong(message)
        if how < 0.93:
            return self.bent(encode(message) if how < 0.8 else self.one_of(self.corpus))
        if how < 0.97:
            return self.dice.randbytes(self.number(40))
        return self.one_of(ODD)

    def pieces(self, data: bytes) -> list[bytes]:
        """Return the bytes in pieces of any size."""
        largest = self.one_of((1, 3, 9, 64, 700, 65_536))
        found, at = [], 0
        while at < len(data):
            size = 1 + self.number(largest)
            found.append(data[at : at + size])
            at += size
        return found
