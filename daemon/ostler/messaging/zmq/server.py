"""The server's end of calls: a ROUTER."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq

from ostler.messaging.transport import (
    ClientId,
    OnGarbage,
    Receive,
    ignore_batch,
    ignore_garbage,
    ignore_gone,
    take_for_known,
)
from ostler.messaging.zmq.drain import Drain
from ostler.messaging.zmq.listen import Entrance, Listening
from ostler.messaging.zmq.options import NOBLOCK, SNDMORE_NOBLOCK

if TYPE_CHECKING:
    from ostler.messaging.zmq.options import Context
    from ostler.types import Peer

_log = logging.getLogger(__name__)
_LINGER = 50e-6
"""Seconds for which the loop stays awake after a message; as long as the kernel advises for its own busy polling."""


class RouterLink:
    """The server's end of all its clients.

    Args:
        context: The ZeroMQ context.
        address: Where to listen.
        how: How to.

    Raises:
        OstlerError: The address cannot be taken; see `Entrance`.
    """

    threads_send = False
    core_is_ours = True

    def __init__(self, context: Context, address: str, how: Listening) -> None:
        self.dropped = 0
        self.on_garbage: OnGarbage = ignore_garbage
        self.may_linger: Callable[[], bool] = lambda: True
        self.on_batch: Callable[[], None] = ignore_batch
        self.on_gone: Callable[[ClientId], None] = ignore_gone
        self.knows: Callable[[Peer], bool] = take_for_known
        self._socket = context.socket(zmq.ROUTER)
        self._closed = False
        self._drain: Drain | None = None
        self._receive: Receive = _ignore
        # The methods of the base class without the conveniences on top of them: these run for each message.
        self._recv: Callable[..., Any] = partial(zmq.backend.Socket.recv, self._socket)
        self._send: Callable[..., Any] = partial(zmq.backend.Socket.send, self._socket)
        try:
            self._socket.set(zmq.ROUTER_MANDATORY, 1)
            self.entrance = Entrance(self._socket, address, how)
        except BaseException:
            self._socket.close(linger=0)
            raise
        self.address = self.entrance.address
        self._peers = self.entrance.peers

    def start(self, receive: Receive) -> None:
        """See `ServerLink.start`."""
        self._receive = receive
        self._drain = Drain(self._socket, self._take, _LINGER, self.may_linger)

    def send(self, client: ClientId, data: bytes) -> bool:
        """See `ServerLink.send`."""
        if self._closed:
            return False
        try:
            self._send(client, SNDMORE_NOBLOCK)
            self._send(data, NOBLOCK)
        except zmq.Again:
            self.dropped += 1  # it does not read; its calls will see that they have been forgotten
            return True
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return False
        if self._drain is not None:
            self._drain.after_send()
        return True

    def send_from_thread(self, client: ClientId, data: bytes, claim: Callable[[], bool]) -> bool:
        """See `ServerLink.send_from_thread`; a socket of libzmq belongs to one thread."""
        return False

    def hold(self) -> None:
        """See `ServerLink.hold`; libzmq does so by itself."""

    def let_go(self) -> None:
        """See `ServerLink.let_go`."""

    def close(self) -> None:
        """See `ServerLink.close`."""
        if self._closed:
            return
        self._closed = True
        self.entrance.close()
        if self._drain is not None:
            self._drain.close()
        self._socket.close()

    def _take(self) -> None:
        client = self._recv(NOBLOCK)
        frame = self._recv(NOBLOCK, False)
        if frame.more:
            self._skip_rest()
            self.on_garbage(self._peers.of(frame), "frames", "a message of several frames")
            return
        try:
            peer = self._peers.of(frame)
            if self._peers.changed(client, peer):
                self.on_gone(client)  # what the one before had under way is nothing for this one
            self._receive(client, frame.bytes, peer)
        except Exception:  # noqa: BLE001 - a defect of ours must not take the server down
            _log.exception("a message could not be handled")

    def _skip_rest(self) -> None:
        """Drop a message of more than one frame: it is none of ours."""
        while self._socket.get(zmq.RCVMORE):
            self._recv(NOBLOCK, False)


def _ignore(_client: ClientId, _data: object, _peer: object) -> None:
    """Stand in until the server has started."""
