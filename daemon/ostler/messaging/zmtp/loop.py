"""A client's end on a loop."""

from __future__ import annotations

from collections.abc import Iterable

from ostler.messaging.transport import Limits, OnLost, OnMessage
from ostler.messaging.zmtp.channel import Channel, Shared
from ostler.messaging.zmtp.connect import CALLER, EARLY_MOST, LIMIT_FACTOR, LISTENER, connect, end_of, not_taken
from ostler.messaging.zmtp.talk import Talk, TalkError, frame, subscription


class LoopUnixLink:
    """A client's end on the running loop.

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
        self._channel = Channel(connect(address), self._hear, self._ended, Shared())
        self._early = bytearray().join(map(subscription, wishes or ()))
        """What waits for the end of the greetings: libzmq does not take messages before."""
        self._closed = False
        self._channel.write(part.hello)

    def send(self, data: bytes) -> None:
        """See `AsyncLink.send`."""
        if self._closed:
            raise end_of(self._talk)
        if self._channel.stuck or len(self._early) > EARLY_MOST:
            raise not_taken()
        if self._talk.ready:
            self._channel.write_soon(frame(data))
        else:
            self._early += frame(data)

    def close(self) -> None:
        """See `AsyncLink.close`."""
        self._closed = True
        self._channel.close()

    def abandon(self) -> None:
        """See `AsyncLink.abandon`."""
        self._closed = True
        self._channel.abandon()

    def _hear(self, data: bytes) -> None:
        talk = self._talk
        try:
            messages = talk.hear(data)
        except TalkError:
            self._ended()
            return
        if self._early and talk.ready:
            early, self._early = self._early, bytearray()
            self._channel.write(bytes(early))
        for message in messages:
            if self._closed:
                return
            self._on_message(message)
        if talk.answers and self._channel.stuck:
            # It asks for answers, and reads none: they would pile up here.
            self._ended()
            return
        for answer in talk.answers:
            self._channel.write(answer)
        talk.answers.clear()
        if talk.refused:
            self._ended()

    def _ended(self) -> None:
        if not self._closed:
            self.close()
            self._on_lost(end_of(self._talk))
