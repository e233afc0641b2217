"""From threads to the loop, in batches."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Inbox:
    """Hands callables from any thread to the loop; one wake-up serves all that came since the last.

    `loop.call_soon_threadsafe` writes to a pipe for each call; under load that is most of the cost of a hand-over, so
    only the first of a batch wakes the loop.

    Args:
        loop: The loop that runs what is posted.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._queue: deque[Callable[[], None]] = deque()
        self._awake = False
        # What is posted by one request is run together with what others posted: it must see none of theirs.
        self._context = contextvars.copy_context()

    def post(self, callback: Callable[[], None]) -> None:
        """Have the loop run `callback` soon. Any thread. After the loop has closed the call is dropped."""
        self._queue.append(callback)
        if self._awake:
            return
        # Two threads may both see False: that costs one wake-up too many, never one too few, because the loop
        # clears the flag before it drains.
        self._awake = True
        try:
            self.loop.call_soon_threadsafe(self._drain, context=self._context)
        except RuntimeError:  # the loop has closed; the process is on its way out
            self._awake = False
            self._queue.clear()

    def _drain(self) -> None:
        self._awake = False
        for _ in range(len(self._queue)):
            callback = self._queue.popleft()
            try:
                callback()
            except (Exception, SystemExit):  # noqa: BLE001 - reported, and the rest of the batch goes on
                _log.exception("a hand-over to the loop failed")
