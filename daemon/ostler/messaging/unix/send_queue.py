"""What waits to be sent over one connection."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostler.messaging.wire.memory_accounts import MemoryAccount

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
