"""`HttpConnection`: one connection, parsed by uvicorn and bounded here.

uvicorn's protocol bounds neither the headers of a request nor how long a client may take for one, answers a malformed
request into the middle of a response, and lets trailers change headers that filters have already seen.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ostler_http.asgi import Receive, Scope, Send
from ostler_http.problems import problem_body
from ostler_http.server.peers import ConnectionPeer, certificate_name

if TYPE_CHECKING:
    from ostler_http.server.connections import Connections

_MAX_PIPELINE = 32
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


class _Refused(Exception):
    """Raised within the parser when a request is above a limit."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


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
        self._refused: _Refused | None = None

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
        self._unset_keepalive_if_required()
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
        cycle = self.cycle if self._has_response_in_progress() else None
        if cycle is None or (self.phase is Phase.BODY and not cycle.response_started and not self.pipeline):
            body = problem_body(status, detail)
            head = b"HTTP/1.1 %d %s\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n" % (
                status, _REASONS[status], len(body),
            )  # fmt: skip
            self.transport.write(head + b"connection: close\r\n\r\n" + body)
        # Else a response is under way: another in its middle would be taken for a part of it.
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def forget_response_start(self) -> None:
        """Take back the beginning of a response that uvicorn has refused to send, so that another can be sent."""
        self.cycle.response_started = False
        self.cycle.chunked_encoding, self.cycle.expected_content_length = None, 0

    def tell_stop(self) -> None:
        """Let a response that has begun notice that nobody will read more: its client is told to come again."""
        if self._has_response_in_progress():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.transport.close()

    def _has_response_in_progress(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn says that there always is one
        return cycle is not None and not cycle.response_complete

    # Parsing --------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what the client has sent."""
        if self.transport.is_closing():
            return
        before = self.phase
        if before is Phase.IDLE:
            self._enter_phase(Phase.HEAD)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.phase is Phase.BODY:
            self.body_at = self.loop.time()
        elif self.phase is Phase.HEAD and before in (Phase.IDLE, Phase.HEAD):
            # What the parser holds back of an unfinished header is seen by no callback.
            self._head_bytes += len(data)
            if self._head_bytes > self.owner.limits.max_header_size:
                self._refuse_head()

    def _refuse_head(self) -> None:
        limits = self.owner.limits
        text = f"a request may have {limits.max_header_size} bytes of headers, and {limits.max_headers} of them"
        self.refuse(431, "header_size", text)

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
            raise _Refused(431, "header_size")
        if self.phase is Phase.HEAD:
            super().on_header(name, value)

    def _count_head(self, size: int) -> None:
        self._counted_bytes += size
        if self._counted_bytes > self.owner.limits.max_header_size:
            raise _Refused(431, "header_size")

    def on_headers_complete(self) -> None:
        """Give the request to the application."""
        if len(self.pipeline) >= _MAX_PIPELINE:
            raise _Refused(400, "pipeline")
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise _Refused(400, "malformed")
        self.body_bytes, self.body_at = 0, self.loop.time()
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
        """End a response. A body that nobody wants to read ends the connection: it could be endless."""
        has_more = self.cycle.more_body and not self.pipeline
        super().on_response_complete()
        if has_more:
            self.transport.close()
        elif not self._has_response_in_progress():
            self._enter_phase(Phase.IDLE)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not a valid request, or above a limit."""
        refused = self._parser_refusal()
        if refused is None or refused.why == "malformed":
            self.refuse(400, "malformed", "this is not a valid HTTP/1.1 request")
        elif refused.status == 431:
            self._refuse_head()
        else:
            self.refuse(400, refused.why, f"at most {_MAX_PIPELINE} requests may be sent in advance")

    def _parser_refusal(self) -> _Refused | None:
        import sys  # of this handler alone

        error: BaseException | None = sys.exc_info()[1]
        while error is not None:
            if isinstance(error, _Refused):
                return error
            error = error.__cause__ or error.__context__
        return None

    def _unsupported_upgrade_warning(self) -> None:
        """Answer as if no upgrade had been asked for, without a line in the log."""

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
        limits = self.owner.limits
        if self.transport.is_closing():
            return
        if self.stalled_at is not None and self._takes_nothing(now):
            self.abort("send_timeout")
        elif self.phase is Phase.IDLE and now - self.since > limits.idle_timeout:
            self.transport.close()
        elif self.phase is Phase.HEAD and now - self.since > limits.header_timeout:
            self.refuse(408, "header_timeout", f"the headers were not complete within {limits.header_timeout:g} s")
        elif self.phase is Phase.BODY and self._is_body_slow(now):
            self.refuse(408, "body_timeout", "the body of the request came too slowly")

    def _takes_nothing(self, now: float) -> bool:
        size = self.transport.get_write_buffer_size()
        if size < self.unsent:
            self.stalled_at, self.unsent = now, size
        return now - (self.stalled_at or now) > self.owner.limits.send_timeout

    def _is_body_slow(self, now: float) -> bool:
        limits = self.owner.limits
        if self.flow.read_paused:  # the application is slow, not the client
            self.body_at, self.since, self.body_bytes = now, now, 0
            return False
        seconds = now - self.since
        too_little = self.body_bytes < (seconds - limits.body_timeout) * limits.min_body_rate
        return now - self.body_at > limits.body_timeout or too_little
