"""`HttpConnection`: one connection, parsed by uvicorn and bounded here.

uvicorn's protocol bounds neither the headers of a request nor how long a client may take for one, answers a malformed
request into the middle of a response, lets trailers change headers that filters have already seen, upgrades to a
WebSocket in the middle of a response, and tells only the last of several pipelined requests that its client has left.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ostler import format_seconds
from ostler_http.asgi import Receive, Scope, Send
from ostler_http.problems import problem_body
from ostler_http.server.peers import ConnectionPeer, certificate_name

if TYPE_CHECKING:
    from ostler_http.server.connections import Connections

_MAX_PIPELINE = 32
_MAX_CHUNK_OVERHEAD = 16
"""Bytes on the wire for each byte of a chunked body; chunks of one byte have six."""
_LINGER_TIMEOUT = 2.0
_LINGER_LIMIT = 16 * 1024 * 1024
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}
_silent = logging.getLogger("ostler_http.uvicorn")
_silent.setLevel(logging.CRITICAL + 1)
"""What uvicorn says of single requests is counted here instead: a client could fill the log."""


class Phase(Enum):
    """What a connection is waiting for."""

    IDLE = "a request"
    HEAD = "the rest of the headers"
    BODY = "the rest of the body"
    RESPONSE = "the application"
    WEBSOCKET = "messages"
    LINGER = "the end of a request that is answered already"


_ENDS = (Phase.IDLE, Phase.LINGER)


class _Refused(Exception):
    """Raised within the parser when a request is above a limit."""

    def __init__(self, status: int, why: str, detail: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.detail = detail


_MALFORMED = _Refused(400, "malformed", "this is not a valid HTTP/1.1 request")


class _LingeringTransport:
    """What a response is written to whose request has not come to its end: its close waits for that.

    A socket that is closed with data that nobody has read is reset, and the client loses the response.
    """

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        """Close the connection after the request."""
        self._connection.end_request()


class HttpConnection(HttpToolsProtocol):
    """One connection of a client. All methods run on the loop of the service.

    Args:
        owner: The connections of the service, with their limits.
        peer: Who is at the other end.
    """

    def __init__(self, owner: Connections, peer: ConnectionPeer) -> None:
        super().__init__(config=owner.config, server_state=owner.state, app_state={}, _loop=owner.loop)
        self.logger = _silent
        self.access_log = False
        self.app = self._enter
        self.ws_protocol_class = self._make_websocket  # type: ignore[assignment]  # called like the class
        self.owner = owner
        self.peer = peer
        self.certificate = ""
        """The name in the client's certificate; empty without one."""
        self.was_opened = False
        """Whether its handshake has come to its end."""
        self.phase = Phase.IDLE
        self.since = self.loop.time()
        """When the phase began, as time of the loop."""
        self.body_bytes = 0
        self.body_at = 0.0
        self.stalled_at: float | None = None
        """When the client was last seen to take some of its response, while it takes too little."""
        self.unsent = 0
        self._head_bytes = 0
        self._head_count = 0
        self._wire_bytes = 0
        self._running: RequestResponseCycle | None = None
        """The request whose response is next; uvicorn knows the one that came last."""

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.owner.handle(self, scope, receive, send)

    def _make_websocket(self, **arguments: Any) -> asyncio.Protocol:
        from ostler_http.server.websocket import WebSocketConnection  # 4 MiB: only for who uses it

        self._enter_phase(Phase.WEBSOCKET)
        return WebSocketConnection(self, **arguments)

    # Life -----------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin; the TLS handshake is over."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.certificate = certificate_name(tls.getpeercert()) if tls is not None else ""
        self._enter_phase(Phase.IDLE)
        self.owner.on_open(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection."""
        self._end_response()
        super().connection_lost(exc)
        self.owner.on_lost(self)

    def abort(self, why: str) -> None:
        """Close the connection without another word, and count why."""
        self.owner.counters.refuse(why)
        self.transport.abort()

    def refuse(self, status: int, why: str, detail: str) -> None:
        """Answer a request that no application has answered yet, close the connection, and count why."""
        self.owner.counters.refuse(why)
        if self.transport.is_closing():
            return
        running = self._running if self._has_response_in_progress() else None
        is_its_body = running is self.cycle and self.phase is Phase.BODY
        if running is None or (is_its_body and not running.response_started):
            self._write_refusal(status, detail)
            self._end_response()
            self.linger()
        else:  # a response is under way: another in its middle would be taken for a part of it
            self._end_response()
            self.transport.close()

    def _write_refusal(self, status: int, detail: str) -> None:
        body = problem_body(status, detail)
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n" % (
            status, _REASONS[status], len(body),
        )  # fmt: skip
        self.transport.write(head + b"connection: close\r\n\r\n" + body)

    def linger(self) -> None:
        """Close the connection when its client has read what was sent, has left, or takes too long."""
        if self.phase is Phase.LINGER or self.transport.is_closing():
            return
        self._enter_phase(Phase.LINGER)
        self.pipeline.clear()
        self._wire_bytes = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def end_request(self) -> None:
        """Close the connection, after the rest of a request that is answered."""
        if self._running is not None and self._running.more_body:
            self.linger()
        else:
            self.transport.close()

    def begin_response(self) -> None:
        """Note that a response begins. A body that nobody has read yet ends the connection: it could be endless."""
        cycle = self._running
        if cycle is not None and cycle.more_body:
            cycle.keep_alive = False
            cycle.transport = _LingeringTransport(self)  # type: ignore[assignment]  # what it uses of one

    def forget_response_start(self) -> None:
        """Take back the beginning of a response that uvicorn has refused to send, so that another can be sent."""
        if (cycle := self._running) is not None:
            cycle.response_started = False
            cycle.chunked_encoding, cycle.expected_content_length = None, 0

    def tell_stop(self) -> None:
        """Let a response that has begun notice that nobody will read more: its client is told to come again."""
        if self._has_response_in_progress():
            self._end_response()
            self.transport.close()

    def _end_response(self) -> None:
        """Tell the application that nobody reads its response any more."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    @property
    def is_gone(self) -> bool:
        """Whether nobody reads the response that is in progress."""
        return self.transport.is_closing() or (self._running is not None and self._running.disconnected)

    def _has_response_in_progress(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # Parsing --------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what the client has sent."""
        before = self.phase
        if before is Phase.LINGER:
            self._discard(data)
            return
        if self.transport.is_closing():
            return
        if before is Phase.IDLE:
            self._enter_phase(Phase.HEAD)
        self._parse(data)
        if self.phase is Phase.BODY:
            self._count_body(len(data))
        elif self.phase is Phase.HEAD and before in (Phase.IDLE, Phase.HEAD):
            # What the parser holds back of an unfinished header is seen by no callback.
            self._head_bytes += len(data)
            if self._head_bytes > self.owner.limits.max_header_size:
                self._refuse_by(self._too_large_head())

    def _parse(self, data: bytes) -> None:
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    data = b""
                except httptools.HttpParserUpgrade as upgrade:
                    data = data[upgrade.args[0] :]
                    if self._should_upgrade():
                        self._upgrade(data)
                        return
                    # Else the upgrade is not heeded, and what follows is the next request.
        except httptools.HttpParserError as error:
            self._refuse_by(_refusal_of(error))

    def _refuse_by(self, refused: _Refused) -> None:
        self.refuse(refused.status, refused.why, refused.detail)

    def _discard(self, data: bytes) -> None:
        self._wire_bytes += len(data)
        if self._wire_bytes > _LINGER_LIMIT:
            self.transport.abort()

    def _count_body(self, size: int) -> None:
        self.body_at = self.loop.time()
        self._wire_bytes += size
        if self._wire_bytes > 2 * self.owner.limits.max_header_size + _MAX_CHUNK_OVERHEAD * self.body_bytes:
            self.refuse(400, "chunks", "the body of the request comes in chunks with more around them than in them")

    def _too_large_head(self) -> _Refused:
        limits = self.owner.limits
        text = f"a request may have {limits.max_header_size} bytes of headers, and {limits.max_headers} of them"
        return _Refused(431, "header_size", text)

    def _upgrade(self, rest: bytes) -> None:
        """Become a WebSocket, if the request may ask for one (RFC 6455, 4.1)."""
        names = {name for name, _ in self.headers}
        is_fit = self.scope["method"] == "GET" and self.scope["http_version"] == "1.1" and not rest
        if not is_fit or self._has_response_in_progress() or names & {b"content-length", b"transfer-encoding"}:
            text = "the request for a WebSocket must be a GET of HTTP/1.1, without a body or others before it"
            self.refuse(400, "malformed", text)
            return
        self.handle_websocket_upgrade()
        self._check_upgrade(self.transport.get_protocol())

    def _check_upgrade(self, protocol: Any) -> None:
        if not protocol.handshake_initiated:  # the library says nothing about why
            self.owner.counters.refuse("header_size")
            self._write_refusal(431, "the headers of a request for a WebSocket may have 8 KiB each, and 128 of them")
            self.transport.close()
        elif self.transport.is_closing():  # it has answered by itself
            self.owner.counters.refuse("malformed")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._enter_phase(Phase.HEAD)
        self._head_bytes = self._head_count = 0
        self._counted_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Add to the address of the request."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; a trailer is read and dropped, as filters have decided by the headers."""
        self._head_count += 1
        self._count_head(len(name) + len(value) + 4)
        if self._head_count > self.owner.limits.max_headers:
            raise self._too_large_head()
        if self.phase is Phase.HEAD:
            super().on_header(name, value)

    def _count_head(self, size: int) -> None:
        self._counted_bytes += size
        if self._counted_bytes > self.owner.limits.max_header_size:
            raise self._too_large_head()

    def on_headers_complete(self) -> None:
        """Give the request to the application."""
        if len(self.pipeline) >= _MAX_PIPELINE:
            raise _Refused(400, "pipeline", f"at most {_MAX_PIPELINE} requests may be sent in advance")
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise _MALFORMED
        if not self.url.startswith(b"/"):
            self.url = _without_host(self.url)
        self.body_bytes = self._wire_bytes = 0
        self.body_at = self.loop.time()
        self._enter_phase(Phase.BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Add to the body of the request."""
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        super().on_message_complete()
        if self.phase is not Phase.IDLE:
            self._enter_phase(Phase.RESPONSE)

    def on_response_complete(self) -> None:
        """End a response, and begin with the next one. The limits of time are those of `check_time`."""
        self.server_state.total_requests += 1
        if self.phase is Phase.LINGER or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.phase is not Phase.HEAD:  # of the next request, a part is there already
            self._enter_phase(Phase.IDLE)

    # Time -----------------------------------------------------------------------------------------------------------

    def _enter_phase(self, phase: Phase) -> None:
        self.phase, self.since = phase, self.loop.time()

    def pause_writing(self) -> None:
        """Note that the client takes too little."""
        super().pause_writing()
        self.stalled_at, self.unsent = self.loop.time(), self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """Note that the client takes what it is sent again."""
        super().resume_writing()
        self.stalled_at = None

    def check_time(self, now: float) -> None:
        """Close the connection if the client has taken too long."""
        limits, seconds = self.owner.limits, now - self.since
        if self.transport.is_closing():
            return
        if self.stalled_at is not None and self._takes_nothing(now):
            self.abort("send_timeout")
        elif self.phase in _ENDS and seconds > (_LINGER_TIMEOUT if self.phase is Phase.LINGER else limits.idle_timeout):
            self.transport.close()
        elif self.phase is Phase.HEAD and self._is_head_slow(now):
            limit = format_seconds(limits.header_timeout)
            self.refuse(408, "header_timeout", f"the headers were not complete within {limit}")
        elif self.phase is Phase.BODY and self._is_body_slow(now):
            self.refuse(408, "body_timeout", "the body of the request came too slowly")

    def _takes_nothing(self, now: float) -> bool:
        size = self.transport.get_write_buffer_size()
        if size < self.unsent:
            self.stalled_at, self.unsent = now, size
        return now - (self.stalled_at or now) > self.owner.limits.send_timeout

    def _is_head_slow(self, now: float) -> bool:
        if self._has_response_in_progress():  # of the request before: it is not to be cut, and costs the connection
            self.since = now
        return now - self.since > self.owner.limits.header_timeout

    def _is_body_slow(self, now: float) -> bool:
        limits = self.owner.limits
        if self.flow.read_paused:  # the application is slow, not the client
            self.body_at, self.since, self.body_bytes, self._wire_bytes = now, now, 0, 0
            return False
        seconds = now - self.since
        too_little = self.body_bytes < (seconds - limits.body_timeout) * limits.min_body_rate
        return now - self.body_at > limits.body_timeout or too_little


def _refusal_of(error: BaseException | None) -> _Refused:
    """Return why a callback has stopped the parser, or that the request is not valid."""
    while error is not None:
        if isinstance(error, _Refused):
            return error
        error = error.__cause__ or error.__context__
    return _MALFORMED


def _without_host(url: bytes) -> bytes:
    """Return the path and query of a whole address (RFC 9112, 3.2.2), which has no path if it is that of a host."""
    parsed = httptools.parse_url(url)
    return (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")
