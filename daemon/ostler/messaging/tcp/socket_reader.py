"""Drives a ZeroMQ socket from the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq

from ostler.aio.round_robin import TURN_TIME

if TYPE_CHECKING:
    from ostler.messaging.tcp.socket_options import Socket

_BATCH_SIZE = 256
"""So many messages are taken in one turn of the loop, and for no longer than `TURN_TIME`; the rest comes in between."""

_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_FEW_MESSAGES = 3
"""Up to so many messages at a time, asking whether there is another costs less than the exception that says no."""


class SocketReader:
    """Calls `receive_one` again and again while the socket has messages, and gives the loop its turn in between.

    The descriptor of a ZeroMQ socket is edge-triggered: it wakes the loop once, and any call on the socket may take
    that wake-up away. So the socket is read until it is empty, and looked at after each send outside of that.

    A wake-up costs more than the work of a short call. So the loop *lingers*: for a moment after the last message it
    looks again with each turn instead of going to sleep. Whatever else the loop has to do comes in between as ever.

    Args:
        socket: The socket.
        receive_one: Takes one message, and returns whether that is enough for this turn of the loop; raises
            `zmq.Again` when there is none.
        spin_time: Seconds for which the loop stays awake after a message; 0 to sleep at once.
        can_spin: Asked each time. Not while threads have work: they need what the loop would use up.
    """

    def __init__(
        self,
        socket: Socket,
        receive_one: Callable[[], object],
        spin_time: float = 0.0,
        can_spin: Callable[[], bool] = lambda: True,
    ) -> None:
        self.pass_count = 0
        """How often it has begun to read."""
        self._receive_one = receive_one
        self._spin_time = spin_time
        self._can_spin = can_spin
        # The plain getter of the base class: this runs for each message.
        self._get: Callable[[int], Any] = partial(zmq.backend.Socket.get, socket)
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.get(zmq.FD))
        self._is_reading = False
        self._is_scheduled = False
        self._is_open = True
        self._last_count = 0
        self._count = 0
        self._spin_until = 0.0
        self._loop.add_reader(self._fd, self._on_wakeup)
        self._schedule()

    def close(self) -> None:
        """Stop reading. Before the socket is closed."""
        self._is_open = False
        self._loop.remove_reader(self._fd)

    def check_after_send(self) -> None:
        """Look whether a send has taken away the wake-up for what has come in."""
        if not self._is_reading and not self._is_scheduled:
            if self._spin_time:
                self._spin_until = self._loop.time() + self._spin_time
            self._schedule()

    def _schedule(self) -> None:
        self._is_scheduled = True
        self._loop.call_soon(self._run)

    def _on_wakeup(self) -> None:
        # Reading is scheduled again after each pass; a second one beside it would do the same, and never end.
        if not self._is_scheduled:
            self._run()

    def _run(self) -> None:
        self._is_scheduled = False
        if not self._is_open:
            return
        self._is_reading = True
        self.pass_count += 1
        self._count = 0
        enough = False
        try:
            enough = self._read_batch()
        except zmq.Again:
            pass
        finally:
            self._is_reading = False
            self._last_count = self._count
        if enough or self._should_spin(self._count):
            self._schedule()

    def _read_batch(self) -> bool:
        """Take messages until it is enough for this turn, which is returned; raises `zmq.Again` when none is left."""
        take, get = self._receive_one, self._get
        until = self._loop.time() + TURN_TIME
        if self._last_count <= _FEW_MESSAGES:
            while self._count < _FEW_MESSAGES and self._is_open and get(_EVENTS) & _POLLIN:
                self._count += 1
                if take():
                    return True
            if self._count < _FEW_MESSAGES:
                return False
        while self._is_open and self._count < _BATCH_SIZE:
            if take() or self._loop.time() >= until:
                self._count += 1
                return True
            self._count += 1
        return self._is_open

    def _should_spin(self, count: int) -> bool:
        if not self._spin_time or not self._can_spin():
            return False
        now = self._loop.time()
        if count:
            self._spin_until = now + self._spin_time
        return now < self._spin_until
