"""A client's connection to a unix socket, and what can go wrong with it."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

from ostler.errors import Busy, ConnectionLost, DaemonNotRunning, MessagingError, NotPermitted
from ostler.messaging.unix.bind import socket_path
from ostler.messaging.unix.protocol import REASON_NOT_PERMITTED, SocketRole, ZmtpConnection, greeting

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
