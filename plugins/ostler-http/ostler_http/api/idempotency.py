"""Idempotency keys: the id that repeated requests of a caller share, by which the daemon knows them."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from ostler import InvalidInput
from ostler_http.api.problems import HttpError

if TYPE_CHECKING:
    from ostler_http.api.request import Request

_MAX_KEY = 255
_READABLE_KEY = 64
"""Characters of a key that are seen in the id of a request."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
"""What means something else in an address, a log line or a shell: ids of operations come into all of them."""


def idempotency_id(request: Request) -> str:
    """Return the id that requests with the same `Idempotency-Key` of a caller share; empty without one.

    Raises:
        HttpError: The key is empty, too long, or cannot be printed.
    """
    if (raw := request.headers.get(b"idempotency-key")) is None:
        return ""
    key = raw.decode("latin-1")
    if not 1 <= len(key) <= _MAX_KEY or not (key.isascii() and key.isprintable()):
        text = f"Idempotency-Key must have 1 to {_MAX_KEY} printable ASCII characters"
        raise HttpError(400, InvalidInput(text, hint="use a UUID"))
    # An operation has its id on the whole host: two callers who choose the same key must not meet.
    whose = hashlib.blake2b(f"{request.caller.name}\0{key}".encode(), digest_size=12).hexdigest()
    return f"{_UNSAFE.sub('_', key[:_READABLE_KEY])}.{whose}"


def refuse_key(request: Request, what: str) -> None:
    """Refuse an `Idempotency-Key` where it would be of no effect: its sender would repeat what then runs twice.

    Args:
        request: The request.
        what: What cannot be repeated, for the error: `a fanout`.

    Raises:
        HttpError: The request has a key.
    """
    if b"idempotency-key" in request.headers:
        error = InvalidInput(
            f"{what} runs again whenever it is sent: Idempotency-Key has no effect on it",
            hint="leave the key out, and repeat the request only if it may run twice",
        )
        raise HttpError(400, error)
