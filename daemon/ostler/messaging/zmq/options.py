"""The options of the sockets, each said outright."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import zmq

from ostler.messaging.transport import Limits

if TYPE_CHECKING:
    from ostler.messaging.zmq.curve import Network

    Context: TypeAlias = zmq.Context[zmq.Socket[bytes]]
    Socket: TypeAlias = zmq.Socket[bytes]

LINGER = 500
"""Milliseconds that what was sent last may take to leave after a close."""

HARD_SIZE_FACTOR = 2
"""A message above the limit is refused by name; one above this many times the limit costs its sender the connection."""

NOBLOCK = int(zmq.NOBLOCK)
SNDMORE_NOBLOCK = int(zmq.SNDMORE | zmq.NOBLOCK)


def set_options(socket: Socket, limits: Limits, network: Network | None = None) -> None:
    """Set what all sockets have in common, and what one on a network needs. Before bind or connect."""
    socket.set(zmq.LINGER, LINGER)
    socket.set(zmq.MAXMSGSIZE, limits.max_message_size * HARD_SIZE_FACTOR)
    socket.set(zmq.SNDHWM, limits.queue)
    socket.set(zmq.RCVHWM, limits.queue)
    # A connection that does not speak ZeroMQ is closed after this many milliseconds.
    socket.set(zmq.HANDSHAKE_IVL, 5000)
    # A client that has lost its server says so to its callers and connects anew with the next call; going on quietly
    # would send requests to a server that does not know the calls before them. This is an hour, and not -1 (never):
    # with -1 a socket that loses its connection throws away what had come and was not read yet.
    socket.set(zmq.RECONNECT_IVL, 3_600_000)
    if network is not None:
        from ostler.messaging.zmq.curve import secure

        secure(socket, network)
