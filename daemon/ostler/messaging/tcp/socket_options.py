"""The options of the sockets, each said outright."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import zmq

from ostler.messaging.wire.transport import TransportLimits

if TYPE_CHECKING:
    from ostler.messaging.tcp.curve import CurveOptions

    Context: TypeAlias = zmq.Context[zmq.Socket[bytes]]
    Socket: TypeAlias = zmq.Socket[bytes]

LINGER_MILLISECONDS = 500
"""Milliseconds that what was sent last may take to leave after a close."""

HARD_SIZE_FACTOR = 2
"""A message above the limit is refused by name; one above this many times the limit costs its sender the connection."""

NOBLOCK = int(zmq.NOBLOCK)
SNDMORE_NOBLOCK = int(zmq.SNDMORE | zmq.NOBLOCK)


def set_socket_options(socket: Socket, limits: TransportLimits, curve: CurveOptions | None = None) -> None:
    """Set what all sockets have in common, and what one on a network needs. Before bind or connect."""
    socket.set(zmq.LINGER, LINGER_MILLISECONDS)
    socket.set(zmq.MAXMSGSIZE, limits.max_message_size * HARD_SIZE_FACTOR)
    socket.set(zmq.SNDHWM, limits.max_queued)
    socket.set(zmq.RCVHWM, limits.max_queued)
    # A connection that does not speak ZeroMQ is closed after this many milliseconds.
    socket.set(zmq.HANDSHAKE_IVL, 5000)
    # A client that has lost its server says so to its callers and reconnects with the next call; going on quietly
    # would send requests to a server that does not know the calls before them. This is an hour, and not -1 (never):
    # with -1 a socket that loses its connection throws away what had come and was not read yet.
    socket.set(zmq.RECONNECT_IVL, 3_600_000)
    if curve is not None:
        from ostler.messaging.tcp.curve import apply_curve_options  # only with keys

        apply_curve_options(socket, curve)
