"""Locks of the volumes that requests of this process are working on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ostler import Context, waiting_for

_SHORT_WAIT = 0.02
"""Seconds after which a wait is no longer quick."""
_RECHECK_INTERVAL = 0.1
"""Interval in seconds at which a waiting request checks whether it was cancelled."""


class VolumeLocks:
    """Locks that distinguish a record that is being worked on from one that a crash has left behind.

    Both have the same state in the database. Every request holds the names that it works with from before its first
    write of a record until after the last; reconciliation takes a name exclusively, and skips those that are held.
    Which of two requests may proceed is decided by the state in the database, not here.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._shared: Counter[str] = Counter()
        self._exclusive: set[str] = set()

    @contextmanager
    def lock_shared(self, ctx: Context, *names: str) -> Iterator[None]:
        """Hold names inside the block; waits while reconciliation has one of them. Not on the loop's thread.

        Raises:
            Cancelled: The caller cancelled the request while it waited.
            DeadlineExceeded: The deadline passed while it waited.
        """
        with self._condition:
            while self._exclusive.intersection(names):
                ctx.check()
                self._wait()
            self._shared.update(names)
        try:
            yield
        finally:
            with self._condition:
                self._shared.subtract(names)
                self._shared += Counter()  # drops those that are at zero

    def _wait(self) -> None:
        """Wait briefly for a change; a backend that hangs in a reconciliation does not block threads of others."""
        if not self._condition.wait(_SHORT_WAIT):
            with waiting_for("volumes that are reconciled"):
                self._condition.wait(_RECHECK_INTERVAL)

    @contextmanager
    def lock_exclusive(self, name: str) -> Iterator[bool]:
        """Hold a name exclusively inside the block; yields False, and holds nothing, if it is held already."""
        with self.lock_all_exclusive([name]) as mine:
            yield bool(mine)

    @contextmanager
    def lock_all_exclusive(self, names: Iterable[str]) -> Iterator[set[str]]:
        """Hold names exclusively inside the block; yields, and holds, only those that are not held already.

        `release` releases names before the block ends.
        """
        with self._condition:
            mine = {name for name in names if not self._shared[name] and name not in self._exclusive}
            self._exclusive |= mine
        try:
            yield mine
        finally:
            self.release_exclusive(mine, list(mine))

    def release_exclusive(self, locked: set[str], names: Iterable[str]) -> None:
        """Release some of the names that `lock_all_exclusive` yielded."""
        with self._condition:
            self._exclusive.difference_update(names)
            locked.difference_update(names)
            self._condition.notify_all()
