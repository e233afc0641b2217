"""JSON of a server within bounds: no more elements than a message may have, and of the types that are expected."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ostler.errors import MalformedMessage, MessageTooLarge
from ostler.messaging.wire.envelope import MAX_REPLY_ELEMENTS

_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_MARKS = (b",", b"[", b"{", b":")


def decode_json(data: bytes | msgspec.Raw, kind: Any, where: str, *, limit: int = MAX_REPLY_ELEMENTS) -> Any:
    """Return a JSON text as a type.

    Args:
        data: The text.
        kind: The type; None for plain values.
        where: `topic.method`, for messages.
        limit: The most elements (each text, number, list and map is one) that it may have.

    Raises:
        MessageTooLarge: It has more; it is not decoded.
        MalformedMessage: It is not JSON, or of another type.
    """
    raw = bytes(data)
    if len(raw) > limit and _count_elements(raw, limit) > limit:
        raise MessageTooLarge(
            f"the answer from {where} has more than {limit} elements and was not decoded",
            hint="ask for less at once", method=where, size=len(raw), max_elements=limit,
        )  # fmt: skip
    try:
        return msgspec.json.decode(raw) if kind is None else msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise MalformedMessage(
            f"the result of {where} does not have the type that this client expects: {error}",
            hint="client and service may have different versions", reason="result", method=where,
        ) from error  # fmt: skip
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise MalformedMessage(
            f"invalid answer from {where}: {error}",
            hint="check that the address is that of the API, such as https://HOST:PORT/v1",
            reason="json", method=where,
        ) from error  # fmt: skip


def _count_elements(raw: bytes, limit: int) -> int:
    """Return how many elements a text has, at least as many as there are; white space in empty lists counts as one."""
    count = _count_marks(raw)
    return _count_marks(_TEXT.sub(b'""', raw)) if count > limit else count  # texts may have such characters too


def _count_marks(raw: bytes) -> int:
    return 1 + sum(map(raw.count, _MARKS)) - raw.count(b"[]") - raw.count(b"{}")
