"""Combines several publishers' ends: events go to the subscribers of this host and of others."""

from __future__ import annotations

from collections.abc import Callable

from ostler.messaging.wire.transport import EventHandler, EventLink
from ostler.types import Peer


class CompositeEventLink:
    """The publisher's ends of several transports; implements `EventLink`. On the loop's thread only.

    Args:
        links: The ends; the address is that of the first.
    """

    def __init__(self, *links: EventLink) -> None:
        self.address = links[0].address
        self._links = links

    @property
    def has_subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return any(link.has_subscribers for link in self._links)

    def start(self, handler: EventHandler) -> None:
        """See `EventLink.start`."""
        for link in self._links:
            link.start(handler)

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        for link in self._links:
            link.publish(data)

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.disconnect_unless`."""
        for link in self._links:
            link.disconnect_unless(allowed)

    def close(self) -> None:
        """See `EventLink.close`."""
        for link in self._links:
            link.close()
