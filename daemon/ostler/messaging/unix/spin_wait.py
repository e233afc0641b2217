"""Keeps the loop awake for a moment after a message, where that saves time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ostler.aio.spin_backoff import SpinBackoff

_SPIN_TIME = 50e-6
"""Seconds for which the loop stays awake after a message; as long as the kernel advises for its own busy polling."""
_PREEMPTION_TIME = 25e-6
"""Seconds between two turns of a loop that does nothing, after which somebody else has run on its core."""
_SLOW_SEND_TIME = 30e-6
"""Seconds that a send may take, unless whoever is woken up by it runs on the same core, and at once."""
_BACKOFF_TOLERANCE = 8
"""Another process may come in between now and then; whoever shares the core with its callers is put aside each time."""


class SpinWait:
    """Has the loop look for more instead of going to sleep: a wake-up costs more than a short call.

    On a core that its callers run on as well, it is they who pay for it. A loop that was put aside while it spins, or a
    thread while it sends, finds out by the clock, and the loop backs off. On the loop's thread, but for `record_send`.

    Args:
        can_spin: Asked each time. Not while threads have work: they need what the loop would use up.

    Attributes:
        is_spinning: Whether it keeps the loop awake now.
    """

    def __init__(self, can_spin: Callable[[], bool]) -> None:
        self.backoff = SpinBackoff(_BACKOFF_TOLERANCE)
        self._can_spin = can_spin
        self._loop = asyncio.get_running_loop()
        self._deadline = 0.0
        self._last_turn = 0.0
        self.is_spinning = False
        self._was_send_slow = False

    def record_send(self, seconds: float) -> None:
        """Record how long a send took. Any thread."""
        if seconds > _SLOW_SEND_TIME:
            self._was_send_slow = True

    def start(self) -> None:
        """Spin for a moment from now on; after a message."""
        if not self._can_spin():
            return
        if self._was_send_slow:
            self._was_send_slow = False
            self.backoff.record_wait(succeeded=False)
        elif self.is_spinning:
            self.backoff.record_wait(succeeded=True)
        if not self.is_spinning and self.backoff.should_wait():
            self.is_spinning = True
            self._loop.call_soon(self._spin)
        self._last_turn = now = self._loop.time()
        self._deadline = now + _SPIN_TIME

    def _spin(self) -> None:
        now = self._loop.time()
        preempted = now - self._last_turn > _PREEMPTION_TIME
        if preempted:
            self.backoff.record_wait(succeeded=False)
        if preempted or now >= self._deadline or not self._can_spin():
            self.is_spinning = False
            return
        self._last_turn = now
        self._loop.call_soon(self._spin)
