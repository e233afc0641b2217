"""ZMTP 3.1 without I/O, as far as a DEALER and a ROUTER without security need it: RFC 23 and RFC 37 of ZeroMQ.

A connection begins with a greeting of 64 bytes from each side and a command READY that tells the kind of socket. Then
come frames: a byte of flags, the size in one byte or in eight, the body. No side has to wait for the other's greeting
before it sends its own and what follows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec

from ostler.errors import OstlerError

_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
_GREETING = _SIGNATURE + b"\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
_GREETING_SIZE = 64
_MORE, _LONG, _COMMAND = 1, 2, 4
_SHORT_MOST = 255
_HEAD_SIZE = 256
"""Bytes that are kept of a message for which there is no room: they say which request it is."""
LARGE = 64 * 1024
"""Bytes of a message up to which nobody is asked for room."""
NOT_PERMITTED, BUSY = b"400", b"500"
"""Why a client is not let in, in the codes of ZAP (RFC 27): for good, and for now."""
_WISHES = {b"SUBSCRIBE": b"\1", b"CANCEL": b"\0"}


class Part(msgspec.Struct, frozen=True):
    """What a socket is in a conversation: its greeting, and the kinds of sockets it talks to."""

    hello: bytes
    partners: frozenset[bytes]


class TalkError(OstlerError):
    """Raised when the other side does not speak this protocol; `facts["reason"]` is one word that is counted."""


def frame(body: bytes) -> bytes:
    """Return a message of one frame as it goes over the wire."""
    size = len(body)
    if size <= _SHORT_MOST:
        return b"\0" + size.to_bytes(1, "big") + body
    return b"\x02" + size.to_bytes(8, "big") + body


def frame_head(size: int) -> bytes:
    """Return what goes over the wire before the body of a message of one frame, of so many bytes."""
    return b"\0" + size.to_bytes(1, "big") if size <= _SHORT_MOST else b"\x02" + size.to_bytes(8, "big")


def _command(name: bytes, data: bytes) -> bytes:
    body = bytes((len(name),)) + name + data
    if len(body) <= _SHORT_MOST:
        return bytes((_COMMAND, len(body))) + body
    return bytes((_COMMAND | _LONG,)) + len(body).to_bytes(8, "big") + body


def hello(kind: bytes) -> bytes:
    """Return what a side sends first: its greeting, and that it is a socket of this kind (`DEALER`, `ROUTER`)."""
    name = b"Socket-Type"
    return _GREETING + _command(b"READY", bytes((len(name),)) + name + len(kind).to_bytes(4, "big") + kind)


def subscription(prefix: bytes) -> bytes:
    """Return a wish for what begins with this, as it goes over the wire."""
    return _command(b"SUBSCRIBE", prefix)


def refusal(reason: bytes) -> bytes:
    """Return what is sent instead of READY to a client that is not let in, after the greeting."""
    return _GREETING + _command(b"ERROR", bytes((len(reason),)) + reason)


class Talk:
    """What one side has heard so far. Not thread-safe.

    Args:
        partners: The kinds of sockets that the other side may be.
        limit: Bytes of the largest message; more ends the conversation.
        reserve: Asked for room for a message of more than `LARGE` bytes before it is kept. Without room the message is
            skipped, and its first bytes are in `unkept`; None where there always is room.
    """

    def __init__(self, partners: frozenset[bytes], limit: int, reserve: Callable[[int], bool] | None = None) -> None:
        self._partners = partners
        self.limit = limit
        self._reserve = reserve
        self._kept = bytearray()
        self._needed = len(_SIGNATURE)
        self._data = b""
        self._at = 0
        self._skipped = 0
        self._reserved = 0
        self._greeted = False
        self._skips = False
        self.more = False
        """Whether there may be whole messages in what was heard, beyond those that `hear` was to return."""
        self.ready = False
        self.oversize = 0
        """Bytes of the message that ended the conversation because it is above the limit."""
        self.refused = ""
        """Why the other side did not let us in."""
        self.several = 0
        """Messages of more than one frame; none of ours has."""
        self.answers: list[bytes] = []
        """What is to be sent because of what was heard."""
        self.unkept: list[bytes] = []
        """The first bytes of messages for which there was no room."""
        self.unreserved = 0
        """The bytes that `reserve` was asked for, of messages that have come whole since."""

    def hear(self, data: bytes, most: int = sys.maxsize) -> list[bytes]:
        """Take what has come, in pieces of any size; return the messages that are whole by now.

        Args:
            data: What has come; empty while there is `more`.
            most: Frames to take apart at once; when there may be others, `more` is set.

        Raises:
            TalkError: It is not this protocol.
        """
        at = 0
        if self.more:
            data, at, self.more, self._data = self._data, self._at, False, b""
        elif self._kept:
            self._kept += data
            if len(self._kept) < self._needed:
                return []
            data = bytes(self._kept)
            self._kept = bytearray()
            self.unreserved += self._reserved
            self._reserved = 0
        elif self._skipped:
            data = self._skip(data)
        if self._greeted:
            return self._frames(data, at, most)
        if data[:1] != _SIGNATURE[:1] or data[9:10] not in (b"", _SIGNATURE[9:]):
            raise TalkError("its first bytes are no greeting", reason="protocol")
        if len(data) < _GREETING_SIZE:
            self._kept += data
            self._needed = _GREETING_SIZE if len(data) >= len(_SIGNATURE) else len(_SIGNATURE)
            return []
        self._take_greeting(data)
        return self._frames(data, _GREETING_SIZE, most)

    def _frames(self, data: bytes, at: int, most: int) -> list[bytes]:
        found: list[bytes] = []
        end = len(data)
        while (head := _head(data, at, end)) is not None:
            if not most:
                self.more, self._data, self._at = True, data, at
                return found
            flags, body, stop = head
            if stop > end:
                if self._keeps(stop - body):
                    self._needed = stop - at
                    break
                self.unkept.append(data[body : body + _HEAD_SIZE])
                self._skipped = stop - end
                return found
            if stop - body > self.limit:
                raise self._too_large(stop - body)
            most -= 1
            if not flags & ~_LONG and self.ready and not self._skips:
                found.append(data[body:stop])
            elif (message := self._take_other(flags, data[body:stop])) is not None:
                found.append(message)
            at = stop
        else:
            self._needed = 0
        if at < end:
            self._kept += data[at:]
        return found

    def _keeps(self, size: int) -> bool:
        """Return whether a message that has not come whole is kept until it has."""
        if size > self.limit:
            raise self._too_large(size)
        if size <= LARGE or self._reserve is None or self._reserved:
            return True
        if not self._reserve(size):
            return False
        self._reserved = size
        return True

    def _skip(self, data: bytes) -> bytes:
        skipped = min(self._skipped, len(data))
        self._skipped -= skipped
        return data[skipped:]

    def _too_large(self, size: int) -> TalkError:
        self.oversize = size
        return TalkError(f"a message has {size} bytes, {self.limit} are let through", reason="large")

    def close(self) -> None:
        """Let go of what was heard; nothing more will be."""
        self._kept, self._data, self.more = bytearray(), b"", False

    def take_unreserved(self, *, all_of_it: bool = False) -> int:
        """Return how many bytes are not needed any more of those that `reserve` was asked for.

        Args:
            all_of_it: Nothing more will be heard.
        """
        size, self.unreserved = self.unreserved, 0
        if all_of_it:
            size, self._reserved = size + self._reserved, 0
        return size

    def _take_greeting(self, data: bytes) -> None:
        self._greeted = True
        mechanism = data[12:32].rstrip(b"\0")
        if data[10] < 3 or mechanism != b"NULL":
            what = f"version {data[10]} with {mechanism[:20].decode('ascii', 'replace')!r}"
            raise TalkError(f"it speaks {what}, here it is version 3 with 'NULL'", reason="protocol")

    def _take_other(self, flags: int, body: bytes) -> bytes | None:
        """Take a command, or a frame that is no message of ours; return what is one all the same: a subscription."""
        if flags & ~(_MORE | _LONG | _COMMAND):
            raise TalkError(f"a frame with unknown flags ({flags})", reason="protocol")
        if not flags & _COMMAND:
            if not self.ready:
                raise TalkError("it sent a message before it said READY", reason="protocol")
            self.several += not self._skips
            self._skips = bool(flags & _MORE)
            return None
        size = body[0] if body else 0
        name, data = body[1 : 1 + size], body[1 + size :]
        if name == b"READY" and not self.ready:
            self._take_ready(data)
        elif name == b"ERROR" and not self.ready:
            self.refused = data[1:].decode("ascii", "replace") or "no reason"
        elif name == b"PING":
            self.answers.append(_command(b"PONG", data[2:18]))
        elif not self.ready:
            raise TalkError("a command that no conversation begins with", reason="protocol")
        elif name in _WISHES:
            return _WISHES[name] + data  # as it was in ZMTP 3.0, and still may be
        return None

    def _take_ready(self, data: bytes) -> None:
        at, kind = 0, b""
        while at < len(data):
            name_end = at + 1 + data[at]
            start = name_end + 4
            stop = start + int.from_bytes(data[name_end:start], "big")
            if stop > len(data) or start > len(data):
                raise TalkError("its READY is cut off", reason="protocol")
            if data[at + 1 : name_end].lower() == b"socket-type":
                kind = data[start:stop]
            at = stop
        if kind not in self._partners:
            raise TalkError(f"a socket of the kind {kind[:20].decode('ascii', 'replace')!r}", reason="protocol")
        self.ready = True


def _head(data: bytes, at: int, end: int) -> tuple[int, int, int] | None:
    """Return the flags of the frame at `at`, and where its body begins and stops; None while that is not known."""
    if end - at < 2:
        return None
    flags = data[at]
    if not flags & _LONG:
        return flags, at + 2, at + 2 + data[at + 1]
    if end - at < 9:
        return None
    return flags, at + 9, at + 9 + int.from_bytes(data[at + 1 : at + 9], "big")
