"""A connected stream socket on the loop, with the queue of what waits to be sent."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ostler.messaging.wire.transport import TransportLimits

if TYPE_CHECKING:
    from ostler.messaging.wire.peer_quotas import MemoryAccount


LARGE_PIECE_SIZE = 64 * 1024
"""Bytes of a piece from which on it is kept as it is; what is smaller is put together."""
_MAX_SEND_PIECES, _MAX_SEND_BYTES = 16, 4 * 1024 * 1024
"""Pieces and bytes that are given to the kernel at once."""


class SendQueue:
    """Bytes in their order. Large pieces are not copied, neither when they come nor when a part of them has gone.

    Args:
        memory: The account that is charged for what waits, with the whole of a piece until all of it has been sent;
            None for nobody.
    """

    __slots__ = ("_memory", "_pieces", "_tail", "unsent_bytes")

    def __init__(self, memory: MemoryAccount | None = None) -> None:
        self._memory = memory
        self._pieces: deque[memoryview] = deque()
        self._tail = bytearray()
        self.unsent_bytes = 0
        """Bytes that have not been sent."""

    def __bool__(self) -> bool:
        return self.unsent_bytes > 0

    def append(self, data: bytes | memoryview) -> None:
        """Put a piece behind what waits; one of the size `LARGE_PIECE_SIZE` may not change any more."""
        if len(data) >= LARGE_PIECE_SIZE:
            self._close_tail()
            self._pieces.append(memoryview(data))
            if self._memory is not None:
                self._memory.charge_shared(self._pieces[-1].obj)  # type: ignore[arg-type]  # bytes
        else:
            self._tail += data
            if self._memory is not None:
                self._memory.charge(len(data))
        self.unsent_bytes += len(data)

    def send(self, connected: socket.socket) -> None:
        """Send what the kernel takes now.

        Raises:
            OSError: Nothing can be sent; `BlockingIOError` for not now.
        """
        if not self._pieces:
            self._close_tail()
        pieces: list[memoryview] = []
        size = 0
        for piece in self._pieces:
            if size >= _MAX_SEND_BYTES or len(pieces) == _MAX_SEND_PIECES:
                break
            pieces.append(piece[: _MAX_SEND_BYTES - size])
            size += len(pieces[-1])
        self._drop_sent(connected.sendmsg(pieces))

    def clear(self) -> None:
        """Forget all of it."""
        self._close_tail()
        while self._pieces:
            self._remove_first()
        self.unsent_bytes = 0

    def _close_tail(self) -> None:
        """Begin a new tail: one that is being sent can grow no more."""
        if self._tail:
            self._pieces.append(memoryview(self._tail))
            self._tail = bytearray()

    def _drop_sent(self, sent: int) -> None:
        self.unsent_bytes -= sent
        while sent:
            piece = self._pieces[0]
            if sent < len(piece):
                self._pieces[0] = piece[sent:]
                return
            sent -= len(piece)
            self._remove_first()

    def _remove_first(self) -> None:
        whole = self._pieces.popleft().obj
        if self._memory is None:
            return
        if isinstance(whole, bytearray):
            self._memory.release(len(whole))
        else:
            self._memory.release_shared(whole)  # type: ignore[arg-type]  # bytes


_log = logging.getLogger(__name__)
_DEFAULT_LIMITS = TransportLimits()
CHUNK_SIZE = 64 * 1024
"""Bytes read at once: a client that sends without end holds up the others for that much work, and no more."""
CONGESTION_LIMIT = 1024 * 1024
"""Bytes that wait, above which nothing more is made for one who does not read."""


class SharedBuffers:
    """What the channels of one listener, or of one client, share: where they read into."""

    def __init__(self) -> None:
        self.receive_buffer = memoryview(bytearray(CHUNK_SIZE))


class SocketStream:
    """Reads and writes a socket from the loop; on the loop's thread only, but for `write_from_thread`.

    Whoever writes to the socket or closes it holds `_send_lock`. The loop never waits for it: what it has to send
    while a
    thread does is put into `_deferred`, and the thread has the loop look there when it is done. So a thread that is not
    given the interpreter holds up its own connection, and nobody else's.

    Args:
        connected: The connected socket; it is closed with the channel.
        on_data: Told what has come.
        on_closed: Told once when the other side has gone, after what it had sent.
        buffers: What it shares with others on the same loop.
        on_drained: Told when nothing waits to be sent any more.
        memory: The account that is charged for what waits to be sent; None for nobody.
        on_readable: Called instead of `on_data` when there is something to `read`.
        limits: How much may wait for one that takes nothing, and for how long it may take nothing.
    """

    def __init__(
        self,
        connected: socket.socket,
        on_data: Callable[[bytes], None],
        on_closed: Callable[[], None],
        buffers: SharedBuffers,
        on_drained: Callable[[], None] | None = None,
        *,
        memory: MemoryAccount | None = None,
        on_readable: Callable[[], None] | None = None,
        limits: TransportLimits = _DEFAULT_LIMITS,
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._on_data = on_data
        self._on_closed = on_closed
        self._on_drained = on_drained
        self._receive_buffer = buffers.receive_buffer
        self._loop = asyncio.get_running_loop()
        self._send_queue = SendQueue(memory)
        self._max_buffered_bytes = limits.max_buffered_bytes
        self._stall_timeout = limits.stall_timeout
        self._last_progress = 0.0
        self._corked: list[bytes] | None = None
        self._closed = False
        self._send_lock = threading.Lock()
        self._deferred: deque[bytes] = deque()
        self._on_readable = on_readable or self._on_socket_readable
        self._is_paused = False
        self._hangup_poll: select.poll | None = None
        self._loop.add_reader(connected.fileno(), self._on_readable)

    @property
    def has_buffered(self) -> bool:
        """Whether something waits because the other side does not read."""
        return bool(self._send_queue)

    @property
    def is_paused(self) -> bool:
        """Whether what comes waits in the kernel."""
        return self._is_paused

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait because the other side does not read."""
        return self._send_queue.unsent_bytes

    @property
    def is_blocked(self) -> bool:
        """Whether so much waits to be sent that nothing more should be."""
        return (
            self._send_queue.unsent_bytes > self._max_buffered_bytes
            and self._loop.time() - self._last_progress > self._stall_timeout
        )

    def write(self, data: bytes) -> None:
        """Send, as far as that goes now; the rest waits."""
        if self._corked is not None:
            self._corked.append(data)
        elif self._deferred or not self._send_lock.acquire(blocking=False):
            self._deferred.append(data)
            self._send_deferred()
        else:
            try:
                self._send_or_buffer(data)
            finally:
                self._send_lock.release()

    def write_large(self, head: bytes, body: bytes) -> None:
        """Send a large message, in two parts that are not put together, after what is held."""
        held, self._corked = self._corked, None
        self.write(b"".join((*held, head)) if held else head)
        self.write(body)
        if held is not None:
            self._corked = []

    def write_from_thread(self, data: bytes, claim: Callable[[], bool]) -> bool:
        """Send at once, if nothing waits to go out before; what does not fit goes to the loop. Any other thread.

        Args:
            data: A whole message.
            claim: Asked last, when nothing can come between any more, whether to send it.

        Returns:
            Whether it was sent, or its receiver has gone; if not, `claim` was not asked or refused.
        """
        if not self._send_lock.acquire(blocking=False):
            return False
        try:
            if self._closed or self._send_queue or self._corked or self._deferred or not claim():
                return False
            self._send_from_thread(data)
        finally:
            self._send_lock.release()
            self._schedule_send_later()
        return True

    def _send_from_thread(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # as in `_send`
        if sent < len(data):
            self._deferred.appendleft(data[sent:])  # before what the loop has put there meanwhile

    def _schedule_send_later(self) -> None:
        """Have the loop do what it could not while this thread was sending."""
        if not self._deferred and not self._closed:
            return
        try:
            self._loop.call_soon_threadsafe(self._send_deferred)
        except RuntimeError:  # the loop has closed; nobody is left to read or write, but the descriptor is to be freed
            if self._closed:
                self._send_deferred()

    def _send_deferred(self) -> None:
        """Send what came while a thread was sending, and close the socket if it was closed meanwhile."""
        if not self._send_lock.acquire(blocking=False):
            return  # the thread asks for it again when it is done
        try:
            if self._closed:
                self._close_socket()
            while self._deferred:
                self._send_or_buffer(self._deferred.popleft())
        finally:
            self._send_lock.release()

    def _send_or_buffer(self, data: bytes) -> None:
        if self._send_queue:
            self._send_queue.append(data)
        elif not self._closed:
            self._send(data)

    def write_batched(self, data: bytes) -> None:
        """Send at once, and what else is written in this turn of the loop together at its end."""
        if self._corked is None:
            self.write(data)
            self._corked = []
            self._loop.call_soon(self.uncork)
        else:
            self._corked.append(data)

    def cork(self) -> None:
        """Keep what is written until `uncork`: one message to the kernel costs as much as forty."""
        if self._corked is None:
            self._corked = []

    def uncork(self) -> None:
        """Send what was held."""
        held, self._corked = self._corked, None
        if held:
            self.write(b"".join(held) if len(held) > 1 else held[0])

    def close(self) -> None:
        """Close at once; what is in the kernel's hands still goes out. May be called twice."""
        if self._closed:
            return
        self.uncork()
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        if self._send_queue:
            self._loop.remove_writer(self._socket.fileno())
            self._send_queue.clear()
        # Not while a thread sends: another connection might get the number of the descriptor.
        self._send_deferred()

    def close_after_fork(self) -> None:
        """Close the socket in a process that was forked: the loop, and the epoll it waits in, are the parent's."""
        self._closed = True
        self._send_queue.clear()
        self._socket.close()

    def _close_socket(self) -> None:
        """Close, after what still goes out at once; with the lock."""
        if self._deferred:
            last = b"".join(self._deferred)
            self._deferred.clear()
            try:
                self._socket.send(last)
            except OSError:
                pass  # it has gone, or does not read; who closes does not wait for that
        self._socket.close()

    def read(self) -> bytes | None:
        """Return what has come, up to `CHUNK_SIZE` bytes; None for nothing yet, empty bytes at the end."""
        try:
            size = self._socket.recv_into(self._receive_buffer)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""
        return bytes(self._receive_buffer[:size])

    def pause(self) -> None:
        """Have what comes wait in the kernel, which in the end holds up the sender."""
        if not self._is_paused and not self._closed:
            self._is_paused = True
            self._loop.remove_reader(self._socket.fileno())

    def resume(self) -> None:
        """Look for what comes again."""
        if self._is_paused and not self._closed:
            self._is_paused = False
            self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def has_hung_up(self) -> bool:
        """Return whether the other side has gone, whatever it sent before and has not been read."""
        if self._hangup_poll is None:
            self._hangup_poll = select.poll()
            self._hangup_poll.register(self._socket, select.POLLRDHUP)
        return bool(self._hangup_poll.poll(0))

    def _on_socket_readable(self) -> None:
        try:
            data = self.read()
            if data:
                self._on_data(data)
        except MemoryError:
            self._out_of_memory()
            return
        if data == b"":
            self._on_eof()

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
                self._send_queue.append(memoryview(data)[sent:])
            except MemoryError:
                # Not at once: whoever writes has more to do with this connection.
                self._loop.call_soon(self._out_of_memory)
                return
            self._last_progress = self._loop.time()
            self._loop.add_writer(self._socket.fileno(), self._on_socket_writable)

    def _on_socket_writable(self) -> None:
        try:
            self._send_queue.send(self._socket)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._send_queue.clear()
        self._last_progress = self._loop.time()
        if not self._send_queue:
            self._loop.remove_writer(self._socket.fileno())
            if self._on_drained is not None:
                self._on_drained()

    def _out_of_memory(self) -> None:
        """Close this connection: a part of its data is missing, and what follows would be misread."""
        if not self._closed:
            _log.warning("closed a connection: out of memory for its messages")
            self._on_eof()

    def _on_eof(self) -> None:
        self.close()
        self._on_closed()
