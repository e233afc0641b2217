"""What every client can do: call, cast, fan out and stream, with the options that `on` has set.

The three kinds of clients (blocking, for a loop, for managers) share these methods, each in two forms: the
client itself, which has the connection, and the view that `on` returns, which has other options.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Unpack

from ostler.messaging.clients.call_options import CallKeywords, CallOptions, check_fanout
from ostler.messaging.clients.operation import SUBMIT_RETRY, Operation, unknown_operation
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT
from ostler.messaging.wire.envelope import SUBMIT
from ostler.messaging.wire.request import CAST_FLAGS, FANOUT_FLAGS, CallRequest
from ostler.types import OperationStatus

if TYPE_CHECKING:
    from ostler.messaging.clients.async_item_stream import AsyncItemStream
    from ostler.messaging.clients.async_operation import AsyncOperation
    from ostler.messaging.clients.retry import Retry
    from ostler.messaging.clients.sync_item_stream import ItemStream


def request_for(options: CallOptions, topic: str, method: str, arguments: dict[str, Any]) -> CallRequest:
    """Return the request for a call or a stream."""
    return CallRequest(
        topic, method, arguments, options.host, options.timeout, options.type, options.on_progress,
        request_id=options.request_id,
    )  # fmt: skip


def cast_for(options: CallOptions, topic: str, method: str, arguments: dict[str, Any]) -> CallRequest:
    """Return the request for a cast."""
    return CallRequest(topic, method, arguments, options.host, options.timeout, flags=CAST_FLAGS)


def fanout_for(options: CallOptions, topic: str, method: str, arguments: dict[str, Any]) -> CallRequest:
    """Return the request for a fanout.

    Raises:
        InvalidInput: It names a host.
    """
    check_fanout(options, topic, method)
    return CallRequest(topic, method, arguments, None, options.timeout, flags=FANOUT_FLAGS)


def submit_for(options: CallOptions, topic: str, method: str, arguments: dict[str, Any]) -> CallRequest:
    """Return the request that submits an operation."""
    return CallRequest(
        topic, method, arguments, options.host, options.timeout, OperationStatus, flags=SUBMIT,
        time_limit=options.time_limit, request_id=options.request_id,
    )  # fmt: skip


class SyncCallMethods:
    """The calls of a client that blocks."""

    __slots__ = ()
    options: CallOptions
    """How its calls are made."""

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """Send a request that is put together already, and wait for its result: what an `RpcApi` is built on."""
        raise NotImplementedError

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """Return the stream of a request that is put together already; see `request` and `stream`."""
        raise NotImplementedError

    def on(self, **options: Unpack[CallKeywords]) -> ClientView:
        """Return a view of this client that makes its calls with other options; nothing is sent, nothing connected.

        It has the connection of this client and `call`, `cast`, `fanout`, `stream` and `on`. Options that are not named
        are those of this one, so that `client.on(host="node2").on(timeout=5)` has both. For any thread.

        Args:
            options: `host`, `timeout`, `type`, `on_progress`, `retry` and `credit`; see `CallOptions`.

        Raises:
            TypeError: The option does not exist.
            InvalidInput: An option cannot have this value.
        """
        return ClientView(self, self.options.updated(options))

    def call(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Call a method and wait for its result; options are set with `on`.

        Args:
            topic: The service's topic.
            method: The exposed method.
            arguments: The method's arguments, by name.

        Returns:
            The result: plain values, or what `on(type=…)` says.

        Raises:
            DaemonNotRunning: No daemon listens.
            NotPermitted: This user is not allowed to use the socket, or lacks a role.
            ConnectionLost: The daemon died or fell silent; the work may or may not have been done.
            DeadlineExceeded: No answer came in time.
            MessagingError: The call did not go as asked; each kind has its class in `ostler.errors`.
            OstlerError: What the method raised.
        """
        options = self.options
        return self.send_request(
            CallRequest(topic, method, arguments, options.host, options.timeout, options.type, options.on_progress),
            options.retry,
        )

    def stream(self, topic: str, method: str, /, **arguments: Any) -> ItemStream:
        """Return what a method yields, item by item; iterate it, best inside `with`.

        Other calls may be made while it is open. Leaving the block, or the loop, ends the generator on the server. How
        long an item may take is set with `on(timeout=…)`; without it there is no limit but what is left of the request
        being served. The beats of the server go on: that it has gone is known without a limit.

        Args:
            topic: The service's topic.
            method: The exposed method; one that yields.
            arguments: The method's arguments, by name.

        Raises:
            OstlerError: As `call`; when it is entered or iterated.
        """
        return self.open_stream(request_for(self.options, topic, method, arguments), self.options.credit)

    def cast(self, topic: str, method: str, /, **arguments: Any) -> None:
        """Have a method run; return when the daemon has accepted it. It runs at most once.

        Raises:
            OstlerError: It was not accepted; see `call`.
        """
        self.send_request(cast_for(self.options, topic, method, arguments), self.options.retry)

    def fanout(self, topic: str, method: str, /, **arguments: Any) -> int:
        """Have every service on the topic run a method; return how many accepted it.

        Raises:
            InvalidInput: The options name a host.
            OstlerError: It could not be sent, or its arguments do not fit; see `call`.
        """
        return int(self.send_request(fanout_for(self.options, topic, method, arguments), self.options.retry))

    def submit(self, topic: str, method: str, /, **arguments: Any) -> Operation:
        """Have a request stored as an operation; return it as soon as it is on disk.

        It runs whatever becomes of this program, and survives the daemon. To submit the same request again under the
        same id (`on(request_id=…)`) returns the same operation; so this is tried again by itself when the connection is
        lost. `on(time_limit=…)` sets the seconds in which it must end.

        Args:
            topic: The service's topic.
            method: The exposed method; one that is not declared durable runs once, and fails if the daemon ends.
            arguments: The method's arguments, by name.

        Raises:
            Conflict: The id belongs to another operation.
            OstlerError: It was not accepted; see `call`.
        """
        request = submit_for(self.options, topic, method, arguments)
        status = self.send_request(request, self.options.retry or SUBMIT_RETRY)
        return Operation(self, status, self.options.type)

    def operation(self, operation_id: str, /) -> Operation:
        """Return the handle of an operation that was submitted before; nothing is sent. `on(host=…)` says where it is.

        Args:
            operation_id: Its id.
        """
        return Operation(self, unknown_operation(operation_id, self.options.host), self.options.type)


class ClientView(SyncCallMethods):
    """A `Client` with other options; made by `on`.

    Args:
        client: The client, or a view of it.
        options: How its calls are made.
    """

    __slots__ = ("_client", "options")

    def __init__(self, client: SyncCallMethods, options: CallOptions) -> None:
        self._client: SyncCallMethods = client._client if isinstance(client, ClientView) else client  # noqa: SLF001 - of the same class
        self.options = options

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """See `Client.ask`."""
        return self._client.send_request(request, retry)

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """See `Client.open_stream`."""
        return self._client.open_stream(request, credit)


class AsyncCallMethods:
    """The calls of a client for a loop."""

    __slots__ = ()
    options: CallOptions
    """How its calls are made."""

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Coroutine[Any, Any, Any]:
        """Return the result of a request that is put together already, when awaited: what an `RpcApi` is built on."""
        raise NotImplementedError

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """Return the stream of a request that is put together already; see `request` and `stream`."""
        raise NotImplementedError

    def on(self, **options: Unpack[CallKeywords]) -> AsyncClientView:
        """Return a view of this client that makes its calls with other options; see `Client.on`."""
        return AsyncClientView(self, self.options.updated(options))

    async def call(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Call a method and wait for its result; arguments, result and errors as in `Client.call`."""
        options = self.options
        return await self.send_request(
            CallRequest(topic, method, arguments, options.host, options.timeout, options.type, options.on_progress),
            options.retry,
        )

    def stream(self, topic: str, method: str, /, **arguments: Any) -> AsyncItemStream:
        """Return what a method yields, for `async for`, best inside `async with`; see `Client.stream`."""
        return self.open_stream(request_for(self.options, topic, method, arguments), self.options.credit)

    async def cast(self, topic: str, method: str, /, **arguments: Any) -> None:
        """Have a method run; see `Client.cast`."""
        await self.send_request(cast_for(self.options, topic, method, arguments), self.options.retry)

    async def fanout(self, topic: str, method: str, /, **arguments: Any) -> int:
        """Have every service on the topic run a method; see `Client.fanout`."""
        return int(await self.send_request(fanout_for(self.options, topic, method, arguments), self.options.retry))

    async def submit(self, topic: str, method: str, /, **arguments: Any) -> AsyncOperation:
        """Have a request stored as an operation; see `Client.submit`."""
        request = submit_for(self.options, topic, method, arguments)
        status = await self.send_request(request, self.options.retry or SUBMIT_RETRY)
        from ostler.messaging.clients.async_operation import AsyncOperation  # asyncio, for whoever submits on a loop

        return AsyncOperation(self, status, self.options.type)

    def operation(self, operation_id: str, /) -> AsyncOperation:
        """Return the handle of an operation that was submitted before; nothing is sent. `on(host=…)` says where it is.

        Args:
            operation_id: Its id.
        """
        from ostler.messaging.clients.async_operation import AsyncOperation  # asyncio, for whoever submits on a loop

        return AsyncOperation(self, unknown_operation(operation_id, self.options.host), self.options.type)


class AsyncClientView(AsyncCallMethods):
    """An `AsyncClient` with other options; made by `on`.

    Args:
        client: The client, or a view of it.
        options: How its calls are made.
    """

    __slots__ = ("_client", "options")

    def __init__(self, client: AsyncCallMethods, options: CallOptions) -> None:
        self._client: AsyncCallMethods = client._client if isinstance(client, AsyncClientView) else client  # noqa: SLF001 - of the same class
        self.options = options

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Coroutine[Any, Any, Any]:
        """See `AsyncClient.ask`."""
        return self._client.send_request(request, retry)

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """See `AsyncClient.open_stream`."""
        return self._client.open_stream(request, credit)
