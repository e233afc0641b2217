"""The client's end of a stream, without I/O: buffers items for the reader, within the credit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.msgpack import Decoder

from ostler.errors import ConnectionLost, InvalidInput, MalformedMessage

DEFAULT_CREDIT = 1024
"""Items that may wait for a reader who names no other number."""
MAX_CREDIT = 65_536
_MAX_BUFFERED_BYTES = 8 * 1024 * 1024
"""Bytes that may wait unread when more come; a server of ours has no more than half of it on their way."""
_CREDIT_GRANT_BYTES = 256 * 1024
"""So many bytes taken are told to the server at once; it makes no more items while too many are on their way."""


def check_credit(credit: object, where: str) -> None:
    """Refuse what is not a credit.

    Raises:
        InvalidInput: It is not a number from 1 to 65536.
    """
    if isinstance(credit, bool) or not isinstance(credit, int) or not 1 <= credit <= MAX_CREDIT:
        raise InvalidInput(
            f"the credit of {where} must be a number from 1 to {MAX_CREDIT}, not {credit!r}", method=where
        )


class StreamBuffer:
    """The items of one stream that have come and are not read yet.

    What a reader was given counts as read when it asks for more: there are never more than `credit` items that the
    server has sent and the reader has not done with. Not thread-safe by itself.

    Args:
        full_name: `topic.method`, for messages.
        item_type: The type of an item; None for plain values.
        credit: The most items on their way or waiting, at least 1.
        on_ready: Told when something has come, or the stream has ended.

    Raises:
        InvalidInput: The credit is no number from 1 to 65536.
    """

    def __init__(self, full_name: str, item_type: Any, credit: int, on_ready: Callable[[], None]) -> None:
        check_credit(credit, full_name)
        self.full_name = full_name
        self.credit = credit
        self.on_ready = on_ready
        self.is_ended = False
        self._decode: Callable[[Any], list[Any]] = Decoder(list[item_type] if item_type is not None else list).decode
        self._error: Exception | None = None
        self._batches: deque[tuple[list[Any], int]] = deque()
        self._current_batch = (0, 0)
        self._buffered_bytes = 0
        self._received = 0
        self._granted = credit
        self._read = 0
        self._read_bytes = 0

    def feed(self, first: int, items: msgspec.Raw | bytes | bytearray) -> bool:
        """Take what has come; return whether there was an item.

        Raises:
            ConnectionLost: Items before these were lost in transit.
            MalformedMessage: They are of another type, or more than there is credit or room for.
        """
        if first != self._received:
            raise ConnectionLost(
                f"items {self._received} to {first - 1} of {self.full_name} were lost in transit",
                hint="this client fell too far behind; use less credit for streams, or read faster",
                method=self.full_name, expected=self._received, got=first,
            )  # fmt: skip
        try:
            found = self._decode(items)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
            raise MalformedMessage(
                f"an item of {self.full_name} does not have the type that this client expects: {error}",
                hint="client and service may have different versions", reason="result", method=self.full_name,
            ) from error  # fmt: skip
        self._received += len(found)
        if self._received > self._granted:
            raise MalformedMessage(
                f"{self.full_name} sent more items than it had credit for", reason="credit", method=self.full_name
            )
        if found:
            if self._buffered_bytes > _MAX_BUFFERED_BYTES:
                raise MalformedMessage(
                    f"{self.full_name} sent more bytes than this client buffers", reason="credit", method=self.full_name
                )
            size = len(memoryview(items))
            self._buffered_bytes += size
            self._batches.append((found, size))
        self.on_ready()
        return bool(found)

    def end(self, _value: object, error: Exception | None) -> None:
        """Record that no more will come, and why; the reader is told after what has come before."""
        if not self.is_ended:
            self.is_ended, self._error = True, error
            self.on_ready()

    def discard(self) -> None:
        """Forget what has come: nobody reads it any more."""
        self._batches.clear()
        self._buffered_bytes = 0
        self.is_ended = True

    def pop(self) -> list[Any] | None:
        """Return the next items; an empty list when none have come yet, None at the end.

        Raises:
            Exception: What the stream ended with.
        """
        self._read += self._current_batch[0]
        self._read_bytes += self._current_batch[1]
        self._current_batch = (0, 0)
        if self._batches:
            batch, size = self._batches.popleft()
            self._current_batch = (len(batch), size)
            self._buffered_bytes -= size
            return batch
        if not self.is_ended:
            return []
        if self._error is not None:
            raise self._error
        return None

    def credit_due(self) -> int:
        """Return the credit that the server is to be given now, 0 for none: each message says something worth it."""
        if self.is_ended or not (2 * self._read >= self.credit or self._read_bytes >= _CREDIT_GRANT_BYTES):
            return 0
        read, self._read, self._read_bytes = self._read, 0, 0
        self._granted += read
        return read
