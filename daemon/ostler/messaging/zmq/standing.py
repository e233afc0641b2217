"""The subscribers that stand, by the descriptors of their connections: to let go those who lose their role."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from ostler.types import Peer


class _Connection(NamedTuple):
    peer: Peer
    far_end: object


class Standing:
    """Who has subscribed over which connection. On the loop's thread only.

    A descriptor may be closed and used again at any time, by ZeroMQ's own thread. So each is kept with what the kernel
    says of its far end, and is looked at again through a duplicate, which nobody else closes.
    """

    def __init__(self) -> None:
        self._connections: dict[int, _Connection] = {}

    def note(self, descriptor: int, peer: Peer) -> None:
        """Take note of a subscriber. Entries are as few as there are descriptors."""
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            self._connections[descriptor] = _Connection(peer, _far_end(connection))

    def keep_only(self, allowed: Callable[[Peer], bool]) -> None:
        """Cut the connections of those who are not allowed any more."""
        for descriptor, (peer, far_end) in list(self._connections.items()):
            if allowed(peer):
                continue
            del self._connections[descriptor]
            with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
                if _far_end(connection) == far_end:
                    connection.shutdown(socket.SHUT_RDWR)


def _far_end(connection: socket.socket) -> Any:
    return connection.getpeername()
