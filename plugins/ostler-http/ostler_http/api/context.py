"""What the handlers of one application share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ostler_http.api.frames import StreamSender
from ostler_http.api.interfaces import Interfaces

if TYPE_CHECKING:
    from ostler import Gateway
    from ostler_http.api.request import Request


class ApiContext(msgspec.Struct, frozen=True):
    """What the handlers of one application share.

    Args:
        gateway: Makes the requests of callers.
        interfaces: What methods take and return.
        streams: Sends streams.
        timeout: Seconds for requests that name no deadline.
        host: The name of this host.
    """

    gateway: Gateway
    interfaces: Interfaces
    streams: StreamSender
    timeout: float
    host: str

    def client(self, request: Request) -> Any:
        """Return the client that makes requests as the caller of a request."""
        return self.gateway.client(request.caller)

    async def control(
        self, request: Request, method: str, arguments: dict[str, Any] | None = None, *, host: str = "",
        lenient: bool = False,
    ) -> Any:  # fmt: skip
        """Call a method of the daemon itself as the caller of a request, with its deadline and ids.

        Args:
            request: The request.
            method: A method of the topic `ostler`.
            arguments: Its arguments.
            host: The host whose daemon is asked; empty for this one.
            lenient: Whether texts may stand for numbers and booleans.

        Raises:
            OstlerError: What the call ended with.
            ClientGone: The client has left.
        """
        client = self.client(request)
        call = client.call(
            "ostler", method, arguments or {}, host=host or None, timeout=request.timeout(self.timeout),
            request_id=request.request_id, trace=request.trace, lenient=lenient,
        )  # fmt: skip
        return await request.until_gone(call)

    async def rows(self, request: Request, method: str, arguments: dict[str, Any], *, host: str = "") -> list[Any]:
        """Return the list that a method of the daemon returns; texts may stand for numbers. See `control`."""
        return list(await self.control(request, method, arguments, host=host, lenient=True))

    async def shown(self, request: Request, method: str, value: Any) -> Any:
        """Return what a method of the daemon returned as `--json` shows it: moments as RFC 3339.

        Args:
            request: The request.
            method: The method that returned it.
            value: The value.
        """
        found = await self.interfaces.method(self.client(request), "ostler", method)
        change = found.to_shown
        return value if change is None else change(value)
