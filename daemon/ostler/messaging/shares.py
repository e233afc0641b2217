"""What the connections of a daemon share, the loop's time and memory, and what one user or key may have of it."""

from __future__ import annotations

from collections.abc import Hashable
from time import monotonic

import msgspec

from ostler.aio.round_robin import DeficitRoundRobin
from ostler.messaging.memory_accounts import MemoryAccounts


class PeerShares(msgspec.Struct, frozen=True):
    """What all connections of a daemon share.

    Attributes:
        turns: The loop's time.
        memory: What peers make the daemon hold.
    """

    turns: DeficitRoundRobin
    memory: MemoryAccounts


def make_shares() -> PeerShares:
    """Return shares for one daemon, or for one transport of a test. On the loop's thread."""
    return PeerShares(DeficitRoundRobin(), MemoryAccounts())


class RateLimits:
    """How often each account may do something: `rate` times a second, and `burst` times at once.

    The scheme is that of a token bucket. Accounts that have not come for long are forgotten.

    Args:
        rate: Times a second.
        burst: Times at once.
    """

    _MOST = 4096

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def allows(self, account: Hashable, cost: float = 1.0) -> bool:
        """Return whether an account may do it now, and take note that it did.

        Args:
            account: Who does it.
            cost: How many times it counts.
        """
        now = monotonic()
        tokens, at = self._buckets.get(account, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        if len(self._buckets) >= self._MOST:
            self._forget(now)
        allowed = tokens >= cost
        self._buckets[account] = (tokens - cost if allowed else tokens, now)
        return allowed

    def _forget(self, now: float) -> None:
        """Forget the accounts whose buckets are full again; all, when there are none."""
        full = self._burst / self._rate
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if now - bucket[1] < full}
        if len(self._buckets) >= self._MOST:
            self._buckets.clear()
