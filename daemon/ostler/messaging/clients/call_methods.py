"""What every client can do: call, cast, fan out and stream, and the options of a call, which `on` sets.

The three kinds of clients (blocking, for a loop, for managers) share these methods, each in two forms: the client
itself, which has the connection, and the view that `on` returns, which has other options.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import msgspec

from ostler.errors import InvalidInput
from ostler.messaging.clients.retry import Retry
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT, check_credit
from ostler.messaging.wire.request import CAST_FLAGS, FANOUT_FLAGS, CallRequest
from ostler.spelling import suggest
from ostler.types import Json

if TYPE_CHECKING:
    from ostler.messaging.clients.async_item_stream import AsyncItemStream
    from ostler.messaging.clients.sync_item_stream import ItemStream
    from ostler.messaging.interface.versions import VersionRegistry
    from ostler.messaging.wire.request import ProgressCallback


class StubKeywords(TypedDict, total=False):
    """The keyword arguments of `RpcApi.on`; see `CallOptions`."""

    host: str | None
    timeout: float | None
    on_progress: ProgressCallback | None
    retry: Retry | None
    credit: int


class CallKeywords(StubKeywords, total=False):
    """The keyword arguments of `Client.on`; see `CallOptions`."""

    type: Any


class CallOptions(msgspec.Struct, frozen=True):
    """How calls are made. Each client has one such object, and what its `on` returns has another one.

    Attributes:
        host: The service's host; None for the one of the daemon, or one that has such a service.
        timeout: Seconds that a call may take at most, all its attempts together; of a stream, seconds to wait for each
            item. None for what is left of the request that is being served, else the client's default (of a stream: no
            limit).
        type: The type that the result, or each item of a stream, is decoded to; None for plain values.
        on_progress: Called with each progress report of a call, on the thread or loop that waits for the result. If it
            raises, the call is cancelled and raises that.
        retry: When a call, cast or fanout is sent again, and after which errors; None for the client's own policy. A
            stream is not retried.
        credit: The most items of a stream that are on their way or wait for the reader; the method makes no more
            meanwhile.

    Raises:
        InvalidInput: A value is not one that the option can have.
    """

    host: str | None = None
    timeout: float | None = None
    type: Any = None
    on_progress: ProgressCallback | None = None
    retry: Retry | None = None
    credit: int = DEFAULT_CREDIT

    def __post_init__(self) -> None:
        # Programs without type checks get an error as well. The usual cases come first: this runs for each `on`.
        host: object = self.host
        if host is not None and not isinstance(host, str):
            raise _refused("host", "the name of a host", host)
        timeout: object = self.timeout
        if timeout is not None and not _is_time(timeout):
            raise _refused("timeout", "a number of seconds, 0 or more", timeout)
        on_progress: object = self.on_progress
        if on_progress is not None and not callable(on_progress):
            raise _refused("on_progress", "a function that takes a Progress", on_progress)
        retry: object = self.retry
        if retry is not None:
            if not isinstance(retry, Retry):
                raise _refused("retry", "a Retry", retry)
            retry.check()
        if self.credit is not DEFAULT_CREDIT:
            check_credit(self.credit, "a stream")

    def updated(self, given: Mapping[str, Any]) -> CallOptions:
        """Return these options with some of them changed.

        Args:
            given: Their new values by name.

        Raises:
            TypeError: The option does not exist.
            InvalidInput: See the class.
        """
        try:
            return msgspec.structs.replace(self, **given)
        except TypeError:
            known = self.__struct_fields__
            unknown = next((name for name in given if name not in known), None)
            if unknown is None:
                raise
            hint = suggest(unknown, known)
            raise TypeError(f"on() has no option {unknown!r}{f'; {hint}' if hint else ''}") from None


DEFAULT_OPTIONS = CallOptions()
"""Those of a client itself."""


def check_fanout(options: CallOptions, topic: str, method: str) -> None:
    """Refuse a fanout that is for one host.

    Raises:
        InvalidInput: The options name a host.
    """
    if options.host:
        raise InvalidInput(
            f"a fanout of {topic}.{method} goes to every host, but the option host is {options.host!r}",
            hint="leave host out of on(…), or use cast for that host",
            method=f"{topic}.{method}",
        )


def _is_time(value: object) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool) and value >= 0


_NUMBERS = (int, float)


def _refused(option: str, wanted: str, given: object) -> InvalidInput:
    return InvalidInput(f"the option {option} of a call must be {wanted}, not {given!r:.60}", option=option)


def request_for(options: CallOptions, topic: str, method: str, arguments: dict[str, Any]) -> CallRequest:
    """Return the request for a call or a stream."""
    return CallRequest(topic, method, arguments, options.host, options.timeout, options.type, options.on_progress)


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


class SyncCallMethods:
    """The calls of a client that blocks."""

    __slots__ = ()
    options: CallOptions
    """How its calls are made."""

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """Send a request that is put together already, and wait for its result: what an `RpcApi` is built on."""
        raise NotImplementedError

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """Return the stream of a request that is put together already; see `send_request` and `stream`."""
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
        """See `SyncCallMethods.send_request`."""
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
        """Return the stream of a request that is put together already; see `send_request` and `stream`."""
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
        """See `AsyncCallMethods.send_request`."""
        return self._client.send_request(request, retry)

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """See `AsyncClient.open_stream`."""
        return self._client.open_stream(request, credit)


class ServiceClient(SyncCallMethods):
    """The client with which managers reach other services, in this daemon directly, and publish.

    It has the promises of a call over the wire: arguments and results are converted, never shared. The work of the
    called method is done with the role of the daemon itself. A call made while a request is served has what is left of
    that request's deadline, and stops when that request is cancelled.

    The plain methods block and are for threads of a pool; on the loop's thread they raise `RuntimeError`. Those that
    start with `a` are for the loop. Without the option `host` a call is for the service of this daemon, or for a host
    that has such a service; a further attempt of a retry may go to another one. `on_progress` is called on the loop,
    and only for what is done on another host.
    """

    __slots__ = ()

    @property
    def upgrades(self) -> VersionRegistry:
        """Which version of a topic's calls may be used; see `RpcApi`."""
        raise NotImplementedError

    async def asend_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """Send a request that is put together already, on the loop; see `send_request`."""
        raise NotImplementedError

    def open_astream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """Return the stream of a request that is put together already, for the loop; see `send_request`."""
        raise NotImplementedError

    def publish(self, event: str, payload: Json = None, *, topic: str | None = None) -> None:
        """Publish `topic.host.event` to whoever listens; by default the service's own topic. Any thread."""
        raise NotImplementedError

    def on(self, **options: Unpack[CallKeywords]) -> ServiceClientView:
        """Return a view of this client that makes its calls with other options; see `Client.on`."""
        return ServiceClientView(self, self.options.updated(options))

    async def acall(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Call a method and wait for its result, on the loop; see `call`."""
        return await self.asend_request(request_for(self.options, topic, method, arguments), self.options.retry)

    def astream(self, topic: str, method: str, /, **arguments: Any) -> AsyncItemStream:
        """Return what a method yields, for `async for` on the loop, best inside `async with`; see `stream`."""
        return self.open_astream(request_for(self.options, topic, method, arguments), self.options.credit)

    async def acast(self, topic: str, method: str, /, **arguments: Any) -> None:
        """Have a method run, on the loop; see `cast`."""
        await self.asend_request(cast_for(self.options, topic, method, arguments), self.options.retry)

    async def afanout(self, topic: str, method: str, /, **arguments: Any) -> int:
        """Have every service on the topic run a method, on the loop; see `fanout`."""
        return int(await self.asend_request(fanout_for(self.options, topic, method, arguments), self.options.retry))


class ServiceClientView(ClientView, ServiceClient):
    """A manager's client with other options; made by `on`.

    Args:
        client: The client, or a view of it.
        options: How its calls are made.
    """

    __slots__ = ()
    _client: ServiceClient

    @property
    def upgrades(self) -> VersionRegistry:
        """See `ServiceClient.upgrades`."""
        return self._client.upgrades

    async def asend_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """See `ServiceClient.asend_request`."""
        return await self._client.asend_request(request, retry)

    def open_astream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """See `ServiceClient.open_astream`."""
        return self._client.open_astream(request, credit)

    def publish(self, event: str, payload: Json = None, *, topic: str | None = None) -> None:
        """See `ServiceClient.publish`."""
        self._client.publish(event, payload, topic=topic)
