"""The filter `log`: writes a line for each request."""

from __future__ import annotations

from urllib.parse import quote

from ostler_http.application import Filter
from ostler_http.asgi import ASGIApp, Message, Receive, Scope, Send

_MAX_PATH = 500


class LogFilter(Filter):
    """Logs who asked for what, with the status, the time and the id of the request.

    Neither the query nor any header: they may hold secrets. The path is written as it is on the wire, so that it cannot
    forge a line.
    """

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """See `Filter.wrap`."""
        log, clock = self.environment.log, self.environment.clock

        async def write(scope: Scope, receive: Receive, send: Send) -> None:
            began, status, size = clock.monotonic(), 0, 0

            async def watch(message: Message) -> None:
                nonlocal status, size
                status = message.get("status", 101 if message["type"] == "websocket.accept" else status)
                size += len(message.get("body", b""))
                await send(message)

            try:
                await app(scope, receive, watch)
            finally:
                method, path = scope.get("method", "WEBSOCKET"), quote(scope["path"][:_MAX_PATH])
                milliseconds = (clock.monotonic() - began) * 1000
                log.info(
                    "%s %s %s: %s, %d bytes, %.1f ms, request %s",
                    scope["ostler.caller"].name, method, path, status or "no response", size, milliseconds,
                    scope["ostler.request_id"],
                )  # fmt: skip

        return write
