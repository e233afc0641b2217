"""A client's sockets, and its end without a loop. Imports no asyncio: the command starts with this."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING

import zmq

from ostler.errors import Busy, ConnectionLost, DaemonNotRunning, InvalidInput, MessagingError, NotPermitted
from ostler.messaging.tcp.socket_options import NOBLOCK, set_socket_options
from ostler.messaging.wire.transport import TransportLimits

if TYPE_CHECKING:
    from ostler.messaging.tcp.curve import CurveOptions
    from ostler.messaging.tcp.socket_options import Context, Socket

_MAX_BATCH_MESSAGES = 1000
_MAX_BATCH_BYTES = 4 * 1024 * 1024
"""So many messages, or bytes, are read before somebody looks at the time again."""
_POLLIN = int(zmq.POLLIN)
_POLL_MILLISECONDS = 10
"""Milliseconds of a wait for the server alone, before looking at the connection as well."""
_ALIVE_TIME = 0.01
"""Seconds for which a server that was heard counts as alive."""
_ZAP_BUSY = 500
"""The status that a daemon sends to a client above its limit of connections."""
_EVENT_HEADER = Struct("=HI")
"""How an event of the monitor begins: its number, and a value that depends on it."""


class ClientSocket:
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
        self._has_connected = False

    def poll_error(self) -> MessagingError | None:
        """Return the error of a connection that has ended, None when it has not."""
        while int(self.monitor.get(zmq.EVENTS)) & _POLLIN:
            event, value = _EVENT_HEADER.unpack(self.monitor.recv_multipart(NOBLOCK)[0][: _EVENT_HEADER.size])
            if event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return connection_lost_error() if self._has_connected else _connect_error(self.address, event, value)
            self._has_connected = True
        return None

    def close(self) -> None:
        """Close both; what was sent goes out."""
        self.data.disable_monitor()
        self.monitor.close(linger=0)
        self.data.close()


def open_dealer(
    context: Context, address: str, limits: TransportLimits, curve: CurveOptions | None = None
) -> ClientSocket:
    """Open a socket for calls.

    Raises:
        DaemonNotRunning: Nothing listens there.
        NotPermitted: This user is not allowed to use it.
        InvalidInput: It is not an address, or a network address without a key.
    """
    _check_address(address, curve)
    return _connect(context.socket(zmq.DEALER), address, limits, curve)


def open_subscriber(
    context: Context,
    address: str,
    limits: TransportLimits,
    prefixes: Iterable[bytes],
    curve: CurveOptions | None = None,
) -> ClientSocket:
    """Open a socket that receives events that begin with one of the prefixes; raises as `open_dealer`."""
    _check_address(address, curve)
    socket = context.socket(zmq.SUB)
    for prefix in prefixes:
        socket.set(zmq.SUBSCRIBE, prefix)
    return _connect(socket, address, limits, curve)


def _check_address(address: str, curve: CurveOptions | None) -> None:
    """Raise what can be known of an address before there is a socket."""
    from ostler.messaging.tcp.bind import parse_tcp_address  # what listens has more to import than a client needs

    parse_tcp_address(address)
    if curve is None or not curve.server_key:
        raise InvalidInput(
            f"{address} is a network address, which requires keys",
            hint="set the server's public key and your own secret key; see `ostler keys`",
        )


def _connect(socket: Socket, address: str, limits: TransportLimits, curve: CurveOptions | None) -> ClientSocket:
    set_socket_options(socket, limits, curve)
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
    return ClientSocket(socket, monitor, address)


def connection_lost_error() -> ConnectionLost:
    """Return the error of a link whose server has gone."""
    return ConnectionLost("the daemon closed the connection", hint="see `systemctl status ostler`")


def _connect_error(address: str, event: int, value: int) -> MessagingError:
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and value == _ZAP_BUSY:
        return Busy(
            f"the daemon at {address} has reached its limit of connections",
            hint="close some, or raise `max_connections` in [messaging]",
            retry_after=1.0,
        )
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return NotPermitted(
            f"the daemon at {address} does not know the key of this client, or grants it no role",
            hint="an administrator names the key in [network.keys] and grants that name a role in [access]",
        )
    if address.startswith("tcp://"):
        return _unreachable_error(address, event)
    # A process that is killed closes its connections a moment before it stops listening.
    return DaemonNotRunning(
        "the daemon stopped before it had accepted anything",
        hint="start it with `ostler run` or `systemctl start ostler`",
    )


def _unreachable_error(address: str, event: int) -> MessagingError:
    if event in (zmq.EVENT_CONNECT_RETRIED, zmq.EVENT_CLOSED):
        return DaemonNotRunning(
            f"no answer from {address}",
            hint="check that the daemon runs, that `rpc` of its [network] is set, and that no firewall blocks this",
        )
    return NotPermitted(
        f"the server at {address} ended the handshake: it does not have the given server key, or is full",
        hint="ask its administrator for the public key: `ostler keys show`",
    )


def send_nowait(socket: Socket, data: bytes) -> None:
    """Send without waiting.

    Raises:
        Busy: The server does not take what is sent.
    """
    try:
        socket.send(data, NOBLOCK)
    except zmq.Again:
        raise Busy(
            "the daemon does not read what is sent to it",
            hint="it may be stopped; see `ostler status`",
            retry_after=1.0,
        ) from None


class SyncTcpLink:
    """A client's end that waits by itself. One thread at a time.

    Args:
        socket: The open sockets.
    """

    def __init__(self, socket: ClientSocket) -> None:
        self._socket = socket
        self._poller = zmq.Poller()
        self._poller.register(socket.data, zmq.POLLIN)
        self._poller.register(socket.monitor, zmq.POLLIN)
        # The plain method of the base class: this runs for each message.
        self._recv: Callable[[], bytes] = partial(zmq.backend.Socket.recv, socket.data)
        socket.data.set(zmq.RCVTIMEO, _POLL_MILLISECONDS)
        self._last_received_at = 0.0
        self._lost: MessagingError | None = None
        self._closed = False

    def is_alive(self) -> bool:
        """See `SyncLink.alive`."""
        if self._lost is None and monotonic() - self._last_received_at > _ALIVE_TIME:
            self._lost = self._socket.poll_error()
        return self._lost is None

    def receive_briefly(self) -> list[bytes]:
        """See `SyncLink.receive_briefly`."""
        if self._lost is None:
            try:
                # Waiting for one socket takes half the time of waiting for two. What the monitor has to say comes
                # after what was received anyhow, and is looked at when nothing is.
                found = [self._recv()]
            except zmq.Again:
                return []
            self._last_received_at = monotonic()
            return found
        return []

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """See `SyncLink.send`; it is handed over at once or not at all."""
        if self._lost is not None:
            raise self._lost
        send_nowait(self._socket.data, data)

    def receive(self, timeout: float) -> list[bytes]:
        """See `SyncLink.receive`."""
        if self._lost is not None:
            raise self._lost
        ready = dict(self._poller.poll(max(0, int(timeout * 1000 + 0.999))))
        # In this order: a server that answered and then went has answered.
        ended = self._socket.poll_error() if self._socket.monitor in ready else None
        found = self._read()
        if ended is not None:
            self._lost = ended
            if not found:
                raise ended
        return found

    def close(self) -> None:
        """See `SyncLink.close`."""
        if not self._closed:
            self._closed = True
            self._socket.close()

    def close_after_fork(self) -> None:
        """See `SyncLink.close_after_fork`; the sockets of ZeroMQ know by themselves that they are the parent's."""
        self._closed = True

    def _read(self) -> list[bytes]:
        found: list[bytes] = []
        data = self._socket.data
        # Asking is cheaper than the exception that ends reading until there is nothing left.
        size = 0
        while len(found) < _MAX_BATCH_MESSAGES and size < _MAX_BATCH_BYTES and int(data.get(zmq.EVENTS)) & _POLLIN:
            frame = data.recv(NOBLOCK, copy=False)
            if not frame.more:
                found.append(frame.bytes)
                size += len(found[-1])
                continue
            while data.get(zmq.RCVMORE):
                data.recv(NOBLOCK)
        return found
