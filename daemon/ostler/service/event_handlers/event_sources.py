"""Where events come from: this daemon, without a socket, or another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ostler.errors import DaemonNotRunning
from ostler.messaging.events.async_event_stream import AsyncEventStream
from ostler.messaging.events.event import Event
from ostler.messaging.events.event_publisher import CompositeEventLink
from ostler.messaging.events.local_event_link import LocalEventLink
from ostler.messaging.events.subscription import make_subscription
from ostler.service.event_journal import journal_page, journal_topics
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.messaging import Publisher
    from ostler.messaging.network.routing import Router
    from ostler.store import Store

_decode_event = msgspec.msgpack.Decoder(Event).decode


class EventSource(Protocol):
    """The events of one host. On the loop."""

    host: str

    def open(self, patterns: Sequence[str], since: list[Event], queue: int) -> AsyncEventStream:
        """Return the events after those that were seen last, one of a topic; of other topics, those from now on.

        Raises:
            OstlerError: The host cannot be reached.
        """
        ...

    async def request(self, method: str, arguments: dict[str, Any], kind: Any) -> Any:
        """Ask the host's daemon about its journal; raises as a call does."""
        ...


class LocalEvents:
    """The events of this daemon.

    Args:
        publisher: What publishes them.
        store: Where its journal is.
        clock: The source of time.
    """

    def __init__(self, publisher: Publisher, store: Store, clock: Clock) -> None:
        self.host = publisher.host
        self._store = store
        self._clock = clock
        self._link: Any = LocalEventLink()
        self._link.start(publisher)
        publisher.link = CompositeEventLink(publisher.link, self._link)

    def open(self, patterns: Sequence[str], since: list[Event], queue: int) -> AsyncEventStream:
        """See `EventSource.open`."""
        subscription, replay = make_subscription(patterns, since or None, last=False)
        return AsyncEventStream(
            self._link, subscription, lambda _stream: None,
            call_method=self.request, replay=replay, refetch=True, max_waiting_events=queue,
        )  # fmt: skip

    async def request(self, method: str, arguments: dict[str, Any], kind: Any) -> Any:
        """See `EventSource.request`."""
        del kind
        if method == "event_topics":
            return await journal_topics(self._store, self._clock, self.host)
        page = await journal_page(self._store, self._clock, self.host, **arguments)
        events: Any = page.events  # as they are stored
        return msgspec.structs.replace(page, events=[_decode_event(event) for event in events])


class PeerEvents:
    """The events of another daemon, over the link to it.

    Args:
        router: Has the links.
        host: The name of that daemon.
    """

    def __init__(self, router: Router, host: str) -> None:
        self.host = host
        self._router = router

    def _client(self) -> Any:
        peers = self._router.peers
        peer = peers.peers.get(self.host) if peers is not None else None
        if peer is None:
            raise DaemonNotRunning(f"host {self.host} is not a peer any more", host=self.host)
        if not peer.up:
            raise peer.unreachable_error()
        return peer.client

    def open(self, patterns: Sequence[str], since: list[Event], queue: int) -> AsyncEventStream:
        """See `EventSource.open`."""
        stream: AsyncEventStream = self._client().events(
            *patterns, since=since or None, refetch=True, max_waiting=queue
        )
        return stream

    async def request(self, method: str, arguments: dict[str, Any], kind: Any) -> Any:
        """See `EventSource.request`."""
        return await self._client().on(type=kind).call(CONTROL_TOPIC, method, **arguments)
