"""Takes a port, brings a server's socket to it, and tells who is at the other end."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import zmq

from ostler.errors import Conflict, InvalidInput, MessagingError, NotPermitted
from ostler.messaging.tcp.curve import ZAP_DOMAIN, CurveOptions
from ostler.messaging.tcp.sessions import SessionRegistry, TcpSession
from ostler.messaging.tcp.socket_options import set_socket_options
from ostler.messaging.unix.bind import LISTEN_BACKLOG
from ostler.messaging.wire.transport import TransportLimits

if TYPE_CHECKING:
    from collections.abc import Callable

    from ostler.messaging.tcp.authenticator import Authenticator, ConnectionMonitor
    from ostler.messaging.tcp.socket_options import Socket
    from ostler.messaging.wire.peer_quotas import PeerQuotas
    from ostler.types import Peer


TCP_SCHEME = "tcp://"
ADDRESS_NOT_READY = "not yet"
"""The reason of an error that goes away when the network comes up."""
_TRANSIENT_ERRORS = {
    errno.EADDRNOTAVAIL,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENODEV,
    errno.ENXIO,
    errno.EAFNOSUPPORT,
}


class HostPort(NamedTuple):
    """Where to listen or connect; an empty host is every address of this machine."""

    host: str
    port: int


def is_tcp(address: str) -> bool:
    """Return whether an address is one on a network."""
    return address.startswith(TCP_SCHEME)


def parse_tcp_address(address: str) -> HostPort:
    """Return the host and port of `tcp://HOST:PORT`; IPv6 addresses stand in brackets, `*` is every address.

    Raises:
        InvalidInput: It is not such an address.
    """
    host, colon, port = address.removeprefix(TCP_SCHEME).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    well = is_tcp(address) and colon and host and port.isascii() and port.isdecimal() and int(port) <= 65535
    if not well or (":" in bare and bare == host) or any(letter.isspace() or letter in "/;[]" for letter in bare):
        raise InvalidInput(
            f"{address!r} is not a valid network address", hint="use tcp://HOST:PORT, such as tcp://0.0.0.0:7890"
        )
    return HostPort("" if bare == "*" else bare, int(port))


class BoundPort:
    """A listening port.

    Args:
        address: Where to listen; port 0 for any free one.

    Raises:
        Conflict: The address is already in use.
        NotPermitted: This user is not allowed to.
        InvalidInput: It is not a valid network address.
        MessagingError: It cannot be used for another reason.
    """

    def __init__(self, address: str) -> None:
        self.address: str
        self._socket, where = _make_socket(address)
        try:
            self._bind(where)
        except OSError as error:
            self._socket.close()
            raise _bind_error(address, error) from error
        host, port = self._socket.getsockname()[:2]
        self.address = f"{TCP_SCHEME}{f'[{host}]' if ':' in host else host}:{port}"

    def duplicate_descriptor(self) -> int:
        """Return a descriptor for ZeroMQ, which closes it."""
        return self._socket.dup().detach()

    def unlink(self) -> None:
        """Stop listening, as soon as ZeroMQ has closed its descriptor as well. May be called twice."""
        self._socket.close()

    def _bind(self, where: Any) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._socket.family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.bind(where)
        self._socket.listen(LISTEN_BACKLOG)
        self._socket.setblocking(False)


def _make_socket(address: str) -> tuple[socket.socket, Any]:
    wanted = parse_tcp_address(address)
    try:
        family, kind, protocol, _, found = socket.getaddrinfo(
            wanted.host or None, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.socket(family, kind, protocol), found
    except OSError as error:
        raise _bind_error(address, error) from error


def check_address(address: str) -> None:
    """Find out whether this machine has an address; nobody can connect meanwhile. May wait for a name server.

    Raises:
        InvalidInput: It is not a valid network address.
        MessagingError: It cannot be used; `reason` is `ADDRESS_NOT_READY` when that may change by itself.
    """
    trying, where = _make_socket(address)
    with trying:
        try:
            trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trying.bind(where)
        except OSError as error:
            raise _bind_error(address, error) from error


def _bind_error(address: str, error: OSError) -> MessagingError | Conflict | NotPermitted:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"{address} is already in use", hint="stop the process that uses it, or choose another port in [network]"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermitted(
            f"not allowed to listen on {address}: {error.strerror}", hint="ports below 1024 require root"
        )
    return MessagingError(
        f"cannot listen on {address}: {error.strerror or error}",
        hint="use an address of this machine; tcp://0.0.0.0:PORT stands for all of them",
        address=address,
        reason=ADDRESS_NOT_READY if isinstance(error, socket.gaierror) or error.errno in _TRANSIENT_ERRORS else "",
    )


def next_port(address: str) -> str:
    """Return the address for events that belongs to one for calls: the next port.

    Raises:
        InvalidInput: It is not a valid network address.
    """
    port = parse_tcp_address(address).port
    return f"{address.rpartition(':')[0]}:{port + 1 if port else 0}"


class ListenOptions(NamedTuple):
    """How a server's socket listens.

    Attributes:
        limits: What it takes.
        curve: The keys and times of a `tcp://` address.
        authenticator: Decides who may connect; None to let everybody in who can.
        quotas: What the connections share with those of other sockets, if there is no authenticator, which has its own.
        max_message_size: Bytes of a message that costs its sender the connection; 0 for twice what `limits` say.
        receive_hwm: Messages of one connection that ZeroMQ keeps for us; 0 for as many as `limits` say.
    """

    limits: TransportLimits
    curve: CurveOptions | None = None
    authenticator: Authenticator | None = None
    quotas: PeerQuotas | None = None
    max_message_size: int = 0
    receive_hwm: int = 0


class ServerSocket:
    """A server's socket at its address.

    Args:
        socket: The socket, with every option of its own kind set.
        address: Where to listen.
        listen_options: The rest.

    Raises:
        Conflict: Another daemon listens there.
        NotPermitted: The directory is not writable, or the port must not be used.
        InvalidInput: It is not an address to listen on.
        MessagingError: The socket cannot be used for another reason.
    """

    def __init__(self, socket: Socket, address: str, listen_options: ListenOptions) -> None:
        self.authenticator = listen_options.authenticator
        self.sessions = (
            self.authenticator.sessions
            if self.authenticator is not None
            else SessionRegistry({}, listen_options.quotas)
        )
        self._sessions_by_user = self.sessions.by_user_id
        set_socket_options(socket, listen_options.limits, listen_options.curve)
        if listen_options.max_message_size:
            socket.set(zmq.MAXMSGSIZE, listen_options.max_message_size)
        if listen_options.receive_hwm:
            socket.set(zmq.RCVHWM, min(listen_options.receive_hwm, listen_options.limits.max_queued))
        if listen_options.curve is None:
            raise InvalidInput(f"cannot listen on {address} without a key", hint="see `secret_key` in [network]")
        self.bound_port = BoundPort(address)
        self.address, fd = self.bound_port.address, self.bound_port.duplicate_descriptor()
        self.monitor: ConnectionMonitor | None = None
        if listen_options.authenticator is not None:
            self.monitor = listen_options.authenticator.monitor(socket, address)
            socket.set(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        self._bind(socket, fd)

    def _bind(self, socket: Socket, fd: int) -> None:
        socket.set(zmq.USE_FD, fd)
        try:
            socket.bind(self.address)
        except zmq.ZMQError as error:
            os.close(fd)
            self.close()
            raise MessagingError(f"{self.address} cannot be used: {error}", address=self.address) from error

    def get_session(self, frame: zmq.Frame) -> TcpSession:
        """Return which connection a message came over."""
        try:
            user = frame.get("User-Id")
            return self._sessions_by_user.get(user) or self.sessions.get_session(str(user))  # type: ignore[arg-type]  # it is text
        except zmq.ZMQError:  # a message of ZeroMQ's own, when a connection has ended
            return self.sessions.get_session("")

    def confirm_session(self, session: TcpSession, frame: zmq.Frame) -> None:
        """Record the connection that the first message of a session came over."""
        session.is_confirmed = True
        if self.monitor is None or session.closed:
            return
        self.monitor.poll()
        assert self.authenticator is not None  # noqa: S101 - it made the watch
        self.authenticator.confirm_session(session, self.monitor.connections.get(frame.get(zmq.SRCFD)))

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """Cut the connections of peers that are not allowed any more."""
        if self.authenticator is not None:
            self.authenticator.disconnect_unless(allowed)

    def close(self) -> None:
        """Release the address. Before the socket is closed."""
        if self.monitor is not None:
            self.monitor.close()
        self.bound_port.unlink()
