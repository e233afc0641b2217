"""Protects the daemon's signal handlers: libraries set handlers of their own, or replace the wake-up descriptor."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Iterable

from ostler.errors import join_words

_log = logging.getLogger(__name__)
_POLL_INTERVAL = 1.0
_WARNING_INTERVAL = 60.0
"""Seconds between two warnings when they are replaced repeatedly."""


class SignalGuard:
    """Checks every second that the loop still gets the daemon's signals, and restores them.

    On the main thread, when the handlers of the loop are installed.

    Args:
        numbers: The signals.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._handlers = {number: signal.getsignal(number) for number in numbers}
        self._wakeup_fd = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(self._wakeup_fd)
        self._last_warning_at = -_WARNING_INTERVAL

    async def run(self) -> None:
        """Check indefinitely."""
        while True:
            await asyncio.sleep(_POLL_INTERVAL)
            self.check()

    def check(self) -> None:
        """Restore what was replaced, and log it."""
        taken = [number for number, handler in self._handlers.items() if signal.getsignal(number) != handler]
        for number in taken:
            signal.signal(number, self._handlers[number])
            signal.siginterrupt(number, False)
        found = signal.set_wakeup_fd(self._wakeup_fd)
        names = [signal.Signals(number).name for number in taken]
        if found != self._wakeup_fd:
            names.append("signal wake-up descriptor")
        if names and time.monotonic() - self._last_warning_at >= _WARNING_INTERVAL:
            self._last_warning_at = time.monotonic()
            _log.warning("a plugin or library replaced the daemon's %s; restored", join_words(names))
