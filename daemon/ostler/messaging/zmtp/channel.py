"""A connected stream socket on the loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

_log = logging.getLogger(__name__)
_CHUNK = 64 * 1024
"""Bytes read at once: a client that sends without end holds up the others for that much work, and no more."""
_STUCK = 4 * 1024 * 1024
"""Bytes that may wait for one who takes nothing, and bytes that are sent at once."""
_MOST = 256 * 1024 * 1024
"""Bytes that may wait for one who reads: many calls at once may have large results."""
_ALL = 512 * 1024 * 1024
"""Bytes that may wait for all who share; beyond that, whoever has more than a little waiting gets no more."""
_PATIENCE = 2.0
"""Seconds after which one who has taken nothing does not read."""


class Shared:
    """What the channels of one listener, or of one client, share: where they read into, and how much waits in all."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_CHUNK))
        self.unsent = 0


class Channel:
    """Reads and writes a socket from the loop; on the loop's thread only.

    Args:
        connected: The connected socket; it is closed with the channel.
        on_data: Told what has come.
        on_end: Told once when the other side has gone, after what it had sent.
        shared: What it shares with others on the same loop.
        on_drained: Told when nothing waits to be sent any more.
    """

    def __init__(
        self,
        connected: socket.socket,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None],
        shared: Shared,
        on_drained: Callable[[], None] | None = None,
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._on_data = on_data
        self._on_end = on_end
        self._on_drained = on_drained
        self._shared = shared
        self._view = shared.view
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._moved_at = 0.0
        self._held: list[bytes] | None = None
        self._closed = False
        self._loop.add_reader(connected.fileno(), self._readable)

    @property
    def waiting(self) -> bool:
        """Whether something waits because the other side does not read."""
        return bool(self._waiting)

    @property
    def unsent(self) -> int:
        """How many bytes wait because the other side does not read."""
        return len(self._waiting)

    @property
    def stuck(self) -> bool:
        """Whether so much waits to be sent that nothing more should be."""
        waiting = len(self._waiting)
        if waiting <= _STUCK:
            return False
        too_much = waiting > _MOST or self._shared.unsent > _ALL
        return too_much or self._loop.time() - self._moved_at > _PATIENCE

    def write(self, data: bytes) -> None:
        """Send, as far as that goes now; the rest waits."""
        if self._held is not None:
            self._held.append(data)
        elif self._waiting:
            self._keep(data)
        elif not self._closed:
            self._send(data)

    def write_soon(self, data: bytes) -> None:
        """Send at once, and what else is written in this turn of the loop together at its end."""
        if self._held is None:
            self.write(data)
            self._held = []
            self._loop.call_soon(self.let_go)
        else:
            self._held.append(data)

    def hold(self) -> None:
        """Keep what is written until `let_go`: one message to the kernel costs as much as forty."""
        if self._held is None:
            self._held = []

    def let_go(self) -> None:
        """Send what was held."""
        held, self._held = self._held, None
        if held:
            self.write(b"".join(held) if len(held) > 1 else held[0])

    def close(self) -> None:
        """Close at once; what is in the kernel's hands still goes out. May be called twice."""
        if self._closed:
            return
        self.let_go()
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        if self._waiting:
            self._loop.remove_writer(self._socket.fileno())
            self._shared.unsent -= len(self._waiting)
            self._waiting.clear()
        self._socket.close()

    def _readable(self) -> None:
        try:
            size = self._socket.recv_into(self._view)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if not size:
            self._ended()
            return
        try:
            self._on_data(bytes(self._view[:size]))
        except MemoryError:
            self._out_of_memory()

    def _send(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            # What the other side sent before it went is still to be read; that tells of its end as well.
            return
        if sent < len(data):
            try:
                self._keep(memoryview(data)[sent:])
            except MemoryError:
                # Not at once: whoever writes has more to do with this connection.
                self._loop.call_soon(self._out_of_memory)
                return
            self._moved_at = self._loop.time()
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _keep(self, data: bytes | memoryview) -> None:
        self._waiting += data
        self._shared.unsent += len(data)

    def _writable(self) -> None:
        try:
            sent = self._socket.send(memoryview(self._waiting)[:_STUCK])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            sent = len(self._waiting)
        self._moved_at = self._loop.time()
        del self._waiting[:sent]
        self._shared.unsent -= sent
        if not self._waiting:
            self._loop.remove_writer(self._socket.fileno())
            if self._on_drained is not None:
                self._on_drained()

    def _out_of_memory(self) -> None:
        """Give this connection up: a part of what it carries is missing, and what follows would be read as another."""
        if not self._closed:
            _log.warning("a connection was given up, there is no memory for what it carries")
            self._ended()

    def _ended(self) -> None:
        self.close()
        self._on_end()
