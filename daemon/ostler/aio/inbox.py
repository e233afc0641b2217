"""From threads to the loop, in batches."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from ostler import fork

_MOST_TIME = 0.003
"""Seconds for which callables are run in one turn of the loop."""

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
        self._before: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []
        self._gate = threading.Lock()
        self._gate.acquire()
        self._waiting = False

    def around(self, before: Callable[[], None], after: Callable[[], None]) -> Callable[[], None]:
        """Have these called before and after each batch; returns what undoes this.

        On the loop's thread; they must not raise.
        """
        self._before.append(before)
        self._after.append(after)

        def undo() -> None:
            self._before.remove(before)
            self._after.remove(after)

        return undo

    def post(self, callback: Callable[[], None]) -> None:
        """Have the loop run `callback` soon. Any thread. After the loop has closed the call is dropped."""
        if fork.in_child:
            raise fork.not_here("the event loop")
        self._queue.append(callback)
        if self._awake:
            return
        if self._waiting:
            self._open_gate()
            return
        # Two threads may both see False: that costs one wake-up too many, never one too few, because the loop
        # clears the flag before it drains.
        self._awake = True
        try:
            self.loop.call_soon_threadsafe(self._drain, context=self._context)
        except RuntimeError:  # the loop has closed; the process is on its way out
            self._awake = False
            self._queue.clear()

    def wait(self, seconds: float) -> bool:
        """Wait for something to be posted, and run it. On the loop's thread, which stands.

        Returns:
            Whether there was something, or somebody said `end_wait`.

        For moments only, when what is waited for comes sooner than the loop would have gone to sleep and woken up.
        """
        self._waiting = True
        ended = not self._queue and self._gate.acquire(timeout=seconds)
        # Whoever saw that we wait has put its callable into the queue before: it is in what is run now, even if the
        # gate opens too late. A gate that opens too late ends the next wait too early, which harms nobody.
        self._waiting = False
        return self._context.run(self._run_batch) or ended

    def end_wait(self) -> None:
        """End a `wait` that is under way, and do nothing to a loop that sleeps. Any thread."""
        if self._waiting:
            self._open_gate()

    def _open_gate(self) -> None:
        self._waiting = False
        try:
            self._gate.release()
        except RuntimeError:  # another thread was faster
            pass

    def _drain(self) -> None:
        self._awake = False
        self._run_batch()

    def _run_batch(self) -> bool:
        queue = self._queue
        if not queue:
            return False
        for before in self._before:
            before()
        count, until = len(queue), monotonic() + _MOST_TIME
        while count:
            count -= 1
            callback = queue.popleft()
            try:
                callback()
            except (Exception, SystemExit):  # noqa: BLE001 - reported, and the rest of the batch goes on
                _log.exception("a hand-over to the loop failed")
            if not count & 7 and monotonic() >= until:
                break
        for after in self._after:
            after()
        if count and not self._awake:
            # The rest after the loop's other work: what threads make must not keep it from its timers and signals.
            self._awake = True
            self.loop.call_soon(self._drain, context=self._context)
        return True
