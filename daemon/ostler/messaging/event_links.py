"""Several publisher's ends as one: events go to the subscribers of this host and of others."""

from __future__ import annotations

from collections.abc import Callable

from ostler.messaging.transport import EVERYBODY, Admission, EventLink, OnGarbage, ignore_garbage
from ostler.types import Peer


class EventLinks:
    """The publisher's ends of several transports; implements `EventLink`. On the loop's thread only.

    Args:
        links: The ends; the address is that of the first.
    """

    def __init__(self, *links: EventLink) -> None:
        self.address = links[0].address
        self._links = links
        self._on_garbage: OnGarbage = ignore_garbage
        self._admission = EVERYBODY

    @property
    def on_garbage(self) -> OnGarbage:
        """Told of what is no subscription."""
        return self._on_garbage

    @on_garbage.setter
    def on_garbage(self, told: OnGarbage) -> None:
        self._on_garbage = told
        for link in self._links:
            link.on_garbage = told

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
    def subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return any(link.subscribers for link in self._links)

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
