"""What the handlers of one application share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ostler_http.api.frames import StreamSender
from ostler_http.api.interfaces import CONTROL_TOPIC, Interfaces

if TYPE_CHECKING:
    from ostler import Gateway
    from ostler_http.api.interfaces import Interface
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
        lenient: bool = False, key: str = "",
    ) -> Any:  # fmt: skip
        """Call a method of the daemon itself as the caller of a request, with its deadline and ids.

        Args:
            request: The request.
            method: A method of the topic `ostler`.
            arguments: Its arguments.
            host: The host whose daemon is asked; empty for this one.
            lenient: Whether texts may stand for numbers and booleans.
            key: The id that a repeated request has as well, see `idempotency_id`: it is not run again.

        Raises:
            OstlerError: What the call ended with.
            ClientGone: The client has left.
        """
        client = self.client(request)
        call = client.call(
            CONTROL_TOPIC, method, arguments or {}, host=host or None, timeout=request.timeout(self.timeout),
            request_id=key or request.request_id, trace=request.trace, lenient=lenient, deduplicate=bool(key),
        )  # fmt: skip
        return await request.until_gone(call)

    async def interface(self, request: Request, topic: str, host: str = "") -> Interface:
        """Return the methods of a topic, as they are described to the caller of a request within its deadline.

        Args:
            request: The request.
            topic: The topic.
            host: The host; empty for this one, or one that has the topic.

        Raises:
            ServiceNotFound: There is no such topic.
            OstlerError: What the description failed with.
        """
        return await self.interfaces.get(
            self.client(request), topic, host, time_left=lambda: request.timeout(self.timeout)
        )

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
        change = (await self.interface(request, CONTROL_TOPIC)).method(method).to_shown
        return value if change is None else change(value)
