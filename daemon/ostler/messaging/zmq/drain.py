"""Drives a ZeroMQ socket from the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq

from ostler.aio.round_robin import TURN

if TYPE_CHECKING:
    from ostler.messaging.zmq.options import Socket

_BATCH = 256
"""So many messages are taken in one turn of the loop, and for no longer than `TURN`; the rest comes in between."""

_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_FEW = 3
"""Up to so many messages at a time, asking whether there is another costs less than the exception that says no."""


class Drain:
    """Calls `take` again and again while the socket has messages, and gives the loop its turn in between.

    The descriptor of a ZeroMQ socket is edge-triggered: it wakes the loop once, and any call on the socket may take
    that wake-up away. So the socket is read until it is empty, and looked at after each send outside of that.

    A wake-up costs more than the work of a short call. So the loop *lingers*: for a moment after the last message it
    looks again with each turn instead of going to sleep. Whatever else the loop has to do comes in between as ever.

    Args:
        socket: The socket.
        take: Takes one message, and returns whether that is enough for this turn of the loop; raises `zmq.Again` when
            there is none.
        linger: Seconds for which the loop stays awake after a message; 0 to sleep at once.
        may_linger: Asked each time. Not while threads have work: they need what the loop would use up.
    """

    def __init__(
        self,
        socket: Socket,
        take: Callable[[], object],
        linger: float = 0.0,
        may_linger: Callable[[], bool] = lambda: True,
    ) -> None:
        self.passes = 0
        """How often it has begun to read."""
        self._take = take
        self._linger = linger
        self._may_linger = may_linger
        # The plain getter of the base class: this runs for each message.
        self._get: Callable[[int], Any] = partial(zmq.backend.Socket.get, socket)
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.get(zmq.FD))
        self._inside = False
        self._scheduled = False
        self._open = True
        self._last_time = 0
        self._taken = 0
        self._awake_until = 0.0
        self._loop.add_reader(self._fd, self._woken)
        self._schedule()

    def close(self) -> None:
        """Read no more. Before the socket is closed."""
        self._open = False
        self._loop.remove_reader(self._fd)

    def after_send(self) -> None:
        """Look whether a send has taken away the wake-up for what has come in."""
        if not self._inside and not self._scheduled:
            if self._linger:
                self._awake_until = self._loop.time() + self._linger
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._ready)

    def _woken(self) -> None:
        # Reading is scheduled again after each pass; a second one beside it would do the same, and never end.
        if not self._scheduled:
            self._ready()

    def _ready(self) -> None:
        self._scheduled = False
        if not self._open:
            return
        self._inside = True
        self.passes += 1
        self._taken = 0
        enough = False
        try:
            enough = self._read()
        except zmq.Again:
            pass
        finally:
            self._inside = False
            self._last_time = self._taken
        if enough or self._stays_awake(self._taken):
            self._schedule()

    def _read(self) -> bool:
        """Take messages until it is enough for this turn, which is returned; raises `zmq.Again` when none is left."""
        take, get = self._take, self._get
        until = self._loop.time() + TURN
        if self._last_time <= _FEW:
            while self._taken < _FEW and self._open and get(_EVENTS) & _POLLIN:
                self._taken += 1
                if take():
                    return True
            if self._taken < _FEW:
                return False
        while self._open and self._taken < _BATCH:
            if take() or self._loop.time() >= until:
                self._taken += 1
                return True
            self._taken += 1
        return self._open

    def _stays_awake(self, taken: int) -> bool:
        if not self._linger or not self._may_linger():
            return False
        now = self._loop.time()
        if taken:
            self._awake_until = now + self._linger
        return now < self._awake_until
