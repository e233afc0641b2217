"""Which volumes are being worked on in this process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ostler import Context, waiting_for

_QUICK = 0.02
"""Seconds after which a wait is no longer quick."""
_RECHECK = 0.1
"""Seconds between two looks at whether the request is still wanted."""


class Claims:
    """Tells a record that is being worked on from one that a crash left behind.

    Both stand in the same state in the database. Every request holds the names it works with from before it writes the
    first record until after the last; reconciliation takes a name alone, and passes by those that are held. Who of two
    requests may go on is not decided here but by the state in the database.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: Counter[str] = Counter()
        self._alone: set[str] = set()

    @contextmanager
    def hold(self, ctx: Context, *names: str) -> Iterator[None]:
        """Hold names inside the block; waits while reconciliation has one of them. Any thread but the loop's.

        Raises:
            CallCancelled: The caller took the request back while it waited.
            DeadlineExceeded: The deadline passed while it waited.
        """
        with self._changed:
            while self._alone.intersection(names):
                ctx.check()
                self._wait()
            self._held.update(names)
        try:
            yield
        finally:
            with self._changed:
                self._held.subtract(names)
                self._held += Counter()  # forgets those that are at zero

    def _wait(self) -> None:
        """Wait a little for a change; a backend that hangs in a reconciliation takes no thread from others."""
        if not self._changed.wait(_QUICK):
            with waiting_for("volumes that are reconciled"):
                self._changed.wait(_RECHECK)

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Hold a name alone inside the block; yields False, and holds nothing, when anybody else has it."""
        with self.all_alone([name]) as mine:
            yield bool(mine)

    @contextmanager
    def all_alone(self, names: Iterable[str]) -> Iterator[set[str]]:
        """Hold names alone inside the block; yields those that nobody else has, and holds no others.

        What has been done with is let go of by `release`, before the block ends.
        """
        with self._changed:
            mine = {name for name in names if not self._held[name] and name not in self._alone}
            self._alone |= mine
        try:
            yield mine
        finally:
            self.release(mine, list(mine))

    def release(self, mine: set[str], names: Iterable[str]) -> None:
        """Let go of some of the names that `all_alone` gave."""
        with self._changed:
            self._alone.difference_update(names)
            mine.difference_update(names)
            self._changed.notify_all()
