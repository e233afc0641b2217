"""The connections to our ports as the kernel knows them: their descriptors are ZeroMQ's, and only looked at here."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ostler.messaging.zmq.sessions import Session

_INFO_SIZE = 160
_COUNTERS = struct.Struct("=QQ")
_COUNTERS_AT = 120
"""Where `struct tcp_info` has the bytes that were acknowledged, and those that were received."""
_SIOCOUTQ = 0x5411
"""The `ioctl` that says how many bytes the kernel holds because the other side has not acknowledged them."""


class Traffic(NamedTuple):
    """What has gone over a connection since it was made.

    Attributes:
        received: Bytes that came.
        taken: Bytes that the kernel was given to send.
        waiting: Those of them that the other side has not acknowledged yet.
    """

    received: int
    taken: int
    waiting: int


class Connection:
    """One connection. On the loop's thread only.

    A descriptor may be closed and used again at any time, by ZeroMQ's own thread. So it is kept with what the kernel
    says of its far end, and looked at through a duplicate, which nobody else closes.

    Args:
        descriptor: The descriptor, which belongs to ZeroMQ.
        since: When the connection was made, by the clock of who counts it.
    """

    __slots__ = ("descriptor", "far_end", "session", "since")

    def __init__(self, descriptor: int, since: float) -> None:
        self.descriptor = descriptor
        self.since = since
        self.session: Session | None = None
        """Whose connection it is; None until it has proved its key."""
        self.far_end: Any = None
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            self.far_end = connection.getpeername()

    @property
    def address(self) -> str:
        """The address of the far end; empty for a connection that had gone when it was looked at."""
        return str(self.far_end[0]) if self.far_end else ""

    def shut_down(self) -> None:
        """End the connection."""
        with suppress(OSError), self._opened() as connection:
            connection.shutdown(socket.SHUT_RDWR)

    def traffic(self) -> Traffic | None:
        """Return what has gone over it; None when it has gone."""
        import array
        import fcntl

        try:
            with self._opened() as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
                waiting = array.array("i", [0])
                fcntl.ioctl(connection, _SIOCOUTQ, waiting)
        except OSError:
            return None
        if len(info) < _COUNTERS_AT + _COUNTERS.size:
            return None
        acknowledged, received = _COUNTERS.unpack_from(info, _COUNTERS_AT)
        return Traffic(received, acknowledged + waiting[0], waiting[0])

    @contextmanager
    def _opened(self) -> Iterator[socket.socket]:
        with socket.socket(fileno=os.dup(self.descriptor)) as connection:
            if not self.far_end or connection.getpeername() != self.far_end:
                raise ConnectionResetError("the descriptor belongs to another connection now")
            yield connection
