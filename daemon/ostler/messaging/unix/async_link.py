"""A client's end on a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ostler.errors import Busy, MessagingError
from ostler.messaging.unix.protocol import ProtocolError, ZmtpConnection, encode_frame, encode_subscription
from ostler.messaging.unix.socket_stream import SharedBuffers, SocketStream
from ostler.messaging.unix.sync_link import (
    CONNECT_TIMEOUT,
    DEALER_ROLE,
    MAX_EARLY_BYTES,
    SIZE_LIMIT_FACTOR,
    SUB_ROLE,
    closed_error,
    connect,
    not_reading_error,
)
from ostler.messaging.wire.transport import OnLost, OnMessage, TransportLimits

_CONNECT_RETRY_DELAY = 0.005
"""Seconds until another attempt to connect while more connections than the kernel keeps wait to be accepted."""


class AsyncUnixLink:
    """A client's end on the running loop.

    When the kernel keeps no more connections for the daemon, it waits in line, for some seconds at most;
    what is sent meanwhile waits as well.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes.
        on_message: Takes each message.
        on_lost: Told once when the server has gone, after all messages that had come.
        prefixes: How the events begin that are wanted; None for a connection for calls.
        connect_timeout: Seconds that it waits in line.

    Raises:
        MessagingError: There is no connection; see `connect`.
    """

    def __init__(
        self,
        address: str,
        limits: TransportLimits,
        on_message: OnMessage,
        on_lost: OnLost,
        prefixes: Iterable[bytes] | None = None,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        part = DEALER_ROLE if prefixes is None else SUB_ROLE
        self._on_message = on_message
        self._on_lost = on_lost
        self._protocol = ZmtpConnection(part.peer_types, limits.max_message_size * SIZE_LIMIT_FACTOR)
        self._address = address
        self._limits = limits
        self._greeting = part.greeting
        self._loop = asyncio.get_running_loop()
        self._connect_deadline = self._loop.time() + connect_timeout
        self._retry_timer: asyncio.TimerHandle | None = None
        self._stream: SocketStream | None = None
        self._early_data = bytearray().join(map(encode_subscription, prefixes or ()))
        """What waits for the end of the greetings: libzmq does not take messages before."""
        self._closed = False
        self._connect()

    def send(self, data: bytes) -> None:
        """See `AsyncLink.send`."""
        if self._closed:
            raise closed_error(self._protocol)
        channel = self._stream
        if len(self._early_data) > MAX_EARLY_BYTES or (channel is not None and channel.is_blocked):
            raise not_reading_error()
        if channel is not None and self._protocol.is_ready:
            channel.write_batched(encode_frame(data))
        else:
            self._early_data += encode_frame(data)

    def close(self) -> None:
        """See `AsyncLink.close`."""
        self._closed = True
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        if self._stream is not None:
            self._stream.close()

    def _connect(self) -> None:
        try:
            connected = connect(self._address)
        except Busy:
            if self._loop.time() >= self._connect_deadline:
                raise
            self._retry_timer = self._loop.call_later(_CONNECT_RETRY_DELAY, self._retry_connect)
            return
        self._stream = SocketStream(connected, self._on_data, self._on_closed, SharedBuffers(), limits=self._limits)
        self._stream.write(self._greeting)

    def _retry_connect(self) -> None:
        self._retry_timer = None
        try:
            self._connect()
        except MessagingError as error:
            self.close()
            self._on_lost(error)

    def close_after_fork(self) -> None:
        """See `AsyncLink.close_after_fork`."""
        self._closed = True
        if self._stream is not None:
            self._stream.close_after_fork()

    def _on_data(self, data: bytes) -> None:
        talk, channel = self._protocol, self._stream
        assert channel is not None  # noqa: S101 - it is what has heard this
        try:
            messages = talk.receive_data(data)
        except ProtocolError:
            self._on_closed()
            return
        if self._early_data and talk.is_ready:
            early, self._early_data = self._early_data, bytearray()
            channel.write(bytes(early))
        for message in messages:
            if self._closed:
                return
            self._on_message(message)
        if talk.to_send and channel.is_blocked:
            # It asks for answers, and reads none: they would pile up here.
            self._on_closed()
            return
        for answer in talk.to_send:
            channel.write(answer)
        talk.to_send.clear()
        if talk.refusal_reason:
            self._on_closed()

    def _on_closed(self) -> None:
        if not self._closed:
            self.close()
            self._on_lost(closed_error(self._protocol))
