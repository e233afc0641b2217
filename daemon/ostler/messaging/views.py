"""What an `RpcApi` sees of the client that it stands on: one face for those that block, and those that do not."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from ostler.clock import Clock, SystemClock
from ostler.errors import MessagingError, NotPermitted, TargetNotFound, UnsupportedVersion
from ostler.messaging.call_methods import AsyncCallMethods
from ostler.messaging.rpc.core import Ask
from ostler.messaging.versions import AUTO
from ostler.types import CONTROL_TOPIC, Upgrade

_FRESH = 10.0
"""Seconds for which a client outside of the daemon keeps what the daemon told it."""


class View(Protocol):
    """What an `RpcApi` needs of a client; what blocks, and what is for the loop."""

    def ask(self, ask: Ask, retry: Any) -> Any:
        """Send a request and wait for its result."""
        ...

    async def aask(self, ask: Ask, retry: Any) -> Any:
        """Send a request and wait for its result, on the loop."""
        ...

    def stream(self, ask: Ask, credit: int) -> Any:
        """Return the stream of a method that yields."""
        ...

    def astream(self, ask: Ask, credit: int) -> Any:
        """Return the stream of a method that yields, for the loop."""
        ...

    def pin(self, topic: str) -> str:
        """Return the pin as far as it is known without asking anybody, `auto` for none; empty when it is not."""
        ...

    def of(self, topic: str, major: int) -> Upgrade:
        """Return how far a topic is in an upgrade."""
        ...

    async def aof(self, topic: str, major: int) -> Upgrade:
        """Return how far a topic is in an upgrade, on the loop."""
        ...


class ServiceView:
    """A manager's own client: both ways, and the daemon's knowledge at hand.

    Args:
        client: The client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def ask(self, ask: Ask, retry: Any) -> Any:
        """See `View.ask`."""
        return self._client.ask(ask, *_given(retry))

    async def aask(self, ask: Ask, retry: Any) -> Any:
        """See `View.aask`."""
        return await self._client.aask(ask, *_given(retry))

    def stream(self, ask: Ask, credit: int) -> Any:
        """See `View.stream`."""
        return self._client.ask_stream(ask, credit)

    def astream(self, ask: Ask, credit: int) -> Any:
        """See `View.astream`."""
        return self._client.ask_astream(ask, credit)

    def pin(self, topic: str) -> str:
        """See `View.pin`."""
        return str(self._client.upgrades.pin(topic))

    def of(self, topic: str, major: int) -> Upgrade:
        """See `View.of`."""
        found: Upgrade = self._client.upgrades.of(topic, major)
        return found

    async def aof(self, topic: str, major: int) -> Upgrade:
        """See `View.aof`."""
        found: Upgrade = await self._client.upgrades.aof(topic, major)
        return found


class _Kept(NamedTuple):
    upgrade: Upgrade
    until: float


class _Asking:
    """What a client outside of the daemon was told by it, kept for a moment."""

    def __init__(self, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._kept: dict[tuple[str, int], _Kept] = {}

    def pin(self, _topic: str) -> str:
        """See `View.pin`; a pin is the daemon's, and comes with what it says."""
        return AUTO

    def _known(self, topic: str, major: int) -> Upgrade | None:
        kept = self._kept.get((topic, major))
        return kept.upgrade if kept is not None and self._clock.monotonic() < kept.until else None

    def _keep(self, topic: str, major: int, found: Upgrade) -> Upgrade:
        self._kept[topic, major] = _Kept(found, self._clock.monotonic() + _FRESH)
        return found

    def _question(self, topic: str, major: int) -> Ask:
        return Ask(CONTROL_TOPIC, "service_versions", {"topic": topic, "major": major}, kind=list[Upgrade])

    def _unknown(self, topic: str, major: int, error: MessagingError) -> Upgrade:
        """Return that nothing is known: the daemon is older than the question, or does not answer it to us."""
        if not isinstance(error, NotPermitted | TargetNotFound):
            raise error
        return self._keep(topic, major, Upgrade(topic=topic))

    def _refused(self, error: UnsupportedVersion) -> UnsupportedVersion:
        self._kept.clear()  # what was known was wrong
        return error


class BlockingView(_Asking):
    """A `Client`: blocks.

    Args:
        client: The client.
        clock: The source of time.
    """

    def ask(self, ask: Ask, retry: Any) -> Any:
        """See `View.ask`."""
        try:
            return self._client.ask(ask, *_given(retry))
        except UnsupportedVersion as error:
            raise self._refused(error) from None

    async def aask(self, ask: Ask, retry: Any) -> Any:
        """Refuse."""
        raise _wrong_way("blocks, and this is for the loop", "call it plainly, or use an AsyncClient")

    def stream(self, ask: Ask, credit: int) -> Any:
        """See `View.stream`."""
        return self._client.ask_stream(ask, credit)

    def astream(self, ask: Ask, credit: int) -> Any:
        """Refuse."""
        raise _wrong_way("blocks, and this is for the loop", "call it plainly, or use an AsyncClient")

    def of(self, topic: str, major: int) -> Upgrade:
        """See `View.of`."""
        if (known := self._known(topic, major)) is not None:
            return known
        try:
            (found,) = self._client.ask(self._question(topic, major))
        except MessagingError as error:
            return self._unknown(topic, major, error)
        return self._keep(topic, major, found)

    async def aof(self, topic: str, major: int) -> Upgrade:
        """Refuse."""
        raise _wrong_way("blocks, and this is for the loop", "call it plainly, or use an AsyncClient")


class LoopView(_Asking):
    """An `AsyncClient`: for the loop.

    Args:
        client: The client.
        clock: The source of time.
    """

    def ask(self, ask: Ask, retry: Any) -> Any:
        """Refuse."""
        raise _wrong_way("is for the loop, and this blocks", "use `acall`, `acast` or `afanout`, or a Client")

    async def aask(self, ask: Ask, retry: Any) -> Any:
        """See `View.aask`."""
        try:
            return await self._client.ask(ask, *_given(retry))
        except UnsupportedVersion as error:
            raise self._refused(error) from None

    def stream(self, ask: Ask, credit: int) -> Any:
        """Refuse."""
        raise _wrong_way("is for the loop, and this blocks", "use `astream`, or a Client")

    def astream(self, ask: Ask, credit: int) -> Any:
        """See `View.astream`."""
        return self._client.ask_stream(ask, credit)

    def of(self, topic: str, major: int) -> Upgrade:
        """Refuse."""
        raise _wrong_way("is for the loop, and this blocks", "use `acan_send_version`, `aupgrading` and `acall`")

    async def aof(self, topic: str, major: int) -> Upgrade:
        """See `View.aof`."""
        if (known := self._known(topic, major)) is not None:
            return known
        try:
            (found,) = await self._client.ask(self._question(topic, major))
        except MessagingError as error:
            return self._unknown(topic, major, error)
        return self._keep(topic, major, found)


def view_of(client: Any, clock: Clock | None = None) -> View:
    """Return the view of a client: of a `Client`, an `AsyncClient` or a manager's, or of what `on` of one returned.

    Args:
        client: The client.
        clock: The source of time, for tests.
    """
    if hasattr(client, "aask"):
        return ServiceView(client)
    kind = LoopView if isinstance(client, AsyncCallMethods) else BlockingView
    return kind(client, clock or SystemClock())


def _given(retry: Any) -> tuple[Any, ...]:
    return () if retry is None else (retry,)


def _wrong_way(what: str, instead: str) -> RuntimeError:
    return RuntimeError(f"this client {what}; {instead}")
