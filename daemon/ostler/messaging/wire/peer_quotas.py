"""What the connections of a daemon share, the loop's time and memory, and the share of one user or key."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import monotonic

import msgspec

from ostler.aio.round_robin import DeficitRoundRobin
from ostler.messaging.wire.memory_accounts import MemoryAccounts


class PeerQuotas(msgspec.Struct, frozen=True):
    """What all connections of a daemon share.

    Attributes:
        scheduler: The loop's time.
        memory_accounts: What peers make the daemon hold.
    """

    scheduler: DeficitRoundRobin
    memory_accounts: MemoryAccounts


def make_quotas() -> PeerQuotas:
    """Return shares for one daemon, or for one transport of a test. On the loop's thread."""
    return PeerQuotas(DeficitRoundRobin(), MemoryAccounts())


class RateLimiter:
    """How often each account may do something: `rate` times a second, and `burst` times at once.

    The scheme is that of a token bucket. Accounts that have not come for long are forgotten.

    Args:
        rate: Times a second.
        burst: Times at once.
        monotonic: Returns the time in seconds.
    """

    _MAX_ACCOUNTS = 4096

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float] = monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def __len__(self) -> int:
        """Return how many accounts it remembers."""
        return len(self._buckets)

    def allows(self, account: Hashable, cost: float = 1.0) -> bool:
        """Return whether an account may do it now, and record that it did.

        Args:
            account: Who does it.
            cost: How many times it counts.
        """
        now = self._monotonic()
        tokens, at = self._buckets.get(account, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        if len(self._buckets) >= self._MAX_ACCOUNTS:
            self._forget_idle(now)
        allowed = tokens >= cost
        self._buckets[account] = (tokens - cost if allowed else tokens, now)
        return allowed

    def _forget_idle(self, now: float) -> None:
        """Forget the accounts whose buckets are full again; all, when there are none."""
        full = self._burst / self._rate
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if now - bucket[1] < full}
        if len(self._buckets) >= self._MAX_ACCOUNTS:
            self._buckets.clear()
