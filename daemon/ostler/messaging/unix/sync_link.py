"""A client's end without a loop, and the connecting of both kinds. Imports no asyncio: the command starts with this."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from ostler.errors import Busy, ConnectionLost, DaemonNotRunning, MessagingError, NotPermitted
from ostler.messaging.unix.bind import socket_path
from ostler.messaging.unix.protocol import (
    REASON_NOT_PERMITTED,
    ProtocolError,
    SocketRole,
    ZmtpConnection,
    encode_frame,
    encode_subscription,
    greeting,
)
from ostler.messaging.wire.transport import TransportLimits

DEALER_ROLE = SocketRole(greeting(b"DEALER"), frozenset({b"ROUTER", b"DEALER", b"REP"}))
SUB_ROLE = SocketRole(greeting(b"SUB"), frozenset({b"XPUB", b"PUB"}))
MAX_EARLY_BYTES = 4 * 1024 * 1024
"""Bytes that may wait for the end of the greetings."""
CONNECT_TIMEOUT = 1.0
"""Seconds for which a client waits while more connections than the kernel keeps wait for the daemon to accept them."""
SIZE_LIMIT_FACTOR = 2
"""Messages of the server may be this many times as large as ours: it may be configured otherwise."""


def connect(address: str, *, timeout: float = 0.0) -> socket.socket:
    """Return a socket that is connected and does not block.

    Args:
        address: Of the daemon's socket.
        timeout: Seconds for which is waited, by blocking, when more connections than the kernel keeps wait for the
            daemon to accept them.

    Raises:
        DaemonNotRunning: Nothing listens there.
        NotPermitted: This user is not allowed to use the socket, or it is served by a user that does not own its
            directory.
        Busy: The daemon is not accepting connections.
        InvalidInput: It is not an address of a unix socket.
    """
    path = socket_path(address)
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connected.setblocking(False)
    code = connected.connect_ex(str(path))
    if code == errno.EAGAIN and timeout:
        code = _connect_blocking(connected, path, timeout)
    if not code:
        _check_owner(connected, path)
        return connected
    connected.close()
    if code in (errno.EACCES, errno.EPERM):
        raise NotPermitted(
            f"this user is not allowed to use the socket {path}",
            hint="run this as root or the daemon's user, or ask an administrator for access (`socket_mode`, [access])",
            path=path,
        )
    if code == errno.EAGAIN:
        raise Busy(
            f"the daemon at {path} is not accepting connections",
            hint="it may be stopped; see `systemctl status ostler`", path=path, retry_after=1.0,
        )  # fmt: skip
    raise DaemonNotRunning(
        f"the daemon is not running: nothing listens on {path}",
        hint="start it with `ostler run` or `systemctl start ostler`",
        path=path,
    )


def _connect_blocking(connected: socket.socket, path: Path, timeout: float) -> int:
    """Connect when it is our turn in the kernel's queue of those that want to; return the error's number, or 0."""
    connected.setblocking(True)
    seconds, rest = divmod(timeout, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(seconds), int(rest * 1e6)))
    code = connected.connect_ex(str(path))
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))
    connected.setblocking(False)
    return code


def _check_owner(connected: socket.socket, path: Path) -> None:
    # In a directory that others can write anybody may listen, and would be told secrets and shown as the daemon.
    _, uid, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid in (0, os.geteuid()):
        return
    try:
        owner = path.parent.stat().st_uid
    except OSError:
        owner = -1
    if uid == owner:
        return
    connected.close()
    raise NotPermitted(
        f"{path} is served by uid {uid}, which does not own its directory",
        hint="check that this is the daemon's directory, and that others cannot write to it",
        path=path,
        uid=uid,
    )


def closed_error(protocol: ZmtpConnection) -> MessagingError:
    """Return the error of a connection that has ended."""
    if protocol.refusal_reason == REASON_NOT_PERMITTED.decode():
        return NotPermitted(
            f"uid {os.geteuid()} has no role here", hint="an administrator grants one in [access]", uid=os.geteuid()
        )
    if protocol.refusal_reason:
        return Busy(
            "the daemon has reached its limit of clients",
            hint="close some, or raise `max_connections` in [messaging]", retry_after=5.0,
            reason=protocol.refusal_reason,
        )  # fmt: skip
    if protocol.oversize_bytes:
        return ConnectionLost(
            f"the daemon sent a message of {protocol.oversize_bytes} bytes, this client accepts "
            f"{protocol.max_message_size}",
            hint="ask for less at once, or give the client a larger `max_message_size`",
            reason="large", size=protocol.oversize_bytes, limit=protocol.max_message_size,
        )  # fmt: skip
    if protocol.is_ready:
        return ConnectionLost("the daemon closed the connection", hint="see `systemctl status ostler`")
    # A process that is killed closes its connections a moment before it stops listening.
    return DaemonNotRunning(
        "the daemon stopped before it had accepted anything",
        hint="start it with `ostler run` or `systemctl start ostler`",
    )


def not_reading_error() -> Busy:
    """Return the error of a message that the server does not take."""
    return Busy(
        "the daemon does not read what is sent to it", hint="it may be stopped; see `ostler status`", retry_after=1.0
    )


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
