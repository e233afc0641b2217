"""`WebSocketConnection`: a connection that was upgraded to a WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ostler_http.asgi import Receive, Scope, Send

if TYPE_CHECKING:
    from ostler_http.server.connection import HttpConnection


class WebSocketConnection(WebSocketsSansIOProtocol):
    """Takes a connection over from `HttpConnection`. All methods run on the loop of the service.

    Args:
        http: The connection as it was.
        arguments: What uvicorn gives its protocol.
    """

    def __init__(self, http: HttpConnection, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.logger = http.logger
        self.app = self._enter
        self.http = http

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.http.owner.handle(self.http, scope, receive, send)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection."""
        super().connection_lost(exc)
        self.http.owner.on_lost(self.http)

    def pause_writing(self) -> None:
        """Note that the client takes too little."""
        super().pause_writing()
        self.http.stalled_at = self.loop.time()
        self.http.unsent = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """Note that the client takes what it is sent again."""
        super().resume_writing()
        self.http.stalled_at = None
