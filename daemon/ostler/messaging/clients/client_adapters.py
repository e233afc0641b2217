"""Adapts clients for `RpcApi`: one interface for blocking and non-blocking clients."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from ostler.clock import Clock, SystemClock
from ostler.errors import MessagingError, MethodNotFound, NotPermitted, ServiceNotFound, UnsupportedVersion
from ostler.messaging.clients.call_methods import AsyncCallMethods
from ostler.messaging.interface.versions import AUTO
from ostler.messaging.wire.request import CallRequest
from ostler.types import CONTROL_TOPIC, Upgrade

_CACHE_TTL = 10.0
"""Seconds for which a client outside of the daemon keeps what the daemon told it."""


class ClientAdapter(Protocol):
    """What an `RpcApi` needs of a client; what blocks, and what is for the loop."""

    def send_request(self, request: CallRequest, retry: Any) -> Any:
        """Send a request and wait for its result."""
        ...

    async def asend_request(self, request: CallRequest, retry: Any) -> Any:
        """Send a request and wait for its result, on the loop."""
        ...

    def stream(self, ask: CallRequest, credit: int) -> Any:
        """Return the stream of a method that yields."""
        ...

    def astream(self, ask: CallRequest, credit: int) -> Any:
        """Return the stream of a method that yields, for the loop."""
        ...

    def pin(self, topic: str) -> str:
        """Return the pin as far as it is known without asking anybody, `auto` for none; empty when it is not."""
        ...

    def get_upgrade(self, topic: str, major: int) -> Upgrade:
        """Return the state of a topic's upgrade."""
        ...

    async def aget_upgrade(self, topic: str, major: int) -> Upgrade:
        """Return how far a topic is in an upgrade, on the loop."""
        ...


class ServiceAdapter:
    """A manager's own client: blocking and on the loop, with direct access to what the daemon knows.

    Args:
        client: The client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def send_request(self, request: CallRequest, retry: Any) -> Any:
        """See `ClientAdapter.send_request`."""
        return self._client.send_request(request, *_retry_arguments(retry))

    async def asend_request(self, request: CallRequest, retry: Any) -> Any:
        """See `ClientAdapter.asend_request`."""
        return await self._client.asend_request(request, *_retry_arguments(retry))

    def stream(self, ask: CallRequest, credit: int) -> Any:
        """See `ClientAdapter.stream`."""
        return self._client.open_stream(ask, credit)

    def astream(self, ask: CallRequest, credit: int) -> Any:
        """See `ClientAdapter.astream`."""
        return self._client.open_astream(ask, credit)

    def pin(self, topic: str) -> str:
        """See `ClientAdapter.pin`."""
        return str(self._client.upgrades.pin_of(topic))

    def get_upgrade(self, topic: str, major: int) -> Upgrade:
        """See `ClientAdapter.get_upgrade`."""
        found: Upgrade = self._client.upgrades.get_upgrade(topic, major)
        return found

    async def aget_upgrade(self, topic: str, major: int) -> Upgrade:
        """See `ClientAdapter.aget_upgrade`."""
        found: Upgrade = await self._client.upgrades.aget_upgrade(topic, major)
        return found


class _CachedUpgrade(NamedTuple):
    upgrade: Upgrade
    expires_at: float


class _RemoteAdapter:
    """What a client outside of the daemon was told by it, kept for a moment."""

    def __init__(self, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._cache: dict[tuple[str, int], _CachedUpgrade] = {}

    def pin(self, _topic: str) -> str:
        """See `ClientAdapter.pin`; a pin is the daemon's, and comes with what it says."""
        return AUTO

    def _cached(self, topic: str, major: int) -> Upgrade | None:
        kept = self._cache.get((topic, major))
        return kept.upgrade if kept is not None and self._clock.monotonic() < kept.expires_at else None

    def _store(self, topic: str, major: int, found: Upgrade) -> Upgrade:
        self._cache[topic, major] = _CachedUpgrade(found, self._clock.monotonic() + _CACHE_TTL)
        return found

    def _upgrade_request(self, topic: str, major: int) -> CallRequest:
        return CallRequest(
            CONTROL_TOPIC, "service_versions", {"topic": topic, "major": major}, result_type=list[Upgrade]
        )

    def _unknown_upgrade(self, topic: str, major: int, error: MessagingError) -> Upgrade:
        """Return that nothing is known: the daemon is older than the question, or does not answer it to us."""
        if not isinstance(error, NotPermitted | ServiceNotFound | MethodNotFound):
            raise error
        return self._store(topic, major, Upgrade(topic=topic))

    def _refusal(self, error: UnsupportedVersion) -> UnsupportedVersion:
        self._cache.clear()  # what was known was wrong
        return error


class SyncAdapter(_RemoteAdapter):
    """A `Client`: blocks.

    Args:
        client: The client.
        clock: The source of time.
    """

    def send_request(self, request: CallRequest, retry: Any) -> Any:
        """See `ClientAdapter.send_request`."""
        try:
            return self._client.send_request(request, *_retry_arguments(retry))
        except UnsupportedVersion as error:
            raise self._refusal(error) from None

    async def asend_request(self, request: CallRequest, retry: Any) -> Any:
        """Refuse."""
        raise _wrong_client_error(
            "is blocking and cannot be awaited", "call the method directly, or use an AsyncClient"
        )

    def stream(self, ask: CallRequest, credit: int) -> Any:
        """See `ClientAdapter.stream`."""
        return self._client.open_stream(ask, credit)

    def astream(self, ask: CallRequest, credit: int) -> Any:
        """Refuse."""
        raise _wrong_client_error(
            "is blocking and cannot be awaited", "call the method directly, or use an AsyncClient"
        )

    def get_upgrade(self, topic: str, major: int) -> Upgrade:
        """See `ClientAdapter.get_upgrade`."""
        if (known := self._cached(topic, major)) is not None:
            return known
        try:
            (found,) = self._client.send_request(self._upgrade_request(topic, major))
        except MessagingError as error:
            return self._unknown_upgrade(topic, major, error)
        return self._store(topic, major, found)

    async def aget_upgrade(self, topic: str, major: int) -> Upgrade:
        """Refuse."""
        raise _wrong_client_error(
            "is blocking and cannot be awaited", "call the method directly, or use an AsyncClient"
        )


class AsyncAdapter(_RemoteAdapter):
    """An `AsyncClient`: for the loop.

    Args:
        client: The client.
        clock: The source of time.
    """

    def send_request(self, request: CallRequest, retry: Any) -> Any:
        """Refuse."""
        raise _wrong_client_error("is asynchronous and cannot block", "use `acall`, `acast` or `afanout`, or a Client")

    async def asend_request(self, request: CallRequest, retry: Any) -> Any:
        """See `ClientAdapter.asend_request`."""
        try:
            return await self._client.send_request(request, *_retry_arguments(retry))
        except UnsupportedVersion as error:
            raise self._refusal(error) from None

    def stream(self, ask: CallRequest, credit: int) -> Any:
        """Refuse."""
        raise _wrong_client_error("is asynchronous and cannot block", "use `astream`, or a Client")

    def astream(self, ask: CallRequest, credit: int) -> Any:
        """See `ClientAdapter.astream`."""
        return self._client.open_stream(ask, credit)

    def get_upgrade(self, topic: str, major: int) -> Upgrade:
        """Refuse."""
        raise _wrong_client_error(
            "is asynchronous and cannot block", "use `acan_send_version`, `aupgrading` and `acall`"
        )

    async def aget_upgrade(self, topic: str, major: int) -> Upgrade:
        """See `ClientAdapter.aget_upgrade`."""
        if (known := self._cached(topic, major)) is not None:
            return known
        try:
            (found,) = await self._client.send_request(self._upgrade_request(topic, major))
        except MessagingError as error:
            return self._unknown_upgrade(topic, major, error)
        return self._store(topic, major, found)


def adapter_of(client: Any, clock: Clock | None = None) -> ClientAdapter:
    """Return the view of a client: of a `Client`, an `AsyncClient` or a manager's, or of what `on` of one returned.

    Args:
        client: The client.
        clock: The source of time, for tests.
    """
    if hasattr(client, "asend_request"):
        return ServiceAdapter(client)
    kind = AsyncAdapter if isinstance(client, AsyncCallMethods) else SyncAdapter
    return kind(client, clock or SystemClock())


def _retry_arguments(retry: Any) -> tuple[Any, ...]:
    return () if retry is None else (retry,)


def _wrong_client_error(what: str, instead: str) -> RuntimeError:
    return RuntimeError(f"this client {what}; {instead}")
