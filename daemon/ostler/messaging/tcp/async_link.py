"""A client's end on a loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import zmq

from ostler.messaging.tcp.socket_options import NOBLOCK
from ostler.messaging.tcp.socket_reader import SocketReader
from ostler.messaging.tcp.sync_link import ClientSocket, connection_lost_error, send_nowait
from ostler.messaging.wire.transport import OnLost, OnMessage


class AsyncTcpLink:
    """A client's end on the running loop.

    Args:
        socket: The open sockets.
        on_message: Takes each message.
        on_lost: Told once when the server has gone, after all messages that had come.
    """

    def __init__(self, socket: ClientSocket, on_message: OnMessage, on_lost: OnLost) -> None:
        self._socket = socket
        self._on_message = on_message
        self._on_lost = on_lost
        self._closed = False
        self._recv: Callable[..., Any] = partial(zmq.backend.Socket.recv, socket.data)
        self._data_reader = SocketReader(socket.data, self._receive_one)
        self._monitor_reader = SocketReader(socket.monitor, self._on_monitor_event)

    def send(self, data: bytes) -> None:
        """See `AsyncLink.send`."""
        if self._closed:
            raise connection_lost_error()
        send_nowait(self._socket.data, data)
        self._data_reader.check_after_send()

    def close(self) -> None:
        """See `AsyncLink.close`."""
        if self._closed:
            return
        self._closed = True
        self._data_reader.close()
        self._monitor_reader.close()
        self._socket.close()

    def close_after_fork(self) -> None:
        """See `AsyncLink.close_after_fork`; the sockets of ZeroMQ know by themselves that they are the parent's."""
        self._closed = True

    def _receive_one(self) -> None:
        # A message of ours is one frame; the frames of another kind fail one by one to be decoded.
        self._on_message(self._recv(NOBLOCK))

    def _on_monitor_event(self) -> None:
        error = self._socket.poll_error()
        if error is None:
            raise zmq.Again
        try:
            # A server that answered and then went has answered.
            while not self._closed:
                self._receive_one()
        except zmq.Again:
            pass
        if not self._closed:
            self.close()
            self._on_lost(error)
