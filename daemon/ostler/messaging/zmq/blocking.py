"""A client's sockets, and its end without a loop. Imports no asyncio: the command starts with this."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING

import zmq

from ostler.errors import Busy, ConnectionLost, InvalidInput, MessagingError, NotPermitted, NotRunning
from ostler.messaging.transport import Limits
from ostler.messaging.zmq.options import NOBLOCK, set_options

if TYPE_CHECKING:
    from ostler.messaging.zmq.curve import Network
    from ostler.messaging.zmq.options import Context, Socket

_BATCH = 1000
_BATCH_BYTES = 4 * 1024 * 1024
"""So many messages, or bytes, are read before somebody looks at the time again."""
_POLLIN = int(zmq.POLLIN)
_SOON = 10
"""Milliseconds of a wait for the server alone, before looking at the connection as well."""
_FRESH = 0.01
"""Seconds for which a server that was heard counts as alive."""
_FULL = 500
"""What a daemon's door says to a client for which there is no room."""
_EVENT = Struct("=HI")
"""How an event of the monitor begins: its number, and a value that depends on it."""


class Sockets:
    """A client's socket, and another on which ZeroMQ tells what becomes of its connection.

    Args:
        data: The connected socket.
        monitor: Where the events of its connection come.
        address: The server's.
    """

    def __init__(self, data: Socket, monitor: Socket, address: str) -> None:
        self.data = data
        self.monitor = monitor
        self.address = address
        self._met = False

    def ended(self) -> MessagingError | None:
        """Return the error of a connection that has ended, None when it has not."""
        while int(self.monitor.get(zmq.EVENTS)) & _POLLIN:
            event, value = _EVENT.unpack(self.monitor.recv_multipart(NOBLOCK)[0][: _EVENT.size])
            if event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return lost() if self._met else _never_met(self.address, event, value)
            self._met = True
        return None

    def close(self) -> None:
        """Close both; what was sent goes out."""
        self.data.disable_monitor()
        self.monitor.close(linger=0)
        self.data.close()


def dealer(context: Context, address: str, limits: Limits, network: Network | None = None) -> Sockets:
    """Open a socket for calls.

    Raises:
        NotRunning: Nobody listens there.
        NotPermitted: This user may not use it.
        InvalidInput: It is no address, or one on a network and there is no key.
    """
    _check(address, network)
    return _connect(context.socket(zmq.DEALER), address, limits, network)


def subscriber(
    context: Context, address: str, limits: Limits, prefixes: Iterable[bytes], network: Network | None = None
) -> Sockets:
    """Open a socket that receives events that begin with one of the prefixes; raises as `dealer`."""
    _check(address, network)
    socket = context.socket(zmq.SUB)
    for prefix in prefixes:
        socket.set(zmq.SUBSCRIBE, prefix)
    return _connect(socket, address, limits, network)


def _check(address: str, network: Network | None) -> None:
    """Raise what can be known of an address before there is a socket."""
    from ostler.messaging.zmq.tcp import parse

    parse(address)
    if network is None or not network.server:
        raise InvalidInput(
            f"{address} is on a network, where nobody talks without keys",
            hint="give the server's public key and a secret key of your own; see `ostler keys`",
        )


def _connect(socket: Socket, address: str, limits: Limits, network: Network | None) -> Sockets:
    set_options(socket, limits, network)
    told = (
        zmq.Event.HANDSHAKE_SUCCEEDED
        | zmq.Event.DISCONNECTED
        | zmq.Event.CLOSED
        | zmq.Event.CONNECT_RETRIED
        | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
        | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
        | zmq.Event.HANDSHAKE_FAILED_AUTH
    )
    monitor = socket.get_monitor_socket(told)
    socket.connect(address)
    return Sockets(socket, monitor, address)


def lost() -> ConnectionLost:
    """Return the error of a link whose server has gone."""
    return ConnectionLost("the daemon closed the connection", hint="see `systemctl status ostler`")


def _never_met(address: str, event: int, value: int) -> MessagingError:
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and value == _FULL:
        return Busy(
            f"the daemon at {address} has as many connections as it takes",
            hint="close some, or raise `max_connections` in [messaging]",
            retry_after=1.0,
        )
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return NotPermitted(
            f"the daemon at {address} does not know the key of this client, or gives it no role",
            hint="an administrator gives it a name in [network.keys], and that a role in [access]",
        )
    if address.startswith("tcp://"):
        return _not_reached(address, event)
    # A process that is killed closes its connections a moment before it stops listening.
    return NotRunning(
        "the daemon stopped before it had taken anything",
        hint="start it with `ostler run` or `systemctl start ostler`",
    )


def _not_reached(address: str, event: int) -> MessagingError:
    if event in (zmq.EVENT_CONNECT_RETRIED, zmq.EVENT_CLOSED):
        return NotRunning(
            f"nobody answers at {address}",
            hint="is the daemon running, is `rpc` of its [network] set, and does a firewall let this through?",
        )
    return NotPermitted(
        f"what answers at {address} ended the handshake: it does not hold the server's key that was given, or is full",
        hint="ask its administrator for the public key: `ostler keys show`",
    )


def send(socket: Socket, data: bytes) -> None:
    """Send without waiting.

    Raises:
        Busy: The server does not take what is sent.
    """
    try:
        socket.send(data, NOBLOCK)
    except zmq.Again:
        raise Busy(
            "the daemon does not take what is sent to it", hint="is it stopped? see `ostler status`", retry_after=1.0
        ) from None


class BlockingLink:
    """A client's end that waits by itself. One thread at a time.

    Args:
        sockets: The open sockets.
    """

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._poller = zmq.Poller()
        self._poller.register(sockets.data, zmq.POLLIN)
        self._poller.register(sockets.monitor, zmq.POLLIN)
        # The plain method of the base class: this runs for each message.
        self._recv: Callable[[], bytes] = partial(zmq.backend.Socket.recv, sockets.data)
        sockets.data.set(zmq.RCVTIMEO, _SOON)
        self._heard = 0.0
        self._lost: MessagingError | None = None
        self._closed = False

    def alive(self) -> bool:
        """See `Link.alive`."""
        if self._lost is None and monotonic() - self._heard > _FRESH:
            self._lost = self._sockets.ended()
        return self._lost is None

    def receive_soon(self) -> list[bytes]:
        """See `Link.receive_soon`."""
        if self._lost is None:
            try:
                # Waiting for one socket takes half the time of waiting for two. What the monitor has to say comes
                # after what was received anyhow, and is looked at when nothing is.
                found = [self._recv()]
            except zmq.Again:
                return []
            self._heard = monotonic()
            return found
        return []

    def send(self, data: bytes, longest: float | None = None) -> None:
        """See `Link.send`; it is handed over at once or not at all."""
        if self._lost is not None:
            raise self._lost
        send(self._sockets.data, data)

    def receive(self, timeout: float) -> list[bytes]:
        """See `Link.receive`."""
        if self._lost is not None:
            raise self._lost
        ready = dict(self._poller.poll(max(0, int(timeout * 1000 + 0.999))))
        # In this order: a server that answered and then went has answered.
        ended = self._sockets.ended() if self._sockets.monitor in ready else None
        found = self._read()
        if ended is not None:
            self._lost = ended
            if not found:
                raise ended
        return found

    def close(self) -> None:
        """See `Link.close`."""
        if not self._closed:
            self._closed = True
            self._sockets.close()

    def abandon(self) -> None:
        """See `Link.abandon`; the sockets of ZeroMQ know by themselves that they are the parent's."""
        self._closed = True

    def _read(self) -> list[bytes]:
        found: list[bytes] = []
        data = self._sockets.data
        # Asking is cheaper than the exception that ends reading until there is nothing left.
        size = 0
        while len(found) < _BATCH and size < _BATCH_BYTES and int(data.get(zmq.EVENTS)) & _POLLIN:
            frame = data.recv(NOBLOCK, copy=False)
            if not frame.more:
                found.append(frame.bytes)
                size += len(found[-1])
                continue
            while data.get(zmq.RCVMORE):
                data.recv(NOBLOCK)
        return found
