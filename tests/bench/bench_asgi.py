"""The empty handler: what the same HTTP server does for a request that asks nothing of it."""

from __future__ import annotations

from typing import Any

_BODY = b'"' + b"x" * 32 + b'"'
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))],
}


async def empty(_scope: Any, _receive: Any, send: Any) -> None:
    """Respond with a short text."""
    await send(_START)
    await send({"type": "http.response.body", "body": _BODY})
