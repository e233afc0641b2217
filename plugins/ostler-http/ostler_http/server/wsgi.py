"""WSGI applications (PEP 3333) on threads of a pool: the body is read before, the response passed on as it comes."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ostler_http.asgi import Message, Receive, Scope, Send, WSGIApp
from ostler_http.problems import send_problem
from ostler_http.server.counters import Counters
from ostler_http.server.thread_pool import PoolFull, ThreadPool

_MAX_UNSENT = 8
_RETRY_AFTER = b"1"
_HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"trailer", b"proxy-authenticate"}
_NOT_PASSED = {b"proxy", b"authorization"}
"""Libraries would take the first for a proxy of their own (HTTP_PROXY); a token is nobody's business."""


class WsgiAdapter:
    """A WSGI application as an ASGI application. On the loop of the service.

    A thread is taken when the whole body is there: a slow client costs none.

    Args:
        app: The WSGI application.
        pool: The threads.
        counters: Counts what is refused.
        log: Gets what the application writes to `wsgi.errors`.
        timeout: Seconds between two parts of a response, after which a thread hangs; 0 for no limit.
    """

    def __init__(
        self, app: WSGIApp, pool: ThreadPool, counters: Counters, log: logging.LoggerAdapter[logging.Logger],
        timeout: float = 0,
    ) -> None:  # fmt: skip
        self._app = app
        self._timeout = timeout or None
        self._pool = pool
        self._counters = counters
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "websocket":
            await send_problem(scope, send, 404, "this application has no WebSockets")
            return
        body = await _read_body(receive)
        if body is None:
            return
        call = _Call(self._app, _environ(scope, body, _ErrorLog(self._log)))
        try:
            self._pool.submit(call.run)
        except PoolFull:
            self._counters.refuse("wsgi_queue")
            text = "all threads for this application are in use, and as many requests wait as may"
            await send_problem(scope, send, 503, text, [(b"retry-after", _RETRY_AFTER)])
            return
        watch = asyncio.get_running_loop().create_task(_wait_until_gone(receive, call))
        try:
            await self._pass_on(call, send)
        finally:
            watch.cancel()
            if (thread := call.abandon()) is not None:
                self._pool.mark_overdue(thread)

    async def _pass_on(self, call: _Call, send: Send) -> None:
        if (message := await call.next_message()) is None:
            return
        await send(message)
        try:
            while True:
                async with asyncio.timeout(self._timeout):
                    message = await call.next_message()
                if message is None:
                    return
                await send(message)
        except TimeoutError:  # the connection ends without the last chunk
            self._counters.refuse("response_timeout")
            self._log.warning("a WSGI application did not go on with its response; a thread hangs")


async def _read_body(receive: Receive) -> bytes | None:
    """Return the body, None when the client has left before its end, or it is too large."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _wait_until_gone(receive: Receive, call: _Call) -> None:
    """Give a call up when the client leaves: while its thread hangs nothing else would notice."""
    while (await receive())["type"] == "http.request":
        pass
    call.give_up()


class _Abandoned(BaseException):
    """Raised in the thread when nobody waits for the response any more; not for `except Exception`."""


class _Call:
    """One request of a WSGI application: its thread puts messages, the loop takes them."""

    def __init__(self, app: WSGIApp, environ: dict[str, Any]) -> None:
        self._app = app
        self._environ = environ
        self._loop = asyncio.get_running_loop()
        self._condition = threading.Condition()
        self._messages: deque[Message | BaseException | None] = deque()
        self._arrived = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._is_abandoned = False
        self._is_given_up = False
        self._start: Message | None = None
        self._is_started = False

    # On the loop ----------------------------------------------------------------------------------------------------

    async def next_message(self) -> Message | None:
        """Return what the application sends next, None at its end or when it was given up; raises what it raised."""
        while not self._messages:
            if self._is_given_up:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        with self._condition:
            message = self._messages.popleft()
            self._condition.notify()
        if isinstance(message, BaseException):
            raise message
        return message

    def give_up(self) -> None:
        """Have `next_message` wait no more: the client has left."""
        self._is_given_up = True
        self._arrived.set()

    def abandon(self) -> threading.Thread | None:
        """Have the thread end at its next step; return it if it still runs."""
        with self._condition:
            self._is_abandoned = True
            self._condition.notify_all()
            return self._thread

    # In the thread --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Call the application."""
        with self._condition:
            if self._is_abandoned:
                return
            self._thread = threading.current_thread()
        end: BaseException | None = None
        try:
            self._call()
        except _Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 - raised on the loop, where it is logged and counted
            end = error
        with self._condition:
            self._thread = None
        self._put_unbounded(end)

    def _call(self) -> None:
        found = self._app(self._environ, self._start_response)
        try:
            for chunk in found:
                if chunk:
                    self._write(chunk)
            if not self._is_started:
                self._write(b"")
            self._put({"type": "http.response.body", "body": b""})
        finally:
            if (close := getattr(found, "close", None)) is not None:
                close()

    def _start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._is_started:
            raise exc_info[1]
        if exc_info is None and self._start is not None:
            raise RuntimeError("the application has called start_response twice")
        encoded = [(name.encode("latin-1").lower(), value.encode("latin-1")) for name, value in headers]
        kept = [(name, value) for name, value in encoded if name not in _HOP_BY_HOP]
        self._start = {"type": "http.response.start", "status": int(status[:3]), "headers": kept}
        return self._write

    def _write(self, chunk: bytes) -> None:
        if self._start is None:
            raise RuntimeError("the application has returned a body without calling start_response")
        if not self._is_started:
            self._is_started = True
            self._put(self._start)
        self._put({"type": "http.response.body", "body": chunk, "more_body": True})

    def _put(self, message: Message) -> None:
        with self._condition:
            while len(self._messages) >= _MAX_UNSENT and not self._is_abandoned:
                self._condition.wait()
            if self._is_abandoned:
                raise _Abandoned
        self._put_unbounded(message)

    def _put_unbounded(self, message: Message | BaseException | None) -> None:
        with self._condition:
            self._messages.append(message)
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop is closed: the service has stopped without this thread
            pass


class _ErrorLog(io.TextIOBase):
    """`wsgi.errors`: what is written there becomes lines of the log."""

    def __init__(self, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self._log = log

    def write(self, text: str) -> int:
        """Log the lines of a text."""
        for line in text.splitlines():
            if line.strip():
                self._log.warning("%s", line)
        return len(text)


def _environ(scope: Scope, body: bytes, errors: io.TextIOBase) -> dict[str, Any]:
    root, path = scope["root_path"], scope["path"]
    server, client = scope.get("server") or ("localhost", None), scope.get("client")
    variables: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": _native(root),
        "PATH_INFO": _native(path[len(root) :]),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 0),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "CONTENT_LENGTH": str(len(body)),
        "REMOTE_USER": scope["ostler.caller"].name,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": errors,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "ostler.caller": scope["ostler.caller"],
        "ostler.request_id": scope["ostler.request_id"],
    }
    if client:
        variables["REMOTE_ADDR"], variables["REMOTE_PORT"] = client[0], str(client[1])
    variables.update(_header_variables(scope["headers"]))
    return variables


def _header_variables(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        # X_User would become the same variable as X-User, which a proxy may have set.
        if name in _NOT_PASSED or b"_" in name or name == b"content-length":
            continue
        text = value.decode("latin-1")
        key = "CONTENT_TYPE" if name == b"content-type" else f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
        found[key] = f"{found[key]}{'; ' if name == b'cookie' else ','}{text}" if key in found else text
    return found


def _native(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
