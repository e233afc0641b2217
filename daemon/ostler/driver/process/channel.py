"""Messages over a stream socket: four bytes of length, then the message."""

from __future__ import annotations

import socket
import struct

from ostler.errors import MessageTooLarge

MAX_MESSAGE = 64 * 2**20
"""The most bytes of one message."""
_CHUNK_SIZE = 65536
_HEADER = struct.Struct("<I")


class Channel:
    """A socket with messages instead of bytes. One thread sends, one receives.

    Args:
        sock: A connected, blocking stream socket; it belongs to the channel.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = MessageBuffer()

    def send(self, message: bytes) -> None:
        """Send a message; blocks while the other side does not read.

        Raises:
            MessageTooLarge: It has more than `MAX_MESSAGE` bytes.
            OSError: The other side is gone.
        """
        self.socket.sendall(frame(message))

    def receive(self) -> bytes | None:
        """Wait for a message; None when the other side has gone.

        Raises:
            MessageTooLarge: The other side sent a length that it must not.
        """
        buffer = self._buffer
        while (message := buffer.pop()) is None:
            try:
                data = self.socket.recv(_CHUNK_SIZE)
            except OSError:
                data = b""
            if not data:
                return None
            if buffer.is_empty and len(data) == _HEADER.size + int.from_bytes(data[: _HEADER.size], "little"):
                return data[_HEADER.size :]  # nearly always: one message, whole
            buffer.add(data)
        return message

    def shut_down(self) -> None:
        """Have both sides see the end; wakes the thread that receives. Any thread."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended already
            return


class MessageBuffer:
    """Bytes that came, and the messages in them."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def is_empty(self) -> bool:
        """Whether it holds no bytes."""
        return not self._data

    def add(self, data: bytes) -> None:
        """Append bytes."""
        self._data += data

    def pop(self) -> bytes | None:
        """Return the next whole message, None if there is none yet.

        Raises:
            MessageTooLarge: Its length is above the limit.
        """
        data = self._data
        if len(data) < _HEADER.size:
            return None
        (length,) = _HEADER.unpack_from(data)
        if length > MAX_MESSAGE:
            raise _too_large(length)
        end = _HEADER.size + length
        if len(data) < end:
            return None
        message = bytes(memoryview(data)[_HEADER.size : end])
        del data[:end]
        return message


def frame(message: bytes) -> bytes:
    """Return a message with its length before it.

    Raises:
        MessageTooLarge: It has more than `MAX_MESSAGE` bytes.
    """
    if len(message) > MAX_MESSAGE:
        raise _too_large(len(message))
    return _HEADER.pack(len(message)) + message


def _too_large(size: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"a message of {size:,} bytes between daemon and driver process is above the limit of {MAX_MESSAGE:,}",
        hint="pass a path, or send the data in pieces",
        size=size,
        limit=MAX_MESSAGE,
    )
