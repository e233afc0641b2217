"""A request on its way from its connection to its mount: checked, bounded, and answered whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from ostler import error_line, format_seconds
from ostler_http.asgi import Message, Receive, Scope, Send
from ostler_http.problems import send_problem
from ostler_http.server.connection import HttpConnection
from ostler_http.server.counters import Counters
from ostler_http.server.mounts import Mount, MountTable

_is_request_id = re.compile(r"[A-Za-z0-9._:-]{1,128}").fullmatch
_is_trace = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_has_bad_path = re.compile(r"(?:^|/)\.\.?(?:/|$)|[\x00-\x1f\x7f\\]").search
_SERVICE_RESTART = 1012
"""The code of a WebSocket's close frame."""
_NOT_FOUND = 404, "not_found", "no application is mounted at this path; `ostler http list` shows the mounts"


class Identify(Protocol):
    """Finds out who sent a request; see `Callers`."""

    def __call__(self, connection: HttpConnection, scope: Scope, authorization: bytes) -> None:
        """Set `ostler.caller` of the scope, and `ostler.auth_error` when what it was sent with is not valid."""
        ...


class _Headers:
    """What the server itself reads of the headers, in one pass."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.hosts = 0
        self.request_id = self.trace = ""
        self.authorization = self.encoding = b""
        self.authorizations = 0
        self.length = 0
        self.transfer = b""
        for name, value in headers:
            if name == b"host":
                self.hosts += 1
            elif name == b"x-request-id":
                self.request_id = value.decode("latin-1")
            elif name == b"traceparent":
                self.trace = value.decode("latin-1")
            elif name == b"authorization":
                self.authorization = value
                self.authorizations += 1
            elif name == b"content-encoding":
                self.encoding = value.strip().lower()
            elif name == b"content-length":
                self.length = int(value) if value.isdigit() and len(value) < 19 else 0
            elif name == b"transfer-encoding":
                self.transfer = value.strip().lower()

    def is_malformed(self, version: str) -> bool:
        """Return whether they are not as a version of HTTP wants them; the parser has checked the rest."""
        if self.authorizations > 1:
            return True
        return self.hosts != 1 if version == "1.1" else bool(self.transfer)


def _do_nothing() -> None:
    """Do nothing."""


class ClientGone(OSError):
    """Raised by `send` when the client has left: nobody reads what an application would send."""


class _Exchange:
    """One request and its response: bounds the body, and knows how far the response is."""

    def __init__(
        self, connection: HttpConnection, receive: Receive, send: Send, max_body_size: int, request_id: str
    ) -> None:
        self.is_started = False
        self.is_complete = False
        self.is_too_large = False
        self.status = 0
        self.started_at = 0.0
        """When its response began, as time of the loop; 0 before."""
        self.on_start: Callable[[], None] = _do_nothing
        self._receive = receive
        self._send = send
        self._left = max_body_size
        self._connection = connection
        self._request_id = request_id.encode()

    async def receive(self) -> Message:
        """Return what the client sends; a body above the limit ends as if the client had left."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                self.is_too_large = True
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the response; none of it when the request was too large."""
        if self._connection.is_gone:
            raise ClientGone("the client has left")
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
            if self.is_too_large:
                return
            self.is_started, self.status = True, message.get("status", 101)
            self.started_at = self._connection.loop.time()
            self.on_start()
            if kind == "http.response.start":
                self._connection.begin_response()
            headers = message.get("headers", ())
            await self._start({**message, "headers": [*headers, (b"x-request-id", self._request_id)]})
            return
        if not self.is_started and kind == "http.response.body" and self.is_too_large:
            return
        await self._send(message)
        if kind == "http.response.body" and not message.get("more_body", False):
            self.is_complete = True

    async def _start(self, message: Message) -> None:
        try:
            await self._send(message)
        except Exception:  # a status or headers that are not valid; nothing was sent
            if message["type"] == "http.response.start":
                self.is_started, self.status = False, 0
                self._connection.forget_response_start()
            raise


class RequestHandler:
    """Handles the requests of a service. All methods run on its loop.

    Args:
        identify: Finds out who sent a request.
        counters: Counts requests and what is refused.
        log: The logger of the service.
    """

    def __init__(self, identify: Identify, counters: Counters, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self.mounts = MountTable()
        self._identify = identify
        self._counters = counters
        self._log = log

    async def __call__(self, connection: HttpConnection, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or WebSocket; never raises, but when it is cancelled."""
        headers = _Headers(scope["headers"])
        self._counters.requests += 1
        request_id = headers.request_id if _is_request_id(headers.request_id) else os.urandom(16).hex()
        scope["ostler.request_id"] = request_id
        scope["ostler.trace"] = headers.trace if _is_trace(headers.trace) else ""
        mount = self.mounts.find(scope["path"])
        limit = mount.options.max_body_size if mount is not None else 0
        exchange = _Exchange(connection, receive, send, limit, request_id)
        began = connection.loop.time()
        try:
            refusal = self._find_refusal(scope, headers, mount)
            if mount is None or refusal is not None:
                status, why, detail = refusal or _NOT_FOUND
                self._counters.refuse(why)
                await send_problem(scope, exchange.send, status, detail)
                return
            self._identify(connection, scope, headers.authorization if headers.authorizations == 1 else b"")
            await self._run(mount, connection, scope, exchange)
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001 - a fault of this package: of those of applications it has an answer
            self._log.error("a request could not be handled: %s", error_line(error), exc_info=error)
            connection.transport.abort()
        finally:
            seconds = (exchange.started_at or connection.loop.time()) - began
            self._counters.respond(mount.path if mount is not None else "", exchange.status, seconds)

    def _find_refusal(self, scope: Scope, headers: _Headers, mount: Mount | None) -> tuple[int, str, str] | None:
        if headers.is_malformed(scope["http_version"]):
            text = "a request needs one `Host`, and may have one `Authorization`, and with HTTP/1.1 `Transfer-Encoding`"
            return 400, "malformed", text
        if _has_bad_path(scope["path"]) or not _is_utf8(scope["raw_path"]):
            return 400, "path", "the path contains dot segments, control characters, backslashes or invalid UTF-8"
        if mount is None:
            return _NOT_FOUND
        if headers.encoding not in (b"", b"identity") or headers.transfer not in (b"", b"chunked"):
            return 415, "encoding", "the body of a request must not be compressed; send it without `Content-Encoding`"
        if headers.length > mount.options.max_body_size:
            return 413, "body_size", _too_large(mount)
        return None

    async def _run(self, mount: Mount, connection: HttpConnection, scope: Scope, exchange: _Exchange) -> None:
        scope["root_path"], scope["ostler.stopping"] = mount.root_path, mount.stopping
        limit = mount.options.response_timeout or None
        timer = asyncio.timeout(limit)
        task = mount.enter()
        try:
            async with timer:
                exchange.on_start = lambda: timer.reschedule(None)
                try:
                    await mount.entry(scope, exchange.receive, exchange.send)
                finally:
                    exchange.on_start = _do_nothing
        except TimeoutError as error:
            if not timer.expired():
                await self._fail(mount, connection, scope, exchange, error)
                return
            self._counters.refuse("response_timeout")
            text = f"the application did not respond within {format_seconds(limit or 0)}"
            self._log.warning("%s at %s: %s", mount.options.app, mount.path, text)
            await self._answer_failure(connection, scope, exchange, 504, text)
        except asyncio.CancelledError:
            if not mount.is_ended:
                raise
            task.uncancel()
            await self._end(connection, scope, exchange)
        except ClientGone:
            raise
        except BaseException as error:
            if isinstance(error, OSError) and connection.is_gone:  # the server's word for the same
                raise ClientGone(str(error)) from error
            await self._fail(mount, connection, scope, exchange, error)
        else:
            if not exchange.is_started and scope["type"] == "http":
                await self._finish_silent(mount, connection, scope, exchange)
        finally:
            mount.leave(task)

    async def _end(self, connection: HttpConnection, scope: Scope, exchange: _Exchange) -> None:
        """End a request whose mount has ended."""
        self._counters.refuse("stopping")
        if scope["type"] == "websocket" and exchange.is_started:
            with contextlib.suppress(Exception):  # its application may have closed it already
                await exchange.send({"type": "websocket.close", "code": _SERVICE_RESTART})
            return
        text = "the application was removed or changed while it handled the request; send it again"
        await self._answer_failure(connection, scope, exchange, 503, text)

    async def _finish_silent(self, mount: Mount, connection: HttpConnection, scope: Scope, exchange: _Exchange) -> None:
        if exchange.is_too_large:
            self._counters.refuse("body_size")
            exchange.is_too_large = False
            await send_problem(scope, exchange.send, 413, _too_large(mount))
        elif not connection.is_gone:
            await self._fail(mount, connection, scope, exchange, None)

    async def _fail(
        self, mount: Mount, connection: HttpConnection, scope: Scope, exchange: _Exchange, error: BaseException | None
    ) -> None:
        if exchange.is_too_large and not exchange.is_started:
            await self._finish_silent(mount, connection, scope, exchange)
            return
        self._counters.refuse("response_failed")
        what = error_line(error) if error is not None else "it ended without a response"
        self._log.error(
            "%s at %s failed for %s: %s",
            mount.options.app,
            mount.path,
            scope["ostler.request_id"],
            what,
            exc_info=error,
        )
        text = "the application failed; the log of the daemon has the reason under the id of the request"
        await self._answer_failure(connection, scope, exchange, 500, text)

    async def _answer_failure(
        self, connection: HttpConnection, scope: Scope, exchange: _Exchange, status: int, text: str
    ) -> None:
        if not exchange.is_started:
            await send_problem(scope, exchange.send, status, text)
        elif not exchange.is_complete and scope["type"] == "http":
            # What the client has got is not whole; it sees that by the connection, which ends without the last chunk.
            connection.transport.abort()


def _too_large(mount: Mount) -> str:
    return f"the body of a request may have {mount.options.max_body_size} bytes here (`max_body_size`)"


def _is_utf8(raw_path: Any) -> bool:
    if b"%" not in raw_path:
        return True
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return False
    return True
