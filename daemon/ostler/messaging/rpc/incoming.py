"""The client's end of a stream, without I/O: items between the link and whoever reads them, within their credit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.msgpack import Decoder

from ostler.errors import BadEnvelope, ConnectionLost, InvalidInput

DEFAULT_CREDIT = 1024
"""Items that may wait for a reader who names no other number."""
MOST_CREDIT = 65_536
_MOST_WAITING = 8 * 1024 * 1024
"""Bytes that may wait unread when more come; a server of ours has no more than half of it on their way."""
_BYTES = 256 * 1024
"""So many bytes taken are told to the server at once; it makes no more items while too many are on their way."""


def check_credit(credit: object, where: str) -> None:
    """Refuse what is not a credit.

    Raises:
        InvalidInput: It is not a number from 1 to 65536.
    """
    if isinstance(credit, bool) or not isinstance(credit, int) or not 1 <= credit <= MOST_CREDIT:
        raise InvalidInput(
            f"the credit of {where} must be a number from 1 to {MOST_CREDIT}, not {credit!r}", method=where
        )


class Incoming:
    """The items of one stream that have come and are not read yet.

    What a reader was given counts as read when it asks for more: there are never more than `credit` items that the
    server has sent and the reader has not done with. Not thread-safe by itself.

    Args:
        where: `topic.method`, for messages.
        kind: The type of an item; None for plain values.
        credit: The most items on their way or waiting, at least 1.
        wake: Told when something has come, or the stream has ended.

    Raises:
        InvalidInput: The credit is no number from 1 to 65536.
    """

    def __init__(self, where: str, kind: Any, credit: int, wake: Callable[[], None]) -> None:
        check_credit(credit, where)
        self.where = where
        self.credit = credit
        self.wake = wake
        self.ended = False
        self._decode: Callable[[Any], list[Any]] = Decoder(list[kind] if kind is not None else list).decode
        self._error: Exception | None = None
        self._batches: deque[tuple[list[Any], int]] = deque()
        self._reading = (0, 0)
        self._waiting = 0
        self._received = 0
        self._granted = credit
        self._read = 0
        self._read_bytes = 0

    def put(self, first: int, items: msgspec.Raw | bytes | bytearray) -> bool:
        """Take what has come; return whether there was an item.

        Raises:
            ConnectionLost: Items before these were lost on their way.
            BadEnvelope: They are of another type, or more than there is credit or room for.
        """
        if first != self._received:
            raise ConnectionLost(
                f"items {self._received} to {first - 1} of {self.where} were lost on their way",
                hint="too much was waiting for this client; give streams less credit, or read faster",
                method=self.where, expected=self._received, got=first,
            )  # fmt: skip
        try:
            found = self._decode(items)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
            raise BadEnvelope(
                f"an item of {self.where} is not what this client expects: {error}",
                hint="client and service may be of different versions", reason="result", method=self.where,
            ) from error  # fmt: skip
        self._received += len(found)
        if self._received > self._granted:
            raise BadEnvelope(
                f"{self.where} sent more items than it had credit for", reason="credit", method=self.where
            )
        if found:
            if self._waiting > _MOST_WAITING:
                raise BadEnvelope(
                    f"{self.where} sent more bytes than may wait for a reader", reason="credit", method=self.where
                )
            size = len(memoryview(items))
            self._waiting += size
            self._batches.append((found, size))
        self.wake()
        return bool(found)

    def end(self, _value: object, error: Exception | None) -> None:
        """Take note that no more will come, and why; the reader is told after what has come before."""
        if not self.ended:
            self.ended, self._error = True, error
            self.wake()

    def abandon(self) -> None:
        """Forget what has come: nobody reads it any more."""
        self._batches.clear()
        self._waiting = 0
        self.ended = True

    def take(self) -> list[Any] | None:
        """Return the next items; an empty list when none have come yet, None at the end.

        Raises:
            Exception: What the stream ended with.
        """
        self._read += self._reading[0]
        self._read_bytes += self._reading[1]
        self._reading = (0, 0)
        if self._batches:
            batch, size = self._batches.popleft()
            self._reading = (len(batch), size)
            self._waiting -= size
            return batch
        if not self.ended:
            return []
        if self._error is not None:
            raise self._error
        return None

    def due(self) -> int:
        """Return the credit that the server is to be given now, 0 for none: each message says something worth it."""
        if self.ended or not (2 * self._read >= self.credit or self._read_bytes >= _BYTES):
            return 0
        read, self._read, self._read_bytes = self._read, 0, 0
        self._granted += read
        return read
