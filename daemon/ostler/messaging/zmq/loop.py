"""A client's end on a loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import zmq

from ostler.messaging.transport import OnLost, OnMessage
from ostler.messaging.zmq.blocking import Sockets, lost, send
from ostler.messaging.zmq.drain import Drain
from ostler.messaging.zmq.options import NOBLOCK


class LoopLink:
    """A client's end on the running loop.

    Args:
        sockets: The open sockets.
        on_message: Takes each message.
        on_lost: Told once when the server has gone, after all messages that had come.
    """

    def __init__(self, sockets: Sockets, on_message: OnMessage, on_lost: OnLost) -> None:
        self._sockets = sockets
        self._on_message = on_message
        self._on_lost = on_lost
        self._closed = False
        self._recv: Callable[..., Any] = partial(zmq.backend.Socket.recv, sockets.data)
        self._data = Drain(sockets.data, self._take)
        self._monitor = Drain(sockets.monitor, self._ended)

    def send(self, data: bytes) -> None:
        """See `AsyncLink.send`."""
        if self._closed:
            raise lost()
        send(self._sockets.data, data)
        self._data.after_send()

    def close(self) -> None:
        """See `AsyncLink.close`."""
        if self._closed:
            return
        self._closed = True
        self._data.close()
        self._monitor.close()
        self._sockets.close()

    def abandon(self) -> None:
        """See `AsyncLink.abandon`; the sockets of ZeroMQ know by themselves that they are the parent's."""
        self._closed = True

    def _take(self) -> None:
        # A message of ours is one frame; the frames of another kind fail one by one to be decoded.
        self._on_message(self._recv(NOBLOCK))

    def _ended(self) -> None:
        error = self._sockets.ended()
        if error is None:
            raise zmq.Again
        try:
            # A server that answered and then went has answered.
            while not self._closed:
                self._take()
        except zmq.Again:
            pass
        if not self._closed:
            self.close()
            self._on_lost(error)
