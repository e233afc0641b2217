"""What waits to be sent over one connection."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostler.messaging.memory_accounts import MemoryAccount

LARGE = 64 * 1024
"""Bytes of a piece from which on it is kept as it is; what is smaller is put together."""
_PIECES, _BYTES = 16, 4 * 1024 * 1024
"""Pieces and bytes that are given to the kernel at once."""


class SendQueue:
    """Bytes in their order. Large pieces are not copied, neither when they come nor when a part of them has gone.

    Args:
        memory: Who is charged for what waits, with the whole of a piece until all of it has been sent; None for nobody.
    """

    __slots__ = ("_memory", "_pieces", "_tail", "unsent")

    def __init__(self, memory: MemoryAccount | None = None) -> None:
        self._memory = memory
        self._pieces: deque[memoryview] = deque()
        self._tail = bytearray()
        self.unsent = 0
        """Bytes that have not been sent."""

    def __bool__(self) -> bool:
        return self.unsent > 0

    def append(self, data: bytes | memoryview) -> None:
        """Put a piece behind what waits; one of the size `LARGE` may not change any more."""
        if len(data) >= LARGE:
            self._end_tail()
            self._pieces.append(memoryview(data))
            if self._memory is not None:
                self._memory.hold(self._pieces[-1].obj)  # type: ignore[arg-type]  # bytes
        else:
            self._tail += data
            if self._memory is not None:
                self._memory.add(len(data))
        self.unsent += len(data)

    def send(self, connected: socket.socket) -> None:
        """Send what the kernel takes now.

        Raises:
            OSError: Nothing can be sent; `BlockingIOError` for not now.
        """
        if not self._pieces:
            self._end_tail()
        pieces: list[memoryview] = []
        size = 0
        for piece in self._pieces:
            if size >= _BYTES or len(pieces) == _PIECES:
                break
            pieces.append(piece[: _BYTES - size])
            size += len(pieces[-1])
        self._drop(connected.sendmsg(pieces))

    def clear(self) -> None:
        """Forget all of it."""
        self._end_tail()
        while self._pieces:
            self._remove_first()
        self.unsent = 0

    def _end_tail(self) -> None:
        """Begin a new tail: one that is being sent can grow no more."""
        if self._tail:
            self._pieces.append(memoryview(self._tail))
            self._tail = bytearray()

    def _drop(self, sent: int) -> None:
        self.unsent -= sent
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
            self._memory.let_go(whole)  # type: ignore[arg-type]  # bytes
