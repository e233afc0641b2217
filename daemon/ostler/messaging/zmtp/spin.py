"""Keeps the loop awake for a moment after a message, where that pays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ostler.messaging.spin_backoff import SpinBackoff

_SPIN = 50e-6
"""Seconds for which the loop stays awake after a message; as long as the kernel advises for its own busy polling."""
_PREEMPTED = 25e-6
"""Seconds between two turns of a loop that does nothing, after which somebody else has run on its core."""
_SLOW_SEND = 30e-6
"""Seconds that a send may take, unless whoever is woken up by it runs on the same core, and at once."""
_TOLERANCE = 8
"""Another process may come in between now and then; whoever shares the core with its callers is put aside each time."""


class SpinWait:
    """Has the loop look for more instead of going to sleep: a wake-up costs more than a short call.

    On a core that its callers run on as well, it is they who pay for it. A loop that was put aside while it spins, or a
    thread while it sends, finds out by the clock, and the loop backs off. On the loop's thread, but for `sent`.

    Args:
        may_spin: Asked each time. Not while threads have work: they need what the loop would use up.
    """

    def __init__(self, may_spin: Callable[[], bool]) -> None:
        self.backoff = SpinBackoff(_TOLERANCE)
        self._may_spin = may_spin
        self._loop = asyncio.get_running_loop()
        self._until = 0.0
        self._looked_at = 0.0
        self._spins = False
        self._slow_send = False

    def sent(self, seconds: float) -> None:
        """Take note of how long a send took. Any thread."""
        if seconds > _SLOW_SEND:
            self._slow_send = True

    def begin(self) -> None:
        """Spin for a moment from now on; after a message."""
        if not self._may_spin():
            return
        if self._slow_send:
            self._slow_send = False
            self.backoff.learn(came=False)
        elif self._spins:
            self.backoff.learn(came=True)
        if not self._spins and self.backoff.left():
            self._spins = True
            self._loop.call_soon(self._look)
        self._looked_at = now = self._loop.time()
        self._until = now + _SPIN

    def _look(self) -> None:
        now = self._loop.time()
        preempted = now - self._looked_at > _PREEMPTED
        if preempted:
            self.backoff.learn(came=False)
        if preempted or now >= self._until or not self._may_spin():
            self._spins = False
            return
        self._looked_at = now
        self._loop.call_soon(self._look)
