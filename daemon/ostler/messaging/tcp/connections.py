"""The connections to our ports as the kernel knows them: their descriptors are ZeroMQ's, and only looked at here."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ostler.messaging.tcp.sessions import TcpSession

_TCP_INFO_SIZE = 160
_COUNTERS_STRUCT = struct.Struct("=QQ")
_COUNTERS_OFFSET = 120
"""Where `struct tcp_info` has the bytes that were acknowledged, and those that were received."""
_SIOCOUTQ = 0x5411
"""The `ioctl` that says how many bytes the kernel holds because the other side has not acknowledged them."""


class ConnectionCounters(NamedTuple):
    """What has gone over a connection since it was made.

    Attributes:
        received_bytes: Bytes that came.
        sent_bytes: Bytes that the kernel was given to send.
        unacked_bytes: Those of them that the other side has not acknowledged yet.
    """

    received_bytes: int
    sent_bytes: int
    unacked_bytes: int


class TcpConnection:
    """One connection. On the loop's thread only.

    A descriptor may be closed and used again at any time, by ZeroMQ's own thread. So it is kept with what the kernel
    says of its far end, and looked at through a duplicate, which nobody else closes.

    Args:
        descriptor: The descriptor, which belongs to ZeroMQ.
        opened_at: When the connection was made, by the clock of who counts it.
    """

    __slots__ = ("descriptor", "opened_at", "remote_address", "session")

    def __init__(self, descriptor: int, opened_at: float) -> None:
        self.descriptor = descriptor
        self.opened_at = opened_at
        self.session: TcpSession | None = None
        """Whose connection it is; None until it has proved its key."""
        self.remote_address: Any = None
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            self.remote_address = connection.getpeername()

    @property
    def address(self) -> str:
        """The address of the far end; empty for a connection that had gone when it was looked at."""
        return str(self.remote_address[0]) if self.remote_address else ""

    def shutdown(self) -> None:
        """End the connection."""
        with suppress(OSError), self._duplicate_socket() as connection:
            connection.shutdown(socket.SHUT_RDWR)

    def read_counters(self) -> ConnectionCounters | None:
        """Return what has gone over it; None when it has gone."""
        try:
            with self._duplicate_socket() as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
                waiting = array.array("i", [0])
                fcntl.ioctl(connection, _SIOCOUTQ, waiting)
        except OSError:
            return None
        if len(info) < _COUNTERS_OFFSET + _COUNTERS_STRUCT.size:
            return None
        acknowledged, received = _COUNTERS_STRUCT.unpack_from(info, _COUNTERS_OFFSET)
        return ConnectionCounters(received, acknowledged + waiting[0], waiting[0])

    @contextmanager
    def _duplicate_socket(self) -> Iterator[socket.socket]:
        with socket.socket(fileno=os.dup(self.descriptor)) as connection:
            if not self.remote_address or connection.getpeername() != self.remote_address:
                raise ConnectionResetError("the descriptor belongs to another connection now")
            yield connection
