"""Keeps the daemon's signals the daemon's: libraries set handlers of their own, or take the wake-up descriptor."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Iterable

from ostler.errors import joined

_log = logging.getLogger(__name__)
_POLL_INTERVAL = 1.0
_SAY_EVERY = 60.0
"""Seconds between two warnings about somebody who takes them again and again."""


class SignalGuard:
    """Looks every second whether the loop still gets the daemon's signals, and takes them back.

    On the main thread, when the handlers of the loop are installed.

    Args:
        numbers: The signals.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._handlers = {number: signal.getsignal(number) for number in numbers}
        self._descriptor = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(self._descriptor)
        self._said = -_SAY_EVERY

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(_POLL_INTERVAL)
            self.look()

    def look(self) -> None:
        """Take back what somebody has taken, and say so."""
        taken = [number for number, handler in self._handlers.items() if signal.getsignal(number) != handler]
        for number in taken:
            signal.signal(number, self._handlers[number])
            signal.siginterrupt(number, False)
        found = signal.set_wakeup_fd(self._descriptor)
        names = [signal.Signals(number).name for number in taken]
        if found != self._descriptor:
            names.append("the wake-up descriptor of signals")
        if names and time.monotonic() - self._said >= _SAY_EVERY:
            self._said = time.monotonic()
            _log.warning("a plugin or a library took %s; the daemon has taken it back", joined(names))
