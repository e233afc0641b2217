"""What a handler returns, and how it is sent: whole responses with their headers, ETags, and problems."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from ostler import OstlerError
from ostler_http.api.json_text import to_json
from ostler_http.api.problems import PROBLEM_TYPE, HttpError, problem_headers, problem_of, problem_status
from ostler_http.api.request import JSON_TYPE

if TYPE_CHECKING:
    from ostler_http.api.request import Request

Headers = list[tuple[bytes, bytes]]
_COMMON: Headers = [
    (b"cache-control", b"no-cache, private"), (b"vary", b"Accept"), (b"x-content-type-options", b"nosniff"),
]  # fmt: skip
_JSON: Headers = [(b"content-type", JSON_TYPE.encode()), *_COMMON]


class Response:
    """A whole response.

    Args:
        body: The body.
        status: The status.
        kind: Its media type.
        headers: Further headers, names in lower case.
    """

    __slots__ = ("body", "headers", "kind", "status")

    def __init__(
        self, body: bytes = b"", status: int = 200, kind: str = JSON_TYPE, headers: dict[str, str] | None = None
    ) -> None:
        self.body = body
        self.status = status
        self.kind = kind
        self.headers = headers


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value as JSON."""
    return Response(to_json(value), status, headers=headers)


def problem_response(error: OstlerError | HttpError, request: Request) -> Response:
    """Return the problem details of an error, see `problems`."""
    headers: dict[str, str] = {}
    if isinstance(error, HttpError):
        status, headers, error = error.status, dict(error.headers), error.error
    else:
        status = problem_status(error, is_known=request.is_known)
    headers.update(problem_headers(error, status))
    body = to_json(problem_of(error, status, request.request_id))
    return Response(body, status, PROBLEM_TYPE, headers)


async def send_response(request: Request, response: Response) -> None:
    """Send a response; a read that the client has already is answered with 304.

    Args:
        request: The request.
        response: The response.
    """
    status, body = response.status, response.body
    headers = _JSON.copy() if response.kind is JSON_TYPE else [(b"content-type", response.kind.encode()), *_COMMON]
    if response.headers:
        headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in response.headers.items()]
    is_read = request.method in ("GET", "HEAD")
    if is_read and status == 200:
        tag = b'"%s"' % blake2b(body, digest_size=12).hexdigest().encode()
        headers.append((b"etag", tag))
        known = request.headers.get(b"if-none-match")
        if known is not None and _names(known, tag):
            status, body = 304, b""
    if status == 204:
        headers = headers[1:]  # no content, and so no type of it
    elif status != 304:
        headers.append((b"content-length", b"%d" % len(body)))
    await request.send({"type": "http.response.start", "status": status, "headers": headers})
    await request.send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})


def _names(condition: bytes, tag: bytes) -> bool:
    """Return whether `If-None-Match` names a tag; by the weak comparison, as RFC 9110 asks."""
    return condition.strip() == b"*" or any(each.strip().removeprefix(b"W/") == tag for each in condition.split(b","))
