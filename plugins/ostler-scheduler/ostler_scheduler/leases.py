"""Leases of promised space: one for each request, until its backend counts the space, it is released, or it expires."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

BackendKey = tuple[str, str, str]
"""Topic, host and backend."""


class _GrantedLease(msgspec.Struct):
    backend_key: BackendKey
    size: int
    expires: float


class Leases:
    """The leases that a scheduler has granted. Not thread-safe: its owner has a lock.

    Args:
        timeout: Seconds after which an unused lease expires.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        # In the order of their expiry: all have the same lifetime, and a renewed one moves to the end.
        self._leases: dict[str, _GrantedLease] = {}
        self._promised: dict[BackendKey, int] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def grant(self, backend_key: BackendKey, size: int, now: float) -> str:
        """Promise a number of bytes, and return the id of the lease."""
        lease = os.urandom(8).hex()
        self._leases[lease] = _GrantedLease(backend_key, size, now + self.timeout)
        self._promised[backend_key] = self._promised.get(backend_key, 0) + size
        return lease

    def promised_bytes(self, backend_key: BackendKey) -> int:
        """Return the promised bytes of a backend."""
        return self._promised.get(backend_key, 0)

    def release(self, lease: str) -> bool:
        """End a lease; return whether it existed."""
        found = self._leases.pop(lease, None)
        if found is None:
            return False
        left = self._promised[found.backend_key] - found.size
        if left:
            self._promised[found.backend_key] = left
        else:
            del self._promised[found.backend_key]
        return True

    def apply_report(self, leases: Mapping[str, bool], now: float) -> None:
        """Apply a service's report: True for a lease that has ended, False for one whose work is not measured yet."""
        for lease, over in leases.items():
            if over:
                self.release(lease)
            elif (found := self._leases.pop(lease, None)) is not None:
                found.expires = now + self.timeout
                self._leases[lease] = found

    def expire(self, now: float) -> None:
        """End the leases that have expired."""
        while self._leases:
            lease, first = next(iter(self._leases.items()))
            if first.expires > now:
                return
            self.release(lease)
