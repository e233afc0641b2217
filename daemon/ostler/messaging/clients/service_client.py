"""`ServiceClient`: the client with which managers reach other services and publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Unpack

from ostler.messaging.clients.call_methods import cast_for, fanout_for, request_for, submit_for
from ostler.messaging.clients.operation import SUBMIT_RETRY, Operation, unknown_operation
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT
from ostler.types import Json

if TYPE_CHECKING:
    from ostler.messaging.clients.async_item_stream import AsyncItemStream
    from ostler.messaging.clients.async_operation import AsyncOperation
    from ostler.messaging.clients.call_options import CallKeywords, CallOptions
    from ostler.messaging.clients.retry import Retry
    from ostler.messaging.clients.sync_item_stream import ItemStream
    from ostler.messaging.interface.versions import VersionRegistry
    from ostler.messaging.wire.request import CallRequest


class ServiceClient(Protocol):
    """Calls other services, in this daemon directly, with the same promises as over the wire.

    Arguments and results are converted, never shared. The work of the called method is done with the role of the
    daemon itself. A call made while a request is served has what is left of that request's deadline, and stops when
    that request is cancelled. The plain methods block and are for threads of a pool, those that start with `a` are for
    the loop.
    """

    options: CallOptions
    """How its calls are made; `on` sets them."""

    @property
    def upgrades(self) -> VersionRegistry:
        """Which version of a topic's calls may be used; see `RpcApi`."""
        ...

    def on(self, **options: Unpack[CallKeywords]) -> ServiceClient:
        """Return a view of this client that makes its calls with other options; nothing is sent. Any thread.

        Options that are not named are those of this one, so that `client.on(host="node2").on(timeout=5)` has both.

        Args:
            options: `host` (None for this one, or one that has such a service), `timeout`, `type`, `on_progress`,
                `retry` and `credit`; see `CallOptions`. `on_progress` is called on the loop, and only for what is done
                on another host. A further attempt of a retry may go to another member of the topic.

        Raises:
            TypeError: The option does not exist.
            InvalidInput: An option cannot have this value.
        """
        return ServiceClientView(self, self.options.updated(options))

    def call(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Call a method and wait for its result; options are set with `on`. Any thread but the loop's.

        Args:
            topic: The service's topic.
            method: The exposed method.
            arguments: The method's arguments, by name.

        Returns:
            The result: plain values, or what `on(type=…)` says.

        Raises:
            RuntimeError: It was called on the loop's thread, which it would block.
            MessagingError: The call did not go as asked; each kind has its class in `ostler.errors`.
            OstlerError: What the method raised.
        """
        return self.send_request(request_for(self.options, topic, method, arguments), self.options.retry)

    async def acall(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Call a method and wait for its result, on the loop; see `call`."""
        return await self.asend_request(request_for(self.options, topic, method, arguments), self.options.retry)

    def cast(self, topic: str, method: str, /, **arguments: Any) -> None:
        """Have a method run; return when the service has accepted it. Any thread but the loop's."""
        self.send_request(cast_for(self.options, topic, method, arguments), self.options.retry)

    async def acast(self, topic: str, method: str, /, **arguments: Any) -> None:
        """Have a method run, on the loop; see `cast`."""
        await self.asend_request(cast_for(self.options, topic, method, arguments), self.options.retry)

    def fanout(self, topic: str, method: str, /, **arguments: Any) -> int:
        """Have every service on the topic run a method; return how many accepted it. Any thread but the loop's.

        Raises:
            InvalidInput: The options name a host.
            OstlerError: As `call`.
        """
        return int(self.send_request(fanout_for(self.options, topic, method, arguments), self.options.retry))

    async def afanout(self, topic: str, method: str, /, **arguments: Any) -> int:
        """Have every service on the topic run a method, on the loop; see `fanout`."""
        return int(await self.asend_request(fanout_for(self.options, topic, method, arguments), self.options.retry))

    def stream(self, topic: str, method: str, /, **arguments: Any) -> ItemStream:
        """Return what a method yields, item by item; iterate it, best inside `with`. Any thread but the loop's.

        The method makes no more than `on(credit=…)` items that the reader has not done with. Leaving the block, or the
        loop, ends the generator: its `finally` blocks run. How long an item may take is set with `on(timeout=…)`;
        without it there is no limit but what is left of the current request.

        Args:
            topic: The service's topic.
            method: The exposed method; one that yields.
            arguments: The method's arguments, by name.

        Raises:
            RuntimeError: It was entered or iterated on the loop's thread, which it would block.
            OstlerError: As `call`; when it is entered or iterated.
        """
        return self.open_stream(request_for(self.options, topic, method, arguments), self.options.credit)

    def astream(self, topic: str, method: str, /, **arguments: Any) -> AsyncItemStream:
        """Return what a method yields, for `async for` on the loop, best inside `async with`; see `stream`."""
        return self.open_astream(request_for(self.options, topic, method, arguments), self.options.credit)

    def submit(self, topic: str, method: str, /, **arguments: Any) -> Operation:
        """Have a request stored as an operation; return it as soon as it is on disk. Any thread but the loop's.

        See `Client.submit`. An operation that submits others gives them ids of its own,
        `on(request_id=f"{ctx.request_id}.copy")`, so that it does not submit them twice when it is resumed.

        Raises:
            RuntimeError: It was called on the loop's thread, which it would block.
            OstlerError: It was not accepted; see `call`.
        """
        status = self.send_request(
            submit_for(self.options, topic, method, arguments), self.options.retry or SUBMIT_RETRY
        )
        return Operation(self, status, self.options.type)

    async def asubmit(self, topic: str, method: str, /, **arguments: Any) -> AsyncOperation:
        """Have a request stored as an operation, on the loop; see `submit`."""
        status = await self.asend_request(
            submit_for(self.options, topic, method, arguments), self.options.retry or SUBMIT_RETRY
        )
        from ostler.messaging.clients.async_operation import AsyncOperation  # asyncio, for whoever submits on a loop

        return AsyncOperation(ServiceCalls(self), status, self.options.type)

    def operation(self, operation_id: str, /) -> Operation:
        """Return the handle of an operation that was submitted before, for a thread; nothing is sent."""
        return Operation(self, unknown_operation(operation_id, self.options.host), self.options.type)

    def aoperation(self, operation_id: str, /) -> AsyncOperation:
        """Return the handle of an operation that was submitted before, for the loop; nothing is sent."""
        from ostler.messaging.clients.async_operation import AsyncOperation  # asyncio, for whoever submits on a loop

        return AsyncOperation(ServiceCalls(self), unknown_operation(operation_id, self.options.host), self.options.type)

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """Send a request that is put together already, and wait: for `RpcApi`. Any thread but the loop's."""
        ...

    async def asend_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """Send a request that is put together already, on the loop; see `request`."""
        ...

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """Return the stream of a request that is put together already; see `request`."""
        ...

    def open_astream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """Return the stream of a request that is put together already, for the loop; see `request`."""
        ...

    def publish(self, event: str, payload: Json = None, *, topic: str | None = None) -> None:
        """Publish `topic.host.event` to whoever listens; by default the service's own topic. Any thread."""
        ...


class ServiceCalls:
    """The calls of a manager's client on the loop, under the names that `AsyncOperation` knows them by.

    Args:
        client: The client.
    """

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def on(self, **options: Unpack[CallKeywords]) -> ServiceCalls:
        """See `ServiceClient.on`."""
        return ServiceCalls(self._client.on(**options))

    async def call(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """See `ServiceClient.acall`."""
        return await self._client.acall(topic, method, **arguments)

    def stream(self, topic: str, method: str, /, **arguments: Any) -> AsyncItemStream:
        """See `ServiceClient.astream`."""
        return self._client.astream(topic, method, **arguments)


class ServiceClientView(ServiceClient):
    """A manager's client with other options; made by `on`.

    Args:
        client: The client, or a view of it.
        options: How its calls are made.
    """

    __slots__ = ("_client", "options")

    def __init__(self, client: ServiceClient, options: CallOptions) -> None:
        self._client: ServiceClient = client._client if isinstance(client, ServiceClientView) else client  # noqa: SLF001 - of the same class
        self.options = options

    @property
    def upgrades(self) -> VersionRegistry:
        """See `ServiceClient.upgrades`."""
        return self._client.upgrades

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """See `ServiceClient.ask`."""
        return self._client.send_request(request, retry)

    async def asend_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """See `ServiceClient.asend_request`."""
        return await self._client.asend_request(request, retry)

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """See `ServiceClient.open_stream`."""
        return self._client.open_stream(request, credit)

    def open_astream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """See `ServiceClient.open_astream`."""
        return self._client.open_astream(request, credit)

    def publish(self, event: str, payload: Json = None, *, topic: str | None = None) -> None:
        """See `ServiceClient.publish`."""
        self._client.publish(event, payload, topic=topic)
