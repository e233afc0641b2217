"""A client's end without a loop. Imports no asyncio: the command starts with this."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable

from ostler.errors import MessagingError
from ostler.messaging.unix.connect import (
    CONNECT_TIMEOUT,
    DEALER_ROLE,
    MAX_EARLY_BYTES,
    SIZE_LIMIT_FACTOR,
    SUB_ROLE,
    closed_error,
    connect,
    not_reading_error,
)
from ostler.messaging.unix.protocol import ProtocolError, ZmtpConnection, encode_frame, encode_subscription
from ostler.messaging.wire.transport import TransportLimits

_CHUNK_SIZE = 64 * 1024
_BRIEF_RECEIVE_TIMEOUT = struct.pack("ll", 0, 10_000)
"""The time of `receive_briefly` as the kernel has it: 10 ms."""
_MAX_SEND_TIME = 60.0
"""Seconds that a message may take on its way out when its call has no limit."""
_PONG_TIMEOUT = 0.25
"""Seconds that answers to the server's PING may take."""
_NONBLOCKING_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class SyncUnixLink:
    """A client's end that waits by itself. One thread at a time.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes.
        prefixes: How the events begin that are wanted; None for a connection for calls.

    Raises:
        MessagingError: There is no connection; see `connect`.
    """

    def __init__(self, address: str, limits: TransportLimits, prefixes: Iterable[bytes] | None = None) -> None:
        part = DEALER_ROLE if prefixes is None else SUB_ROLE
        self._socket = connect(address, timeout=CONNECT_TIMEOUT)
        self._socket.setblocking(True)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _BRIEF_RECEIVE_TIMEOUT)
        self._stall_timeout = limits.stall_timeout
        self._protocol = ZmtpConnection(part.peer_types, limits.max_message_size * SIZE_LIMIT_FACTOR)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._early_data = bytearray().join(map(encode_subscription, prefixes or ()))
        """What waits for the end of the greetings: libzmq does not take messages before."""
        self._early_deadline: float | None = None
        self._lost: MessagingError | None = None
        self._closed = False
        self._write(part.greeting)

    def is_alive(self) -> bool:
        """See `SyncLink.alive`."""
        if self._lost is None:
            try:
                if self._socket.recv(1, _NONBLOCKING_FLAGS | socket.MSG_PEEK) == b"":
                    self._lost = closed_error(self._protocol)
            except BlockingIOError:
                pass
            except OSError:
                self._lost = closed_error(self._protocol)
        return self._lost is None

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """See `SyncLink.send`."""
        if self._lost is not None:
            raise self._lost
        if self._protocol.is_ready:
            self._write(encode_frame(data), timeout)
        elif self._early_data and len(self._early_data) + len(data) > MAX_EARLY_BYTES:
            raise not_reading_error()
        else:
            self._early_data += encode_frame(data)
            self._early_deadline = None if timeout is None else time.monotonic() + timeout

    def receive_briefly(self) -> list[bytes]:
        """See `SyncLink.receive_briefly`."""
        return self._read(0) if self._lost is None else []

    def receive(self, timeout: float) -> list[bytes]:
        """See `SyncLink.receive`."""
        if self._lost is not None:
            raise self._lost
        if not self._poll.poll(max(0, int(timeout * 1000 + 0.999))):
            return []
        found = self._read(_NONBLOCKING_FLAGS)
        return found or self._raise_if_lost()

    def close(self) -> None:
        """See `SyncLink.close`."""
        if not self._closed:
            self._closed = True
            self._socket.close()

    def close_after_fork(self) -> None:
        """See `SyncLink.close_after_fork`."""
        self.close()

    def _raise_if_lost(self) -> list[bytes]:
        if self._lost is not None:
            raise self._lost
        return []

    def _read(self, flags: int) -> list[bytes]:
        try:
            data = self._socket.recv(_CHUNK_SIZE, flags)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self._lost = closed_error(self._protocol)
            return []
        try:
            found = self._protocol.receive_data(data)
        except ProtocolError:
            self._lost = closed_error(self._protocol)
            return []
        if self._early_data and self._protocol.is_ready:
            early, self._early_data = self._early_data, bytearray()
            self._write(early, None if self._early_deadline is None else self._early_deadline - time.monotonic())
        if self._protocol.to_send:
            answers = b"".join(self._protocol.to_send)
            self._protocol.to_send.clear()
            # One that asks for answers and reads none gets no patience: it could go on indefinitely.
            self._write(answers, _PONG_TIMEOUT)
        if self._protocol.refusal_reason:
            self._lost = closed_error(self._protocol)
        return found

    def _write(self, data: bytes | bytearray, timeout: float | None = None) -> None:
        try:
            sent = self._socket.send(data, _NONBLOCKING_FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError:
            # What the server said before it went is still to be read, and tells more than this.
            return
        if sent < len(data):
            self._write_rest(memoryview(data)[sent:], timeout, is_started=sent > 0)

    def _write_rest(self, rest: memoryview, timeout: float | None, *, is_started: bool) -> None:
        """Go on as the server reads. A message that has been started cannot be withdrawn: the connection is closed."""
        room = select.poll()
        room.register(self._socket, select.POLLOUT)
        now = time.monotonic()
        until, last = now + self._stall_timeout, now + (_MAX_SEND_TIME if timeout is None else timeout)
        while rest:
            if not room.poll(max(0, int((min(until, last) - time.monotonic()) * 1000))):
                if is_started:
                    self._lost = closed_error(self._protocol)
                raise not_reading_error()
            try:
                sent = self._socket.send(rest, _NONBLOCKING_FLAGS)
            except BlockingIOError:
                continue
            except OSError:
                return
            rest, is_started, until = rest[sent:], True, time.monotonic() + self._stall_timeout
