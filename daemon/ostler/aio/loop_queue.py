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

_MAX_BATCH_TIME = 0.003
"""Seconds for which callables are run in one turn of the loop."""

_log = logging.getLogger(__name__)


class LoopQueue:
    """Hands callables from any thread to the loop; one wake-up serves all that came since the last.

    `loop.call_soon_threadsafe` writes to a pipe for each call; under load that is most of the cost of a hand-over, so
    only the first of a batch wakes the loop.

    Args:
        loop: The loop that runs what is posted.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._queue: deque[Callable[[], None]] = deque()
        self._is_wakeup_pending = False
        # What is posted by one request is run together with what others posted: it must see none of theirs.
        self._context = contextvars.copy_context()
        self._before: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []
        self._gate = threading.Lock()
        self._gate.acquire()
        self._is_waiting = False

    def add_batch_hooks(self, before: Callable[[], None], after: Callable[[], None]) -> Callable[[], None]:
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
            raise fork.forked_child_error("the event loop")
        self._queue.append(callback)
        if self._is_wakeup_pending:
            return
        if self._is_waiting:
            self._release_gate()
            return
        # Two threads may both see False: that costs one wake-up too many, never one too few, because the loop
        # clears the flag before it drains.
        self._is_wakeup_pending = True
        try:
            self.loop.call_soon_threadsafe(self._on_wakeup, context=self._context)
        except RuntimeError:  # the loop has closed; the process is on its way out
            self._is_wakeup_pending = False
            self._queue.clear()

    def wait_and_run(self, seconds: float) -> bool:
        """Wait for something to be posted, and run it. On the loop's thread, which blocks.

        Returns:
            Whether there was something, or `end_wait` was called.

        For short waits only, when the result arrives sooner than the loop could sleep and wake up.
        """
        self._is_waiting = True
        ended = not self._queue and self._gate.acquire(timeout=seconds)
        # Whoever saw that we wait has put its callable into the queue before: it is in what is run now, even if the
        # gate opens too late. A gate that opens too late ends the next wait too early, which is harmless.
        self._is_waiting = False
        return self._context.run(self._run_batch) or ended

    def end_wait(self) -> None:
        """End a `wait` that is in progress, and do nothing to a loop that sleeps. Any thread."""
        if self._is_waiting:
            self._release_gate()

    def _release_gate(self) -> None:
        self._is_waiting = False
        try:
            self._gate.release()
        except RuntimeError:  # another thread was faster
            pass

    def _on_wakeup(self) -> None:
        self._is_wakeup_pending = False
        self._run_batch()

    def _run_batch(self) -> bool:
        queue = self._queue
        if not queue:
            return False
        for before in self._before:
            before()
        count, until = len(queue), monotonic() + _MAX_BATCH_TIME
        while count:
            count -= 1
            callback = queue.popleft()
            try:
                callback()
            except (Exception, SystemExit):  # noqa: BLE001 - reported, and the rest of the batch goes on
                _log.exception("a callback handed over to the loop failed")
            if not count & 7 and monotonic() >= until:
                break
        for after in self._after:
            after()
        if count and not self._is_wakeup_pending:
            # The rest after the loop's other work: what threads make must not keep it from its timers and signals.
            self._is_wakeup_pending = True
            self.loop.call_soon(self._on_wakeup, context=self._context)
        return True
