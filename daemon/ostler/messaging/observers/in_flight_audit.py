"""The requests in progress that have been written down, so that a crash does not cut them off without a trace."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable

from ostler.clock import Clock
from ostler.messaging.rpc.call import Call
from ostler.types import AuditEntry

MIN_AGE = 0.1
"""Seconds that a request is in progress at least before it is written down: most have ended by then, and are once."""


class InFlightAudit:
    """Knows which requests in progress stand in the database. On the loop.

    A request that ends soon costs nothing here. Each other one is looked at once, gets a key under which it is written
    down, and that key is to be removed in the same write that keeps how it ended.

    Args:
        clock: The source of time.
        make_entry: Returns what is to be kept of one, None for one of which nothing is.
    """

    def __init__(self, clock: Clock, make_entry: Callable[[Call], AuditEntry | None]) -> None:
        self._clock = clock
        self._make_entry = make_entry
        self._checked_until = clock.monotonic()
        self._keys: dict[Call, str] = {}
        self._ended_keys: list[str] = []
        self._numbers = itertools.count(1)
        self.key_prefix = os.urandom(6).hex()
        """Begins the keys of this process: those of others were written by one that is no more."""

    def new_entries(self, list_calls: Callable[[float], Iterable[Call]]) -> dict[str, AuditEntry]:
        """Return what is to be written down now, by its key.

        Args:
            list_calls: Returns the requests in progress that have come after a moment of the clock, the last one first.
        """
        until = self._clock.monotonic() - MIN_AGE
        found: dict[str, AuditEntry] = {}
        for call in reversed([*list_calls(self._checked_until)]):
            if call.arrived_at > until or call.is_recorded or (entry := self._make_entry(call)) is None:
                continue
            key = self._keys[call] = f"{self.key_prefix}.{next(self._numbers):012}"
            found[key] = entry
        self._checked_until = max(self._checked_until, until)
        return found

    def on_call_done(self, call: Call) -> None:
        """Record that a request has ended, and that its end is kept."""
        if (key := self._keys.pop(call, None)) is not None:
            self._ended_keys.append(key)

    def pop_ended(self) -> list[str]:
        """Return the keys that are to be removed now."""
        ended, self._ended_keys = self._ended_keys, []
        return ended

    def requeue_ended(self, keys: list[str]) -> None:
        """Have keys removed with the next write: this one has failed."""
        self._ended_keys += keys
