"""A connected stream socket on the loop."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ostler.messaging.zmtp.send_queue import SendQueue

if TYPE_CHECKING:
    from ostler.messaging.memory_accounts import MemoryAccount

_log = logging.getLogger(__name__)
CHUNK = 64 * 1024
"""Bytes read at once: a client that sends without end holds up the others for that much work, and no more."""
_STUCK = 4 * 1024 * 1024
"""Bytes that may wait for one who takes nothing."""
CONGESTED = 1024 * 1024
"""Bytes that wait, above which nothing more is made for one who does not read."""
_PATIENCE = 2.0
"""Seconds after which one who has taken nothing does not read."""


class Shared:
    """What the channels of one listener, or of one client, share: where they read into."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(CHUNK))


class Channel:
    """Reads and writes a socket from the loop; on the loop's thread only, but for `write_from_thread`.

    Whoever writes to the socket or closes it holds `_sending`. The loop never waits for it: what it has to send while a
    thread does is put into `_later`, and the thread has the loop look there when it is done. So a thread that is not
    given the interpreter holds up its own connection, and nobody else's.

    Args:
        connected: The connected socket; it is closed with the channel.
        on_data: Told what has come.
        on_end: Told once when the other side has gone, after what it had sent.
        shared: What it shares with others on the same loop.
        on_drained: Told when nothing waits to be sent any more.
        memory: Who is charged for what waits to be sent; None for nobody.
        on_readable: Called instead of `on_data` when there is something to `read`.
    """

    def __init__(
        self,
        connected: socket.socket,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None],
        shared: Shared,
        on_drained: Callable[[], None] | None = None,
        *,
        memory: MemoryAccount | None = None,
        on_readable: Callable[[], None] | None = None,
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._on_data = on_data
        self._on_end = on_end
        self._on_drained = on_drained
        self._view = shared.view
        self._loop = asyncio.get_running_loop()
        self._waiting = SendQueue(memory)
        self._moved_at = 0.0
        self._held: list[bytes] | None = None
        self._closed = False
        self._sending = threading.Lock()
        self._later: deque[bytes] = deque()
        self._on_readable = on_readable or self._readable
        self._paused = False
        self._hangup: select.poll | None = None
        self._loop.add_reader(connected.fileno(), self._on_readable)

    @property
    def waiting(self) -> bool:
        """Whether something waits because the other side does not read."""
        return bool(self._waiting)

    @property
    def paused(self) -> bool:
        """Whether what comes waits in the kernel."""
        return self._paused

    @property
    def unsent(self) -> int:
        """How many bytes wait because the other side does not read."""
        return self._waiting.unsent

    @property
    def stuck(self) -> bool:
        """Whether so much waits to be sent that nothing more should be."""
        return self._waiting.unsent > _STUCK and self._loop.time() - self._moved_at > _PATIENCE

    def write(self, data: bytes) -> None:
        """Send, as far as that goes now; the rest waits."""
        if self._held is not None:
            self._held.append(data)
        elif self._later or not self._sending.acquire(blocking=False):
            self._later.append(data)
            self._send_later()
        else:
            try:
                self._put(data)
            finally:
                self._sending.release()

    def write_large(self, head: bytes, body: bytes) -> None:
        """Send a large message, in two parts that are not put together, after what is held."""
        held, self._held = self._held, None
        self.write(b"".join((*held, head)) if held else head)
        self.write(body)
        if held is not None:
            self._held = []

    def write_from_thread(self, data: bytes, claim: Callable[[], bool]) -> bool:
        """Send at once, if nothing waits to go out before; what does not fit goes to the loop. Any other thread.

        Args:
            data: A whole message.
            claim: Asked last, when nothing can come between any more, whether to send it.

        Returns:
            Whether it was sent, or its receiver has gone; if not, `claim` was not asked or refused.
        """
        if not self._sending.acquire(blocking=False):
            return False
        try:
            if self._closed or self._waiting or self._held or self._later or not claim():
                return False
            self._send_from_thread(data)
        finally:
            self._sending.release()
            self._after_thread()
        return True

    def _send_from_thread(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # as in `_send`
        if sent < len(data):
            self._later.appendleft(data[sent:])  # before what the loop has put there meanwhile

    def _after_thread(self) -> None:
        """Have the loop do what it could not while this thread was sending."""
        if not self._later and not self._closed:
            return
        try:
            self._loop.call_soon_threadsafe(self._send_later)
        except RuntimeError:  # the loop has closed; nobody is left to read or write, but the descriptor is to be freed
            if self._closed:
                self._send_later()

    def _send_later(self) -> None:
        """Send what came while a thread was sending, and close the socket if it was closed meanwhile."""
        if not self._sending.acquire(blocking=False):
            return  # the thread asks for it again when it is done
        try:
            if self._closed:
                self._close_socket()
            while self._later:
                self._put(self._later.popleft())
        finally:
            self._sending.release()

    def _put(self, data: bytes) -> None:
        if self._waiting:
            self._waiting.append(data)
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
            self._waiting.clear()
        # Not while a thread sends: another connection might get the number of the descriptor.
        self._send_later()

    def abandon(self) -> None:
        """Close the socket in a process that was forked: the loop, and the epoll it waits in, are the parent's."""
        self._closed = True
        self._waiting.clear()
        self._socket.close()

    def _close_socket(self) -> None:
        """Close, after what still goes out at once; with the lock."""
        if self._later:
            last = b"".join(self._later)
            self._later.clear()
            try:
                self._socket.send(last)
            except OSError:
                pass  # it has gone, or does not read; who closes does not wait for that
        self._socket.close()

    def read(self) -> bytes | None:
        """Return what has come, up to `CHUNK` bytes; None for nothing yet, empty bytes at the end."""
        try:
            size = self._socket.recv_into(self._view)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""
        return bytes(self._view[:size])

    def pause(self) -> None:
        """Have what comes wait in the kernel, which in the end holds up the sender."""
        if not self._paused and not self._closed:
            self._paused = True
            self._loop.remove_reader(self._socket.fileno())

    def resume(self) -> None:
        """Look for what comes again."""
        if self._paused and not self._closed:
            self._paused = False
            self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def hung_up(self) -> bool:
        """Return whether the other side has gone, whatever it sent before and has not been read."""
        if self._hangup is None:
            self._hangup = select.poll()
            self._hangup.register(self._socket, select.POLLRDHUP)
        return bool(self._hangup.poll(0))

    def _readable(self) -> None:
        try:
            data = self.read()
            if data:
                self._on_data(data)
        except MemoryError:
            self._out_of_memory()
            return
        if data == b"":
            self._ended()

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
                self._waiting.append(memoryview(data)[sent:])
            except MemoryError:
                # Not at once: whoever writes has more to do with this connection.
                self._loop.call_soon(self._out_of_memory)
                return
            self._moved_at = self._loop.time()
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _writable(self) -> None:
        try:
            self._waiting.send(self._socket)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._waiting.clear()
        self._moved_at = self._loop.time()
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
