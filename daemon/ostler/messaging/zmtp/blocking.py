"""A client's end without a loop. Imports no asyncio: the command starts with this."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable

from ostler.errors import MessagingError
from ostler.messaging.transport import Limits
from ostler.messaging.zmtp.connect import (
    CALLER,
    CONNECT_PATIENCE,
    EARLY_MOST,
    LIMIT_FACTOR,
    LISTENER,
    connect,
    end_of,
    not_taken,
)
from ostler.messaging.zmtp.talk import Talk, TalkError, frame, subscription

_CHUNK = 64 * 1024
_SOON = struct.pack("ll", 0, 10_000)
"""The time of `receive_soon` as the kernel has it: 10 ms."""
_PATIENCE = 2.0
"""Seconds without progress after which a server does not take what is sent."""
_LONGEST = 60.0
"""Seconds that a message may take on its way out when its call has no limit."""
_ANSWERS = 0.25
"""Seconds that answers to the server's PING may take."""
_AT_ONCE = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class BlockingUnixLink:
    """A client's end that waits by itself. One thread at a time.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes.
        wishes: How the events begin that are wanted; None for a connection for calls.

    Raises:
        MessagingError: There is no connection; see `connect`.
    """

    def __init__(self, address: str, limits: Limits, wishes: Iterable[bytes] | None = None) -> None:
        part = CALLER if wishes is None else LISTENER
        self._socket = connect(address, patience=CONNECT_PATIENCE)
        self._socket.setblocking(True)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SOON)
        self._talk = Talk(part.partners, limits.max_message_size * LIMIT_FACTOR)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._early = bytearray().join(map(subscription, wishes or ()))
        """What waits for the end of the greetings: libzmq does not take messages before."""
        self._early_until: float | None = None
        self._lost: MessagingError | None = None
        self._closed = False
        self._write(part.hello)

    def alive(self) -> bool:
        """See `Link.alive`."""
        if self._lost is None:
            try:
                if self._socket.recv(1, _AT_ONCE | socket.MSG_PEEK) == b"":
                    self._lost = end_of(self._talk)
            except BlockingIOError:
                pass
            except OSError:
                self._lost = end_of(self._talk)
        return self._lost is None

    def send(self, data: bytes, longest: float | None = None) -> None:
        """See `Link.send`."""
        if self._lost is not None:
            raise self._lost
        if self._talk.ready:
            self._write(frame(data), longest)
        elif self._early and len(self._early) + len(data) > EARLY_MOST:
            raise not_taken()
        else:
            self._early += frame(data)
            self._early_until = None if longest is None else time.monotonic() + longest

    def receive_soon(self) -> list[bytes]:
        """See `Link.receive_soon`."""
        return self._read(0) if self._lost is None else []

    def receive(self, timeout: float) -> list[bytes]:
        """See `Link.receive`."""
        if self._lost is not None:
            raise self._lost
        if not self._poll.poll(max(0, int(timeout * 1000 + 0.999))):
            return []
        found = self._read(_AT_ONCE)
        return found or self._nothing_came()

    def close(self) -> None:
        """See `Link.close`."""
        if not self._closed:
            self._closed = True
            self._socket.close()

    def abandon(self) -> None:
        """See `Link.abandon`."""
        self.close()

    def _nothing_came(self) -> list[bytes]:
        if self._lost is not None:
            raise self._lost
        return []

    def _read(self, how: int) -> list[bytes]:
        try:
            data = self._socket.recv(_CHUNK, how)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self._lost = end_of(self._talk)
            return []
        try:
            found = self._talk.hear(data)
        except TalkError:
            self._lost = end_of(self._talk)
            return []
        if self._early and self._talk.ready:
            early, self._early = self._early, bytearray()
            self._write(early, None if self._early_until is None else self._early_until - time.monotonic())
        if self._talk.answers:
            answers = b"".join(self._talk.answers)
            self._talk.answers.clear()
            # One that asks for answers and reads none gets no patience: it could go on for ever.
            self._write(answers, _ANSWERS)
        if self._talk.refused:
            self._lost = end_of(self._talk)
        return found

    def _write(self, data: bytes | bytearray, longest: float | None = None) -> None:
        try:
            sent = self._socket.send(data, _AT_ONCE)
        except BlockingIOError:
            sent = 0
        except OSError:
            # What the server said before it went is still to be read, and tells more than this.
            return
        if sent < len(data):
            self._write_rest(memoryview(data)[sent:], longest, begun=sent > 0)

    def _write_rest(self, rest: memoryview, longest: float | None, *, begun: bool) -> None:
        """Go on as the server reads. A message that has begun cannot be taken back: the connection is given up."""
        room = select.poll()
        room.register(self._socket, select.POLLOUT)
        now = time.monotonic()
        until, last = now + _PATIENCE, now + (_LONGEST if longest is None else longest)
        while rest:
            if not room.poll(max(0, int((min(until, last) - time.monotonic()) * 1000))):
                if begun:
                    self._lost = end_of(self._talk)
                raise not_taken()
            try:
                sent = self._socket.send(rest, _AT_ONCE)
            except BlockingIOError:
                continue
            except OSError:
                return
            rest, begun, until = rest[sent:], True, time.monotonic() + _PATIENCE
