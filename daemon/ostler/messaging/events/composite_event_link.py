"""Combines several publishers' ends: events go to the subscribers of this host and of others."""

from __future__ import annotations

from collections.abc import Callable

from ostler.messaging.wire.transport import ALLOW_ALL, Admission, EventLink, OnInvalidMessage, ignore_invalid_message
from ostler.types import Peer


class CompositeEventLink:
    """The publisher's ends of several transports; implements `EventLink`. On the loop's thread only.

    Args:
        links: The ends; the address is that of the first.
    """

    def __init__(self, *links: EventLink) -> None:
        self.address = links[0].address
        self._links = links
        self._on_invalid_message: OnInvalidMessage = ignore_invalid_message
        self._admission = ALLOW_ALL

    @property
    def on_invalid_message(self) -> OnInvalidMessage:
        """Called for an invalid subscription."""
        return self._on_invalid_message

    @on_invalid_message.setter
    def on_invalid_message(self, told: OnInvalidMessage) -> None:
        self._on_invalid_message = told
        for link in self._links:
            link.on_invalid_message = told

    @property
    def admission(self) -> Admission:
        """See `EventLink.admission`."""
        return self._admission

    @admission.setter
    def admission(self, admission: Admission) -> None:
        self._admission = admission
        for link in self._links:
            link.admission = admission

    @property
    def has_subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return any(link.has_subscribers for link in self._links)

    def start(self, admit: Callable[[Peer], bool], answer: Callable[[Peer, bytes], list[bytes]]) -> None:
        """See `EventLink.start`."""
        for link in self._links:
            link.start(admit, answer)

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
