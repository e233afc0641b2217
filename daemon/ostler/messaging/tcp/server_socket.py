"""Brings a server's socket to its port, and tells who is at the other end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import zmq

from ostler.errors import InvalidInput, MessagingError
from ostler.messaging.tcp.bind import BoundPort
from ostler.messaging.tcp.curve import ZAP_DOMAIN, CurveOptions
from ostler.messaging.tcp.sessions import SessionRegistry, TcpSession
from ostler.messaging.tcp.socket_options import set_socket_options
from ostler.messaging.wire.transport import TransportLimits
from ostler.types import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ostler.messaging.tcp.authenticator import Authenticator, ConnectionMonitor
    from ostler.messaging.tcp.socket_options import Socket
    from ostler.messaging.wire.peer_quotas import PeerQuotas


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

    def peers(self) -> list[Peer]:
        """Return who is connected, for people; of who has not proved a key yet there is the address."""
        if self.monitor is None:
            return [session.peer for session in self._sessions_by_user.values()]
        return [
            each.session.peer if each.session is not None else Peer(name=f"{each.address} (without a key yet)")
            for each in self.monitor.connections.values()
        ]

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """Cut the connections of peers that are not allowed any more."""
        if self.authenticator is not None:
            self.authenticator.disconnect_unless(allowed)

    def close(self) -> None:
        """Release the address. Before the socket is closed."""
        if self.monitor is not None:
            self.monitor.close()
        self.bound_port.unlink()
