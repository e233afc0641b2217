"""Bytes of ZMTP 3.1 and of the daemon's messages, written by hand: what no client library would send."""

from __future__ import annotations

from typing import Any

import msgspec

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
CALL, LENIENT, CAST, FANOUT, PROGRESS, STREAM, RETRY = 0, 1, 2, 4, 8, 16, 32
"""Flags of a request."""

_encode = msgspec.msgpack.Encoder().encode


def frame(body: bytes, *, more: bool = False, size: int | None = None) -> bytes:
    """Return a frame; `size` announces another length than it has, `more` that the message has further frames."""
    size = len(body) if size is None else size
    flags = 1 if more else 0
    if size < 256:
        return bytes((flags, size)) + body
    return bytes((flags | 2,)) + size.to_bytes(8, "big") + body


def command(name: bytes, data: bytes = b"") -> bytes:
    """Return a command of ZMTP."""
    body = bytes((len(name),)) + name + data
    return bytes((4, len(body))) + body if len(body) < 256 else b"\6" + len(body).to_bytes(8, "big") + body


def hello(kind: bytes) -> bytes:
    """Return greeting and READY of a socket of this kind."""
    return GREETING + command(b"READY", b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind)


def request(
    number: int, topic: str, method: str, arguments: dict[str, Any] | msgspec.Raw | None = None, *,
    timeout: float | None = None, request_id: str = "", flags: int = CALL, credit: int = 0,
) -> bytes:  # fmt: skip
    """Return a request."""
    fields = [1, 1, number, topic, method, arguments or {}, timeout, request_id, flags, "", "", "", credit]
    return frame(_encode(fields))


def cancel(number: int) -> bytes:
    """Return the message that takes a request back."""
    return frame(_encode([2, 1, number]))


def credit(number: int, items: int) -> bytes:
    """Return the message that lets a stream send more items."""
    return frame(_encode([3, 1, number, items]))


def subscribe(prefix: bytes) -> bytes:
    """Return a subscription, as a message."""
    return frame(b"\1" + prefix)


def unsubscribe(prefix: bytes) -> bytes:
    """Return the end of a subscription, as a message."""
    return frame(b"\0" + prefix)


def question(number: int, prefix: bytes) -> bytes:
    """Return a question for the last events below a prefix."""
    return subscribe(b"!%016x?l\n" % number + prefix)


def wide(count: int) -> msgspec.Raw:
    """Return an array of so many empty arrays: a byte each here, 56 and more when decoded."""
    return msgspec.Raw(b"\xdd" + count.to_bytes(4, "big") + b"\x90" * count)


def deep(levels: int) -> msgspec.Raw:
    """Return an array in an array in an array."""
    return msgspec.Raw(b"\x91" * levels + b"\xc0")
