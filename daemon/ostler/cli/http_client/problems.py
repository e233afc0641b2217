"""Errors of responses: problem details of the API as the errors that they were, and what else a server may say."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.cli.http_client.decoding import decode_json
from ostler.errors import (
    Busy,
    ConnectionLost,
    DeadlineExceeded,
    MalformedMessage,
    MessageTooLarge,
    NotFound,
    NotPermitted,
    OstlerError,
    RemoteError,
    WireError,
    from_wire,
)

if TYPE_CHECKING:
    from ostler.cli.http_client.address import HttpDaemon
    from ostler.cli.http_client.connection import HttpResponse

_MAX_PROBLEM_SIZE = 4 * 1024 * 1024
_PROBLEM = "application/problem+json"
_UNAUTHORIZED = 401
_ANONYMOUS_HINT = "give a token with --token-file FILE (OSTLER_TOKEN_FILE); `ostler token new` on that host creates one"


class Problem(msgspec.Struct, frozen=True):
    """Problem details (RFC 9457), with what the API adds to them."""

    title: str = ""
    detail: str = ""
    error: str = ""
    bases: list[str] = []
    hint: str = ""
    details: dict[str, Any] = {}


def problem_error(problem: Problem) -> OstlerError:
    """Return the error that problem details of the API are about, in the nearest class that is known here."""
    return from_wire(WireError((problem.error, *problem.bases), problem.detail, problem.hint, problem.details))


def response_error(response: HttpResponse, daemon: HttpDaemon, where: str) -> OstlerError:
    """Return the error that a response is about whose status is not one of success.

    Args:
        response: The response; its body is read.
        daemon: The daemon that was asked.
        where: `topic.method`, for messages.
    """
    status = response.status
    if 300 <= status < 400:
        return _redirect_error(response, daemon)
    problem = _read_problem(response, where)
    if problem.error:
        error = problem_error(problem)
    else:
        error = _plain_error(status, problem.detail or problem.title, response, daemon)
    if status == _UNAUTHORIZED and daemon.token_file is None and daemon.certificate is None:
        error.hint = _ANONYMOUS_HINT
    return error


def _read_problem(response: HttpResponse, where: str) -> Problem:
    body = response.read(_MAX_PROBLEM_SIZE)
    if response.media_type != _PROBLEM:
        return Problem()
    try:
        found: Problem = decode_json(body, Problem, where)
    except MalformedMessage:
        return Problem()
    return found


def _redirect_error(response: HttpResponse, daemon: HttpDaemon) -> OstlerError:
    response.connection.close()
    target = response.headers.get("Location", "elsewhere")
    return NotPermitted(
        f"{daemon.address} redirects to {target}; a token is not sent there",
        hint="if that is right, give that address",
        reason="redirect",
    )


_PATH_HINT = "give the path of the API, such as https://HOST:PORT/v1; on that host `ostler http list` shows it"
_ROLE_HINT = "check the token or certificate, and its role: `ostler token list` on that host"
_BY_STATUS: dict[int, tuple[type[OstlerError], str]] = {
    _UNAUTHORIZED: (NotPermitted, _ROLE_HINT),
    403: (NotPermitted, _ROLE_HINT),
    404: (NotFound, _PATH_HINT),
    405: (NotFound, _PATH_HINT),
    408: (DeadlineExceeded, "increase the timeout, of the server too"),
    413: (MessageTooLarge, "send less, or raise `max_body_size` of the mount"),
    429: (Busy, "try again later"),
    502: (ConnectionLost, "the daemon behind that address may be stopped"),
    503: (Busy, "try again later"),
    504: (DeadlineExceeded, "increase the timeout, of the server too"),
}
"""The errors of responses that the API did not make: of the server, a filter, or a proxy before it."""


def _plain_error(status: int, text: str, response: HttpResponse, daemon: HttpDaemon) -> OstlerError:
    told = f"{daemon.address} answered {status} {text or _phrase(status)}".rstrip()
    kind, hint = _BY_STATUS.get(status, (RemoteError, "check the address"))
    if kind is Busy:
        return Busy(told, hint=hint, retry_after=_seconds(response.headers.get("Retry-After", "")))
    if kind is RemoteError:
        return RemoteError(told, hint=hint, name=f"HTTP {status}")
    return kind(told, hint=hint)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1.0
