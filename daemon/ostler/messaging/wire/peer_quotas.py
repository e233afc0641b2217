"""What the connections of a daemon share, the loop's time and memory, and the share of one user or key.

How much memory peers may make the daemon hold is kept in an account for each user or key, and one for all. Charged is
whatever waits because of a peer: messages that have not come whole, arguments of requests in progress, answers and
items that it does not read, events that wait for it, its subscriptions and its connections. How much one account may
hold follows from how much is left; see `is_within_share`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import monotonic

import msgspec

from ostler.aio.fair_quota import is_within_share
from ostler.aio.round_robin import DeficitRoundRobin
from ostler.config.units import format_size
from ostler.errors import OWN_SHARE, Busy
from ostler.types import Peer

DEFAULT_MEMORY_LIMIT = 256 * 1024 * 1024
_PRIVILEGED_RESERVE = 32 * 1024 * 1024
"""Bytes beyond the limit for root and the daemon's own user, who may do everything anyhow."""
_HIGH_USAGE = 8 * 1024 * 1024
_TRIM_THRESHOLD = 32 * 1024 * 1024
"""Bytes held at most, before it is worth to give back to the system what was freed."""


class MemoryAccount:
    """What one user or key makes the daemon hold. On the loop's thread only.

    Args:
        accounts: All accounts.
        key: Whose it is, for us.
        name: Whose it is, for people.
        is_privileged: Whether it may use all of the room, and some more.
    """

    __slots__ = ("_accounts", "connection_count", "held_bytes", "is_privileged", "key", "name")

    def __init__(self, accounts: MemoryAccounts, key: Hashable, name: str, *, privileged: bool) -> None:
        self._accounts = accounts
        self.key = key
        self.name = name
        self.is_privileged = privileged
        self.held_bytes = 0
        self.connection_count = 0
        """How many connections refer to it."""

    def has_room(self, size: int) -> bool:
        """Return whether so many bytes more may be held for it."""
        accounts = self._accounts
        free = accounts.limit - accounts.held_bytes
        if self.is_privileged:
            return size <= free + _PRIVILEGED_RESERVE
        return is_within_share(self.held_bytes, size, free)

    def charge(self, size: int) -> None:
        """Charge so many bytes; call `room` to check the limit first."""
        self.held_bytes += size
        self._accounts.charge(size)

    def release(self, size: int) -> None:
        """Take back a charge."""
        self.held_bytes -= size
        self._accounts.release(size)
        if not self.connection_count and self.held_bytes <= 0:
            self._accounts.forget(self)

    def close(self) -> None:
        """Record that a connection has gone; one that nobody refers to and that holds nothing is forgotten."""
        self.connection_count -= 1
        if not self.connection_count and self.held_bytes <= 0:
            self._accounts.forget(self)

    def has_room_for(self, data: bytes | bytearray) -> bool:
        """Return whether these bytes may be held for it, which costs nothing when others hold them anyhow."""
        return self._accounts.shared_bytes.is_held(data) or self.has_room(len(data))

    def charge_shared(self, data: bytes | bytearray) -> None:
        """Charge for bytes that others may hold as well, such as an event: all that hold them are charged once."""
        self._accounts.shared_bytes.add_holder(data, self)

    def release_shared(self, data: bytes | bytearray) -> None:
        """Take back a charge for `hold`."""
        self._accounts.shared_bytes.remove_holder(data, self)

    def no_room_error(self, description: str) -> Busy:
        """Return the refusal of something for which there is no room, and count it."""
        self._accounts.refused_count += 1
        mine, all_held, limit = map(
            format_size, (max(self.held_bytes, 0), self._accounts.held_bytes, self._accounts.limit)
        )
        return Busy(
            f"{description} was refused: {self.name} uses {mine} of the daemon's memory, all peers {all_held} "
            f"of {limit}",
            hint="read the pending answers, or raise `max_memory` in [messaging]",
            retry_after=1.0,
            reason=OWN_SHARE if self.held_bytes > self._accounts.limit - self._accounts.held_bytes else "",
            limit="max_memory",
        )


class _SharedBytes:
    """Which accounts hold the same bytes; the one that has held them longest is charged for all."""

    def __init__(self) -> None:
        self._holders: dict[int, dict[MemoryAccount, int]] = {}

    def is_held(self, data: bytes | bytearray) -> bool:
        return id(data) in self._holders

    def add_holder(self, data: bytes | bytearray, account: MemoryAccount) -> None:
        holders = self._holders.get(id(data))  # no other object has its number while somebody holds it
        if holders is None:
            self._holders[id(data)] = {account: 1}
            account.charge(len(data))
        else:
            holders[account] = holders.get(account, 0) + 1

    def remove_holder(self, data: bytes | bytearray, account: MemoryAccount) -> None:
        holders = self._holders[id(data)]
        holders[account] -= 1
        if holders[account]:
            return
        charged = next(iter(holders))
        del holders[account]
        if not holders:
            del self._holders[id(data)]
        if charged is account:
            for heir in holders:
                heir.charge(len(data))
                break
            account.release(len(data))


class MemoryAccounts:
    """The accounts of all peers of a daemon. On the loop's thread only.

    Args:
        limit: Bytes that all peers together may make the daemon hold.
        on_high_usage: Called once, when much is held for the first time.
        on_freed: Called when much was held and next to nothing is any more.
    """

    def __init__(
        self,
        limit: int = DEFAULT_MEMORY_LIMIT,
        on_high_usage: Callable[[], None] | None = None,
        on_freed: Callable[[], None] | None = None,
    ) -> None:
        self.limit = limit
        self.held_bytes = 0
        self.peak_bytes = 0
        """The most bytes since much was given back."""
        self.refused_count = 0
        """How often something was refused for want of room."""
        self.shared_bytes = _SharedBytes()
        self._accounts: dict[Hashable, MemoryAccount] = {}
        self._on_high_usage = on_high_usage
        self._on_freed = on_freed

    def apply(self, limit: int) -> None:
        """Put another limit in force, as a reload does; what is held stays."""
        self.limit = limit

    def open(self, key: Hashable, peer: Peer, *, privileged: bool = False) -> MemoryAccount:
        """Return the account of a peer for one connection more, which closes it once."""
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = MemoryAccount(self, key, peer.name, privileged=privileged)
        account.connection_count += 1
        return account

    def forget(self, account: MemoryAccount) -> None:
        """Forget an account that holds nothing."""
        if self._accounts.get(account.key) is account:
            del self._accounts[account.key]

    def charge(self, size: int) -> None:
        """Record what an account was charged."""
        self.held_bytes += size
        if self.held_bytes > self.peak_bytes:
            self.peak_bytes = self.held_bytes
            if self._on_high_usage is not None and self.peak_bytes > _HIGH_USAGE:
                self._on_high_usage()
                self._on_high_usage = None

    def release(self, size: int) -> None:
        """Record what an account was given back."""
        self.held_bytes -= size
        if self.peak_bytes > _TRIM_THRESHOLD and self.held_bytes * 8 < self.peak_bytes:
            self.peak_bytes = self.held_bytes
            if self._on_freed is not None:
                self._on_freed()

    def stats(self) -> dict[str, object]:
        """Return the bytes held, the limit, how often something was refused, and the accounts with most, by name."""
        largest = sorted(self._accounts.values(), key=lambda account: -account.held_bytes)[:10]
        return {
            "held": self.held_bytes,
            "limit": self.limit,
            "refused": self.refused_count,
            "accounts": {account.name: account.held_bytes for account in largest if account.held_bytes},
        }


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
