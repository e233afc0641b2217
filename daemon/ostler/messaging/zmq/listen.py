"""Brings a socket to its address: bound by us, or handed over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import zmq

from ostler.errors import MessagingError
from ostler.messaging.zmq.unix import BoundSocket, path_of
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.zmq.options import Socket

_PEERS_LIMIT = 4096


def listen(socket: Socket, address: str, mode: int, fd: int | None) -> BoundSocket | None:
    """Have the socket listen; return what has to be unlinked at the end, None for a descriptor that was handed over.

    Raises:
        Conflict: Another daemon listens there.
        NotPermitted: The folder may not be written.
        InvalidInput: It is no `ipc://` address.
        MessagingError: The socket cannot be used for another reason.
    """
    path = path_of(address)
    bound = None
    if fd is None:
        bound = BoundSocket(path, mode)
        # ZeroMQ closes the descriptor from now on; if Python did as well, it would abort the process.
        fd = bound.detach()
    socket.set(zmq.USE_FD, fd)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        if bound is not None:
            os.close(fd)
            bound.unlink()
        raise MessagingError(f"{address} cannot be used: {error}", address=address) from error
    return bound


class Peers:
    """Who sent a message, from what ZeroMQ keeps of its connection.

    libzmq asks the kernel once, when the connection is made, so that this is right even if the descriptor has been
    closed and used again since.
    """

    def __init__(self) -> None:
        self._known: dict[str, Peer] = {}

    def of(self, frame: zmq.Frame) -> Peer:
        """Return the peer of a message."""
        try:
            address = str(frame.get("Peer-Address"))
        except zmq.ZMQError:  # a message of ZeroMQ's own, when a connection has ended
            return _NOBODY
        found = self._known.get(address)
        if found is None:
            if len(self._known) >= _PEERS_LIMIT:
                self._known.clear()
            found = self._known[address] = parse_peer(address)
        return found


_NOBODY = Peer()


def parse_peer(address: str) -> Peer:
    """Return the peer behind `localhost:UID:GID:PID`, which is how ZeroMQ writes the credentials of a unix socket."""
    parts = address.split(":")
    if len(parts) != 4 or parts[0] != "localhost" or not all(part.isdecimal() for part in parts[1:]):
        return _NOBODY
    uid, gid, pid = (int(part) for part in parts[1:])
    return Peer(uid, gid, pid, f"uid {uid}")
