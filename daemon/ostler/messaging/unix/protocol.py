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
_MORE_FLAG, _LONG_FLAG, _COMMAND_FLAG = 1, 2, 4
_MAX_SHORT_SIZE = 255
_REFUSED_HEAD_SIZE = 256
"""Bytes that are kept of a message for which there is no room: they say which request it is."""
LARGE_MESSAGE_SIZE = 64 * 1024
"""Bytes of a message up to which nobody is asked for room."""
REASON_NOT_PERMITTED, REASON_BUSY = b"400", b"500"
"""Why a client is not admitted, as codes of ZAP (RFC 27): permanently, and for now."""
_SUBSCRIPTION_COMMANDS = {b"SUBSCRIBE": b"\1", b"CANCEL": b"\0"}


class SocketRole(msgspec.Struct, frozen=True):
    """The role of a socket.

    Attributes:
        greeting: What it says first.
        peer_types: The types of sockets it talks to.
        hard_size_limit: Bytes of a message that costs its sender the connection; 0 for twice what is taken.
    """

    greeting: bytes
    peer_types: frozenset[bytes]
    hard_size_limit: int = 0


class ProtocolError(OstlerError):
    """Raised when the other side does not speak this protocol; `facts["reason"]` is one word that is counted."""


def encode_frame(body: bytes) -> bytes:
    """Return a message of one frame as it goes over the wire."""
    size = len(body)
    if size <= _MAX_SHORT_SIZE:
        return b"\0" + size.to_bytes(1, "big") + body
    return b"\x02" + size.to_bytes(8, "big") + body


def encode_frame_header(size: int) -> bytes:
    """Return what goes over the wire before the body of a message of one frame, of so many bytes."""
    return b"\0" + size.to_bytes(1, "big") if size <= _MAX_SHORT_SIZE else b"\x02" + size.to_bytes(8, "big")


def _encode_command(name: bytes, data: bytes) -> bytes:
    body = bytes((len(name),)) + name + data
    if len(body) <= _MAX_SHORT_SIZE:
        return bytes((_COMMAND_FLAG, len(body))) + body
    return bytes((_COMMAND_FLAG | _LONG_FLAG,)) + len(body).to_bytes(8, "big") + body


def greeting(socket_type: bytes) -> bytes:
    """Return what a side sends first: its greeting, and that it is a socket of this kind (`DEALER`, `ROUTER`)."""
    name = b"Socket-Type"
    return _GREETING + _encode_command(
        b"READY", bytes((len(name),)) + name + len(socket_type).to_bytes(4, "big") + socket_type
    )


def encode_subscription(prefix: bytes) -> bytes:
    """Return a subscription to what begins with this, as it goes over the wire."""
    return _encode_command(b"SUBSCRIBE", prefix)


def encode_refusal(reason: bytes) -> bytes:
    """Return what is sent instead of READY to a client that is not let in, after the greeting."""
    return _GREETING + _encode_command(b"ERROR", bytes((len(reason),)) + reason)


class ZmtpConnection:
    """What one side has received so far. Not thread-safe.

    Args:
        peer_types: The kinds of sockets that the other side may be.
        max_message_size: Bytes of the largest message; more ends the conversation.
        reserve: Asked for room for a message of more than `LARGE_MESSAGE_SIZE` bytes before it is kept. Without room
            the message is skipped, and its first bytes are in `refused_heads`; None where there always is room.
    """

    def __init__(
        self, peer_types: frozenset[bytes], max_message_size: int, reserve: Callable[[int], bool] | None = None
    ) -> None:
        self._peer_types = peer_types
        self.max_message_size = max_message_size
        self._reserve = reserve
        self._partial = bytearray()
        self._needed = len(_SIGNATURE)
        self._rest = b""
        self._rest_offset = 0
        self._bytes_to_skip = 0
        self._reserved_bytes = 0
        self._is_greeted = False
        self._is_skipping = False
        self.has_more = False
        """Whether there may be whole messages in what was heard, beyond those that `receive_data` was to return."""
        self.is_ready = False
        self.oversize_bytes = 0
        """Bytes of the message that ended the conversation because it is above the limit."""
        self.refusal_reason = ""
        """Why the other side did not let us in."""
        self.multipart_count = 0
        """Messages of more than one frame; none of ours has."""
        self.to_send: list[bytes] = []
        """What is to be sent because of what was heard."""
        self.refused_heads: list[bytes] = []
        """The first bytes of messages for which there was no room."""
        self.unreserved_bytes = 0
        """The bytes that `reserve` was asked for, of messages that have come whole since."""

    def receive_data(self, data: bytes, max_frames: int = sys.maxsize) -> list[bytes]:
        """Take what has come, in pieces of any size; return the messages that are whole by now.

        Args:
            data: What has come; empty while there is `more`.
            max_frames: Frames to take apart at once; when there may be others, `more` is set.

        Raises:
            ProtocolError: It is not this protocol.
        """
        at = 0
        if self.has_more:
            data, at, self.has_more, self._rest = self._rest, self._rest_offset, False, b""
        elif self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return []
            data = bytes(self._partial)
            self._partial = bytearray()
            self.unreserved_bytes += self._reserved_bytes
            self._reserved_bytes = 0
        elif self._bytes_to_skip:
            data = self._skip_refused(data)
        if self._is_greeted:
            return self._parse_frames(data, at, max_frames)
        if data[:1] != _SIGNATURE[:1] or data[9:10] not in (b"", _SIGNATURE[9:]):
            raise ProtocolError("its first bytes are not a greeting", reason="protocol")
        if len(data) < _GREETING_SIZE:
            self._partial += data
            self._needed = _GREETING_SIZE if len(data) >= len(_SIGNATURE) else len(_SIGNATURE)
            return []
        self._handle_greeting(data)
        return self._parse_frames(data, _GREETING_SIZE, max_frames)

    def _parse_frames(self, data: bytes, offset: int, max_frames: int) -> list[bytes]:
        found: list[bytes] = []
        end = len(data)
        while (head := _parse_header(data, offset, end)) is not None:
            if not max_frames:
                self.has_more, self._rest, self._rest_offset = True, data, offset
                return found
            flags, body, stop = head
            if stop > end:
                if self._has_room(stop - body):
                    self._needed = stop - offset
                    break
                self.refused_heads.append(data[body : body + _REFUSED_HEAD_SIZE])
                self._bytes_to_skip = stop - end
                return found
            if stop - body > self.max_message_size:
                raise self._too_large_error(stop - body)
            max_frames -= 1
            if not flags & ~_LONG_FLAG and self.is_ready and not self._is_skipping:
                found.append(data[body:stop])
            elif (message := self._handle_other(flags, data[body:stop])) is not None:
                found.append(message)
            offset = stop
        else:
            self._needed = 0
        if offset < end:
            self._partial += data[offset:]
        return found

    def _has_room(self, size: int) -> bool:
        """Return whether a message that has not come whole is kept until it has."""
        if size > self.max_message_size:
            raise self._too_large_error(size)
        if size <= LARGE_MESSAGE_SIZE or self._reserve is None or self._reserved_bytes:
            return True
        if not self._reserve(size):
            return False
        self._reserved_bytes = size
        return True

    def _skip_refused(self, data: bytes) -> bytes:
        skipped = min(self._bytes_to_skip, len(data))
        self._bytes_to_skip -= skipped
        return data[skipped:]

    def _too_large_error(self, size: int) -> ProtocolError:
        self.oversize_bytes = size
        return ProtocolError(f"a message has {size} bytes, the limit is {self.max_message_size}", reason="large")

    def close(self) -> None:
        """Drop what was received; nothing more follows."""
        self._partial, self._rest, self.has_more = bytearray(), b"", False

    def pop_unreserved(self, *, include_reserved: bool = False) -> int:
        """Return how many bytes are not needed any more of those that `reserve` was asked for.

        Args:
            include_reserved: Nothing more will be heard.
        """
        size, self.unreserved_bytes = self.unreserved_bytes, 0
        if include_reserved:
            size, self._reserved_bytes = size + self._reserved_bytes, 0
        return size

    def _handle_greeting(self, data: bytes) -> None:
        self._is_greeted = True
        mechanism = data[12:32].rstrip(b"\0")
        if data[10] < 3 or mechanism != b"NULL":
            what = f"version {data[10]} with {mechanism[:20].decode('ascii', 'replace')!r}"
            raise ProtocolError(f"it uses {what}, expected version 3 with 'NULL'", reason="protocol")

    def _handle_other(self, flags: int, body: bytes) -> bytes | None:
        """Take a command, or a frame that is no message of ours; return what is one all the same: a subscription."""
        if flags & ~(_MORE_FLAG | _LONG_FLAG | _COMMAND_FLAG):
            raise ProtocolError(f"a frame with unknown flags ({flags})", reason="protocol")
        if not flags & _COMMAND_FLAG:
            if not self.is_ready:
                raise ProtocolError("it sent a message before READY", reason="protocol")
            self.multipart_count += not self._is_skipping
            self._is_skipping = bool(flags & _MORE_FLAG)
            return None
        size = body[0] if body else 0
        name, data = body[1 : 1 + size], body[1 + size :]
        if name == b"READY" and not self.is_ready:
            self._handle_ready(data)
        elif name == b"ERROR" and not self.is_ready:
            self.refusal_reason = data[1:].decode("ascii", "replace") or "no reason"
        elif name == b"PING":
            self.to_send.append(_encode_command(b"PONG", data[2:18]))
        elif not self.is_ready:
            raise ProtocolError("a command that is not part of the handshake", reason="protocol")
        elif name in _SUBSCRIPTION_COMMANDS:
            return _SUBSCRIPTION_COMMANDS[name] + data  # as it was in ZMTP 3.0, and still may be
        return None

    def _handle_ready(self, data: bytes) -> None:
        at, kind = 0, b""
        while at < len(data):
            name_end = at + 1 + data[at]
            start = name_end + 4
            stop = start + int.from_bytes(data[name_end:start], "big")
            if stop > len(data) or start > len(data):
                raise ProtocolError("its READY is truncated", reason="protocol")
            if data[at + 1 : name_end].lower() == b"socket-type":
                kind = data[start:stop]
            at = stop
        if kind not in self._peer_types:
            raise ProtocolError(
                f"an unexpected socket type {kind[:20].decode('ascii', 'replace')!r}", reason="protocol"
            )
        self.is_ready = True


def _parse_header(data: bytes, offset: int, end: int) -> tuple[int, int, int] | None:
    """Return the flags of the frame at `offset`, and where its body begins and stops; None while that is not known."""
    if end - offset < 2:
        return None
    flags = data[offset]
    if not flags & _LONG_FLAG:
        return flags, offset + 2, offset + 2 + data[offset + 1]
    if end - offset < 9:
        return None
    return flags, offset + 9, offset + 9 + int.from_bytes(data[offset + 1 : offset + 9], "big")
