"""Brings a server's socket to its port, and tells who is at the other end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import zmq

from ostler.errors import InvalidInput, MessagingError
from ostler.messaging.transport import Limits
from ostler.messaging.zmq.curve import DOMAIN, Network
from ostler.messaging.zmq.options import set_options
from ostler.messaging.zmq.tcp import BoundPort
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.zmq.options import Socket
    from ostler.messaging.zmq.zap import Door, Watch

_PEERS_LIMIT = 4096


class Listening(NamedTuple):
    """How a server's socket listens.

    Attributes:
        limits: What it takes.
        network: The keys and times of a `tcp://` address.
        door: Decides who may connect; None to let everybody in who can.
        before: The listener whose port is taken over.
    """

    limits: Limits
    network: Network | None = None
    door: Door | None = None
    before: BoundPort | None = None


class Entrance:
    """A server's socket at its address.

    Args:
        socket: The socket, with every option of its own kind set.
        address: Where to listen.
        how: The rest.

    Raises:
        Conflict: Another daemon listens there.
        NotPermitted: The folder may not be written, or the port not be used.
        InvalidInput: It is no address to listen on.
        MessagingError: The socket cannot be used for another reason.
    """

    def __init__(self, socket: Socket, address: str, how: Listening) -> None:
        self.peers = Peers(how.door.names if how.door is not None else {})
        set_options(socket, how.limits, how.network)
        if how.network is None:
            raise InvalidInput(f"{address} cannot be listened on without a key", hint="see `secret_key` in [network]")
        self.bound = BoundPort(address, how.before)
        self.address, fd = self.bound.address, self.bound.descriptor()
        self.watch: Watch | None = None
        if how.door is not None:
            self.watch = how.door.watch(socket, address)
            socket.set(zmq.ZAP_DOMAIN, DOMAIN)
        self._bind(socket, fd)

    def _bind(self, socket: Socket, fd: int) -> None:
        socket.set(zmq.USE_FD, fd)
        try:
            socket.bind(self.address)
        except zmq.ZMQError as error:
            os.close(fd)
            self.close()
            raise MessagingError(f"{self.address} cannot be used: {error}", address=self.address) from error

    def close(self) -> None:
        """Let go of the address. Before the socket is closed."""
        if self.watch is not None:
            self.watch.close()
        self.bound.unlink()


class Peers:
    """Who sent a message over a network: the key that its connection has proved to hold.

    Args:
        names: The names of public keys; others are shown by their first characters.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._known: dict[str, Peer] = {}
        self._by_id: dict[bytes, Peer] = {}

    def changed(self, client: bytes, peer: Peer) -> bool:
        """Take note of who has a routing id; return whether it was somebody else before.

        ZeroMQ gives each connection an id of its own, but lets a client choose another, such as that of one who has
        gone. So an id says nothing of who sends a message.
        """
        before = self._by_id.pop(client, peer)
        if len(self._by_id) >= _PEERS_LIMIT:
            del self._by_id[next(iter(self._by_id))]
        self._by_id[client] = peer
        return before is not peer and before.key != peer.key

    def __contains__(self, client: bytes) -> bool:
        return client in self._by_id

    def of(self, frame: zmq.Frame) -> Peer:
        """Return the peer of a message."""
        try:
            key = str(frame.get("User-Id"))
        except zmq.ZMQError:  # a message of ZeroMQ's own, when a connection has ended
            return _NOBODY
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _PEERS_LIMIT:
                self._known.clear()
            found = self._known[key] = Peer(name=f"key:{self._names.get(key) or f'{key[:8]}…'}", key=key)
        return found


_NOBODY = Peer()
