"""The requests under way that have been written down, so that a crash does not cut them off without a trace."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable

from ostler.clock import Clock
from ostler.messaging.rpc.call import Call
from ostler.types import AuditEntry

SOON = 0.1
"""Seconds that a request is under way at least before it is written down: most have ended by then, and are once."""


class BegunCalls:
    """Knows which requests under way stand in the database. On the loop.

    A request that ends soon costs nothing here. Each other one is looked at once, gets a key under which it is written
    down, and that key is to be removed in the same write that keeps how it ended.

    Args:
        clock: The source of time.
        since: Returns the requests under way that have come after a moment of the clock, the last one first.
        entry: Returns what is to be kept of one, None for one of which nothing is.
    """

    def __init__(
        self,
        clock: Clock,
        since: Callable[[float], Iterable[Call]],
        entry: Callable[[Call], AuditEntry | None],
    ) -> None:
        self._clock = clock
        self._since = since
        self._entry = entry
        self._looked = clock.monotonic()
        self._keys: dict[Call, str] = {}
        self._ended: list[str] = []
        self._numbers = itertools.count(1)
        self.run = os.urandom(6).hex()
        """Begins the keys of this process: those of others were written by one that is no more."""

    def look(self) -> dict[str, AuditEntry]:
        """Return what is to be written down now, by its key."""
        until = self._clock.monotonic() - SOON
        found: dict[str, AuditEntry] = {}
        for call in reversed([*self._since(self._looked)]):
            if call.arrived_at > until or call.over or (entry := self._entry(call)) is None:
                continue
            key = self._keys[call] = f"{self.run}.{next(self._numbers):012}"
            found[key] = entry
        self._looked = max(self._looked, until)
        return found

    def ended(self, call: Call) -> None:
        """Take note that a request has ended, and that its end is kept."""
        if (key := self._keys.pop(call, None)) is not None:
            self._ended.append(key)

    def take_ended(self) -> list[str]:
        """Return the keys that are to be removed now."""
        ended, self._ended = self._ended, []
        return ended

    def put_back(self, keys: list[str]) -> None:
        """Have keys removed with the next write: this one has failed."""
        self._ended += keys
