"""A client's end on a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ostler.errors import Busy, MessagingError
from ostler.messaging.transport import Limits, OnLost, OnMessage
from ostler.messaging.zmtp.channel import Channel, Shared
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

_TRY_AGAIN = 0.005
"""Seconds until another attempt to connect while more connections than the kernel keeps wait to be accepted."""


class LoopUnixLink:
    """A client's end on the running loop.

    When the kernel keeps no more connections for the daemon, it waits in line, for `CONNECT_PATIENCE` seconds at most;
    what is sent meanwhile waits as well.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes.
        on_message: Takes each message.
        on_lost: Told once when the server has gone, after all messages that had come.
        wishes: How the events begin that are wanted; None for a connection for calls.

    Raises:
        MessagingError: There is no connection; see `connect`.
    """

    def __init__(
        self,
        address: str,
        limits: Limits,
        on_message: OnMessage,
        on_lost: OnLost,
        wishes: Iterable[bytes] | None = None,
    ) -> None:
        part = CALLER if wishes is None else LISTENER
        self._on_message = on_message
        self._on_lost = on_lost
        self._talk = Talk(part.partners, limits.max_message_size * LIMIT_FACTOR)
        self._address = address
        self._hello = part.hello
        self._loop = asyncio.get_running_loop()
        self._patient_until = self._loop.time() + CONNECT_PATIENCE
        self._retry: asyncio.TimerHandle | None = None
        self._channel: Channel | None = None
        self._early = bytearray().join(map(subscription, wishes or ()))
        """What waits for the end of the greetings: libzmq does not take messages before."""
        self._closed = False
        self._connect()

    def send(self, data: bytes) -> None:
        """See `AsyncLink.send`."""
        if self._closed:
            raise end_of(self._talk)
        channel = self._channel
        if len(self._early) > EARLY_MOST or (channel is not None and channel.stuck):
            raise not_taken()
        if channel is not None and self._talk.ready:
            channel.write_soon(frame(data))
        else:
            self._early += frame(data)

    def close(self) -> None:
        """See `AsyncLink.close`."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        if self._channel is not None:
            self._channel.close()

    def _connect(self) -> None:
        try:
            connected = connect(self._address)
        except Busy:
            if self._loop.time() >= self._patient_until:
                raise
            self._retry = self._loop.call_later(_TRY_AGAIN, self._connect_again)
            return
        self._channel = Channel(connected, self._hear, self._ended, Shared())
        self._channel.write(self._hello)

    def _connect_again(self) -> None:
        self._retry = None
        try:
            self._connect()
        except MessagingError as error:
            self.close()
            self._on_lost(error)

    def abandon(self) -> None:
        """See `AsyncLink.abandon`."""
        self._closed = True
        if self._channel is not None:
            self._channel.abandon()

    def _hear(self, data: bytes) -> None:
        talk, channel = self._talk, self._channel
        assert channel is not None  # noqa: S101 - it is what has heard this
        try:
            messages = talk.hear(data)
        except TalkError:
            self._ended()
            return
        if self._early and talk.ready:
            early, self._early = self._early, bytearray()
            channel.write(bytes(early))
        for message in messages:
            if self._closed:
                return
            self._on_message(message)
        if talk.answers and channel.stuck:
            # It asks for answers, and reads none: they would pile up here.
            self._ended()
            return
        for answer in talk.answers:
            channel.write(answer)
        talk.answers.clear()
        if talk.refused:
            self._ended()

    def _ended(self) -> None:
        if not self._closed:
            self.close()
            self._on_lost(end_of(self._talk))
