"""Drives a ZeroMQ socket from the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq

if TYPE_CHECKING:
    from ostler.messaging.zmq.options import Socket

_BATCH = 256
"""So many messages are taken in one turn of the loop; timers and other sockets come in between."""

_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_MAYBE = 4


class Drain:
    """Calls `take` again and again while the socket has messages, and gives the loop its turn in between.

    The descriptor of a ZeroMQ socket is edge-triggered: it wakes the loop once, and any call on the socket may take
    that wake-up away. So the socket is read until it is empty, and looked at after each send outside of that.

    Args:
        socket: The socket.
        take: Takes one message; raises `zmq.Again` when there is none.
    """

    def __init__(self, socket: Socket, take: Callable[[], None]) -> None:
        self._take = take
        # The plain getter of the base class: this runs for each message.
        self._get: Callable[[int], Any] = partial(zmq.backend.Socket.get, socket)
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.get(zmq.FD))
        self._inside = False
        self._scheduled = False
        self._open = True
        self._loop.add_reader(self._fd, self._ready)
        self._schedule()

    def close(self) -> None:
        """Read no more. Before the socket is closed."""
        self._open = False
        self._loop.remove_reader(self._fd)

    def after_send(self) -> None:
        """Look whether a send has taken away the wake-up for what has come in."""
        if not self._inside and not self._scheduled and self._get(_EVENTS) & _POLLIN:
            self._schedule()

    def _is_open(self) -> bool:
        return self._open

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._ready)

    def _ready(self) -> None:
        self._scheduled = False
        if not self._open:
            return
        self._inside = True
        take, get = self._take, self._get
        try:
            # Asking is cheaper than an exception where there is one message; under load there is always another.
            for _ in range(_MAYBE):
                if not (self._is_open() and get(_EVENTS) & _POLLIN):
                    return
                take()
            for _ in range(_BATCH):
                if not self._is_open():
                    return
                take()
        except zmq.Again:
            return
        finally:
            self._inside = False
        self._schedule()
