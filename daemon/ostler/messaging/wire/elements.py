"""Counting the elements of a message before it is decoded. No I/O, no objects made of what is counted.

Size alone does not bound what decoding costs: one MiB can hold a million empty arrays, each an object of 56 bytes. The
count visits at most one element more than the limit, whatever the message holds.
"""

from __future__ import annotations

import re
from functools import cache
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Final

from ostler.errors import MessageTooLarge

MAX_ELEMENTS: Final = 65536
"""The limit of elements of a request where nothing else is configured."""
MAX_REPLY_ELEMENTS: Final = 1_000_000
"""The limit of elements of an answer where a client names no other: decoding them takes about 0.2 s and 100 MB."""

_BATCH_ELEMENTS: Final = 64
"""So many elements whose first byte says how long they are, numbers and short texts, are taken in one step."""
_VARIABLE_WIDTH: Final = 0
"""In `_WIDTHS`: the length follows the first byte."""


def _make_widths() -> tuple[int, ...]:
    """Return how many bytes an element takes, by its first byte; `_VARIABLE_WIDTH` where more bytes say it."""
    widths = [1] * 256  # 0xc1, which is never used, is taken as one too: the decoder refuses it
    for first in range(0xA0, 0xC0):
        widths[first] = 1 + (first & 31)
    fixed = {
        0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,  # numbers
        0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,  # extensions of a fixed size
        0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5,  # heads of arrays and maps: what is in them are elements of their own
    }  # fmt: skip
    for first, width in fixed.items():
        widths[first] = width
    for first in _LENGTHS:
        widths[first] = _VARIABLE_WIDTH
    return tuple(widths)


_U8, _U16, _U32 = Struct(">B").unpack_from, Struct(">H").unpack_from, Struct(">I").unpack_from
_LENGTHS: Final = {
    0xC4: (_U8, 2), 0xC5: (_U16, 3), 0xC6: (_U32, 5),  # bytes
    0xC7: (_U8, 3), 0xC8: (_U16, 4), 0xC9: (_U32, 6),  # extensions
    0xD9: (_U8, 2), 0xDA: (_U16, 3), 0xDB: (_U32, 5),  # texts
}  # fmt: skip
"""How the length of an element is read, and how many bytes come before its content."""
_WIDTHS: Final = _make_widths()


@cache
def _batch_pattern() -> re.Pattern[bytes]:
    """Return the expression that a batch matches; what comes after the first byte of an element may be anything."""
    firsts: dict[int, bytes] = {}
    for first, width in enumerate(_WIDTHS):
        firsts[width] = firsts.get(width, b"") + b"\\x%02x" % first
    del firsts[_VARIABLE_WIDTH]
    elements = (b"[%s].{%d}" % (firsts[width], width - 1) for width in sorted(firsts))
    return re.compile(b"(?>%s){%d}+" % (b"|".join(elements), _BATCH_ELEMENTS), re.DOTALL)


def count_elements(data: bytes | memoryview, limit: int) -> int:
    """Return how many msgpack elements there are in `data`: each scalar, array and map is one, keys and values too.

    Nothing is decoded, and what lies inside texts and bytes is skipped. What is truncated or malformed is counted as
    far as it goes; the decoder refuses it. A message has no more elements than bytes: who knows that `len(data)` is
    within the limit need not ask. On any thread.

    Args:
        data: The message, or a part of it.
        limit: How many may be there. At most one more is visited.

    Returns:
        The number of elements, `limit + 1` when there are more than `limit`.
    """
    widths, batches, end, most = _WIDTHS, _batch_pattern().match, len(data), limit + 1
    position = count = looked = 0
    try:
        while position < end and count < most:
            if looked <= count <= limit - _BATCH_ELEMENTS:
                if (batch := batches(data, position)) is not None:
                    count += _BATCH_ELEMENTS
                    position = batch.end()
                    continue
                looked = (
                    count + _BATCH_ELEMENTS
                )  # there is a long element among them: no use in looking before it is past
            width = widths[data[position]]
            count += 1
            if not width:
                read, width = _LENGTHS[data[position]]
                width += read(data, position + 1)[0]
            position += width
    except StructError:
        pass  # it ends within a length
    return count


def check_elements(data: bytes | memoryview, limit: int, what: str = "the message") -> None:
    """Refuse a message with too many elements; nothing of it is decoded. On any thread.

    Args:
        data: The message.
        limit: How many elements it may have.
        what: Which message, for the sentence.

    Raises:
        MessageTooLarge: It has more.
    """
    if len(data) > limit and count_elements(data, limit) > limit:
        raise MessageTooLarge(
            f"{what} has more than {limit} elements",
            hint="send less at once, or use a stream; each text, number, list and map counts as one element",
            size=len(data),
            max_elements=limit,
        )
