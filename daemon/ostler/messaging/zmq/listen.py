"""Brings a server's socket to its port, and tells who is at the other end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import zmq

from ostler.errors import InvalidInput, MessagingError
from ostler.messaging.transport import Limits
from ostler.messaging.zmq.curve import DOMAIN, Network
from ostler.messaging.zmq.options import set_options
from ostler.messaging.zmq.sessions import Session, Sessions
from ostler.messaging.zmq.tcp import BoundPort

if TYPE_CHECKING:
    from collections.abc import Callable

    from ostler.messaging.zmq.options import Socket
    from ostler.messaging.zmq.zap import Door, Watch
    from ostler.types import Peer


class Listening(NamedTuple):
    """How a server's socket listens.

    Attributes:
        limits: What it takes.
        network: The keys and times of a `tcp://` address.
        door: Decides who may connect; None to let everybody in who can.
        largest: Bytes of a message that costs its sender the connection; 0 for twice what `limits` say.
        receive_queue: Messages of one connection that ZeroMQ keeps for us; 0 for as many as `limits` say.
    """

    limits: Limits
    network: Network | None = None
    door: Door | None = None
    largest: int = 0
    receive_queue: int = 0


class Entrance:
    """A server's socket at its address.

    Args:
        socket: The socket, with every option of its own kind set.
        address: Where to listen.
        how: The rest.

    Raises:
        Conflict: Another daemon listens there.
        NotPermitted: The folder may not be written, or the port not be used.
        InvalidInput: It is no address to listen on.
        MessagingError: The socket cannot be used for another reason.
    """

    def __init__(self, socket: Socket, address: str, how: Listening) -> None:
        self.sessions = how.door.sessions if how.door is not None else Sessions({})
        self.door = how.door
        self._by_user = self.sessions.by_user
        set_options(socket, how.limits, how.network)
        if how.largest:
            socket.set(zmq.MAXMSGSIZE, how.largest)
        if how.receive_queue:
            socket.set(zmq.RCVHWM, min(how.receive_queue, how.limits.queue))
        if how.network is None:
            raise InvalidInput(f"{address} cannot be listened on without a key", hint="see `secret_key` in [network]")
        self.bound = BoundPort(address)
        self.address, fd = self.bound.address, self.bound.descriptor()
        self.watch: Watch | None = None
        if how.door is not None:
            self.watch = how.door.watch(socket, address)
            socket.set(zmq.ZAP_DOMAIN, DOMAIN)
        self._bind(socket, fd)

    def _bind(self, socket: Socket, fd: int) -> None:
        socket.set(zmq.USE_FD, fd)
        try:
            socket.bind(self.address)
        except zmq.ZMQError as error:
            os.close(fd)
            self.close()
            raise MessagingError(f"{self.address} cannot be used: {error}", address=self.address) from error

    def session_of(self, frame: zmq.Frame) -> Session:
        """Return which connection a message came over."""
        try:
            user = frame.get("User-Id")
            return self._by_user.get(user) or self.sessions.of(str(user))  # type: ignore[arg-type]  # it is text
        except zmq.ZMQError:  # a message of ZeroMQ's own, when a connection has ended
            return self.sessions.of("")

    def confirm(self, session: Session, frame: zmq.Frame) -> None:
        """Take note of the connection that the first message of a session came over."""
        session.confirmed = True
        if self.watch is None or session.closed:
            return
        self.watch.look()
        assert self.door is not None  # noqa: S101 - it made the watch
        self.door.confirm(session, self.watch.connections.get(frame.get(zmq.SRCFD)))

    def end_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """Cut the connections of peers that are not allowed any more."""
        if self.door is not None:
            self.door.end_unless(allowed)

    def close(self) -> None:
        """Let go of the address. Before the socket is closed."""
        if self.watch is not None:
            self.watch.close()
        self.bound.unlink()
