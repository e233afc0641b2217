"""Values as JSON text: whatever a message can carry, bytes as base64."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder()
_MAX_DEPTH = 200
"""How deeply values may be nested that are written another way; what lies deeper is `…`."""


def to_json(value: Any) -> bytes:
    """Return a value as JSON.

    Bytes are base64 text (RFC 4648, with padding), moments RFC 3339, infinite numbers and NaN null; keys of maps that
    are no text are written as text.

    Args:
        value: A plain value, as a message carries it.
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError):
        return _encoder.encode(_plain(value, _MAX_DEPTH))


def _plain(value: Any, depth: int) -> Any:
    """Return a value with what JSON cannot say in another form."""
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, depth - 1) for key, item in value.items()} if depth else "…"
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in value] if depth else "…"
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, msgspec.msgpack.Ext):
        return {"code": value.code, "data": _base64(value.data)}
    if isinstance(value, bytes | bytearray | memoryview):
        return _base64(value)
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bytes | bytearray | memoryview):
        return _base64(key)
    return _encoder.encode(_plain(key, _MAX_DEPTH)).decode()


def _base64(data: Any) -> str:
    return base64.b64encode(bytes(data)).decode()
