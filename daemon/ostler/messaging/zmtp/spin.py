"""Keeps the loop awake for a moment after a message, where that pays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ostler.messaging.spin_backoff import SpinBackoff

_SPIN = 50e-6
"""Seconds for which the loop stays awake after a message; as long as the kernel advises for its own busy polling."""
_PREEMPTED = 25e-6
"""Seconds between two turns of a loop that does nothing, after which somebody else has run on its core."""


class SpinWait:
    """Has the loop look for more instead of going to sleep: a wake-up costs more than a short call.

    On a core that others want to run on, it is they who pay for it, the caller first of all. A loop that was put aside
    while it spins finds out by its clock, and backs off. On the loop's thread.

    Args:
        may_spin: Asked each time. Not while threads have work: they need what the loop would use up.
    """

    def __init__(self, may_spin: Callable[[], bool]) -> None:
        self.backoff = SpinBackoff()
        self._may_spin = may_spin
        self._loop = asyncio.get_running_loop()
        self._until = 0.0
        self._looked_at = 0.0
        self._spins = False

    def begin(self) -> None:
        """Spin for a moment from now on; after a message."""
        if not self._may_spin():
            return
        if self._spins:
            self.backoff.learn(came=True)
        elif self.backoff.left():
            self._spins = True
            self._loop.call_soon(self._look)
        self._until = self._loop.time() + _SPIN
        self._looked_at = 0.0  # what was done since the last turn took its time

    def _look(self) -> None:
        now = self._loop.time()
        preempted = self._looked_at and now - self._looked_at > _PREEMPTED
        if preempted:
            self.backoff.learn(came=False)
        if preempted or now >= self._until or not self._may_spin():
            self._spins = False
            return
        self._looked_at = now
        self._loop.call_soon(self._look)
