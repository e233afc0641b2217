"""A client's connection to a unix socket, and what can go wrong with it."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

from ostler.errors import Busy, ConnectionLost, MessagingError, NotPermitted, NotRunning
from ostler.messaging.zmtp.talk import NOT_PERMITTED, Part, Talk, hello
from ostler.messaging.zmtp.unix import path_of

CALLER = Part(hello(b"DEALER"), frozenset({b"ROUTER", b"DEALER", b"REP"}))
LISTENER = Part(hello(b"SUB"), frozenset({b"XPUB", b"PUB"}))
EARLY_MOST = 4 * 1024 * 1024
"""Bytes that may wait for the end of the greetings."""
CONNECT_PATIENCE = 1.0
"""Seconds for which a client waits while more connections than the kernel keeps wait for the daemon to accept them."""
LIMIT_FACTOR = 2
"""Messages of the server may be this many times as large as ours: it may be configured otherwise."""


def connect(address: str, *, patience: float = 0.0) -> socket.socket:
    """Return a socket that is connected and does not block.

    Args:
        address: Of the daemon's socket.
        patience: Seconds for which is waited, by blocking, when more connections than the kernel keeps wait for the
            daemon to accept them.

    Raises:
        NotRunning: Nobody listens there.
        NotPermitted: This user may not use the socket, or somebody listens there whose directory it is not.
        Busy: The daemon does not come to take another client in.
        InvalidInput: It is no address of a unix socket.
    """
    path = path_of(address)
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connected.setblocking(False)
    code = connected.connect_ex(str(path))
    if code == errno.EAGAIN and patience:
        code = _wait_in_line(connected, path, patience)
    if not code:
        _check_listener(connected, path)
        return connected
    connected.close()
    if code in (errno.EACCES, errno.EPERM):
        raise NotPermitted(
            f"the socket {path} may not be used by this user",
            hint="ask as root or as the daemon's user, or have an administrator open it (`socket_mode`, [access])",
            path=path,
        )
    if code == errno.EAGAIN:
        raise Busy(
            f"the daemon at {path} does not come to take another client in",
            hint="is it stopped? see `systemctl status ostler`", path=path, retry_after=1.0,
        )  # fmt: skip
    raise NotRunning(
        f"the daemon is not running: nobody listens on {path}",
        hint="start it with `ostler run` or `systemctl start ostler`",
        path=path,
    )


def _wait_in_line(connected: socket.socket, path: Path, patience: float) -> int:
    """Connect when it is our turn in the kernel's queue of those that want to; return the error's number, or 0."""
    connected.setblocking(True)
    seconds, rest = divmod(patience, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(seconds), int(rest * 1e6)))
    code = connected.connect_ex(str(path))
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))
    connected.setblocking(False)
    return code


def _check_listener(connected: socket.socket, path: Path) -> None:
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
        f"on {path} listens uid {uid}, whose directory it is not",
        hint="is this the daemon's directory, and can others write it?",
        path=path,
        uid=uid,
    )


def end_of(talk: Talk) -> MessagingError:
    """Return the error of a connection that has ended."""
    if talk.refused == NOT_PERMITTED.decode():
        return NotPermitted(
            f"uid {os.geteuid()} has no role here", hint="an administrator gives one in [access]", uid=os.geteuid()
        )
    if talk.refused:
        return Busy(
            "the daemon has as many clients as it may have",
            hint="close some, or raise `max_connections` in [messaging]", retry_after=5.0, reason=talk.refused,
        )  # fmt: skip
    if talk.oversize:
        return ConnectionLost(
            f"the daemon sent a message of {talk.oversize} bytes, this client takes {talk.limit}",
            hint="ask for less at once, or give the client a larger `max_message_size`",
            reason="large", size=talk.oversize, limit=talk.limit,
        )  # fmt: skip
    if talk.ready:
        return ConnectionLost("the daemon closed the connection", hint="see `systemctl status ostler`")
    # A process that is killed closes its connections a moment before it stops listening.
    return NotRunning(
        "the daemon stopped before it had taken anything",
        hint="start it with `ostler run` or `systemctl start ostler`",
    )


def not_taken() -> Busy:
    """Return the error of a message that the server does not take."""
    return Busy(
        "the daemon does not take what is sent to it", hint="is it stopped? see `ostler status`", retry_after=1.0
    )
