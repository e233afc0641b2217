"""Subscribers within the daemon: what is published reaches them without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ostler.messaging.events.event import KEY_TERMINATOR
from ostler.messaging.wire.transport import CONTROL_PREFIX, EventHandler, OnLost, OnMessage
from ostler.types import LOCAL_PEER, Peer


class LocalEventLink:
    """An end of the publisher for subscribers on the same loop; implements `EventLink`. On the loop's thread only."""

    address = "local"

    def __init__(self) -> None:
        self._handler: EventHandler | None = None
        self._subscribers: dict[LocalSubscriber, None] = {}

    @property
    def has_subscribers(self) -> bool:
        """See `EventLink.has_subscribers`."""
        return bool(self._subscribers)

    def start(self, handler: EventHandler) -> None:
        """See `EventLink.start`."""
        self._handler = handler

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`. Nothing is dropped here: each subscriber has a limit of its own."""
        for subscriber in list(self._subscribers):
            if data.startswith(subscriber.prefixes):
                subscriber.on_message(data)

    def subscribe_async(self, prefixes: Iterable[bytes], on_message: OnMessage, on_lost: OnLost) -> LocalSubscriber:
        """Return a subscription, which has been answered before this returns; see `Transport.subscribe_async`."""
        del on_lost  # the daemon cannot lose itself
        wanted = list(prefixes)
        plain = tuple(prefix for prefix in wanted if not prefix.startswith(CONTROL_PREFIX))
        subscriber = LocalSubscriber(plain, on_message, lambda: self._subscribers.pop(subscriber, None))
        self._subscribers[subscriber] = None
        assert self._handler is not None  # noqa: S101 - the publisher was started
        for question in (prefix for prefix in wanted if prefix.startswith(CONTROL_PREFIX)):
            for part in self._handler.answer_question(LOCAL_PEER, question):
                on_message(question + KEY_TERMINATOR + part)
        return subscriber

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.disconnect_unless`: the daemon itself is always allowed."""

    def close(self) -> None:
        """See `EventLink.close`."""
        self._subscribers.clear()


class LocalSubscriber:
    """One subscription within the daemon; implements `AsyncLink`."""

    def __init__(self, prefixes: tuple[bytes, ...], on_message: OnMessage, on_close: Callable[[], object]) -> None:
        self.prefixes = prefixes
        self.on_message = on_message
        self._on_close = on_close

    def send(self, data: bytes) -> None:
        """Send nothing: a subscriber has nothing to say."""

    def close(self) -> None:
        """See `AsyncLink.close`."""
        self._on_close()

    def close_after_fork(self) -> None:
        """See `AsyncLink.close_after_fork`."""
        self._on_close()
