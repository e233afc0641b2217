"""Room that was promised: a lease for each request, until it is counted by its backend, given back, or runs out."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

Place = tuple[str, str, str]
"""Topic, host and backend."""


class _Lease(msgspec.Struct):
    place: Place
    size: int
    expires: float


class Leases:
    """The leases that a scheduler has granted. Not safe on several threads at once: its owner has a lock.

    Args:
        timeout: Seconds after which a lease ends of which nothing was heard.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        # In the order in which they run out: all live equally long, and one that is prolonged goes to the end.
        self._leases: dict[str, _Lease] = {}
        self._promised: dict[Place, int] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def grant(self, place: Place, size: int, now: float) -> str:
        """Promise so many bytes, and return the id of the lease."""
        lease = os.urandom(8).hex()
        self._leases[lease] = _Lease(place, size, now + self.timeout)
        self._promised[place] = self._promised.get(place, 0) + size
        return lease

    def promised(self, place: Place) -> int:
        """Return the bytes that are promised of a backend."""
        return self._promised.get(place, 0)

    def end(self, lease: str) -> bool:
        """End a lease; return whether it was there."""
        found = self._leases.pop(lease, None)
        if found is None:
            return False
        left = self._promised[found.place] - found.size
        if left:
            self._promised[found.place] = left
        else:
            del self._promised[found.place]
        return True

    def told(self, leases: Mapping[str, bool], now: float) -> None:
        """Take what a service reports: True for a lease that is over, False for one whose work is not measured yet."""
        for lease, over in leases.items():
            if over:
                self.end(lease)
            elif (found := self._leases.pop(lease, None)) is not None:
                found.expires = now + self.timeout
                self._leases[lease] = found

    def expire(self, now: float) -> None:
        """End those that have run out."""
        while self._leases:
            lease, first = next(iter(self._leases.items()))
            if first.expires > now:
                return
            self.end(lease)
