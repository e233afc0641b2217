"""Refusals by the server and its filters, as problem details (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from ostler_http.asgi import Scope, Send

Header = tuple[bytes, bytes]


def problem_body(status: int, detail: str, request_id: str = "", **facts: Any) -> bytes:
    """Return a problem document.

    Args:
        status: The HTTP status; its name is the title.
        detail: What happened and what to do, a sentence without a secret.
        request_id: The id of the request.
        facts: Further members.
    """
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **facts}
    if request_id:
        document["request_id"] = request_id
    return json.dumps(document).encode()


async def send_problem(
    scope: Scope, send: Send, status: int, detail: str, headers: Iterable[Header] = (), **facts: Any
) -> None:
    """Respond with a problem document; to the handshake of a WebSocket as well.

    Args:
        scope: The request.
        send: Its `send`; no response has begun.
        status: The HTTP status.
        detail: What happened and what to do.
        headers: Further headers.
        facts: Further members of the document.
    """
    body = problem_body(status, detail, scope.get("ostler.request_id", ""), **facts)
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    own = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": f"{kind}.start", "status": status, "headers": [*own, *headers]})
    await send({"type": f"{kind}.body", "body": body})
