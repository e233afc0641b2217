"""How much of something bounded each account uses, and whether it may use more."""

from __future__ import annotations

from collections.abc import Hashable


def is_within_share(used: int, amount: int, free: int) -> bool:
    """Return whether an account may use more of something bounded: no account gets more than what is free.

    So one alone gets half, two that both want all of it a third each, and there is always some for another (dynamic
    thresholds, by Choudhury and Hahne, which switches use for their buffers). Nothing has to be given up for
    another account, and with a limit of one the first one gets it. Any thread.

    Args:
        used: What the account uses now.
        amount: How much more it wants.
        free: What no account uses.
    """
    return used + amount <= free


class FairQuota:
    """Counts what each account uses of a limit, and says whether it may use more.

    The rule is that of `is_within_share`. Not thread-safe.

    Args:
        limit: The most that all accounts use together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._used: dict[Hashable, int] = {}

    def used(self, account: Hashable) -> int:
        """Return what an account uses now."""
        return self._used.get(account, 0)

    def has_room(self, account: Hashable, amount: int = 1) -> bool:
        """Return whether an account may use so much more."""
        return is_within_share(self._used.get(account, 0), amount, self.limit - self.total)

    def acquire(self, account: Hashable, amount: int = 1) -> None:
        """Count what an account uses from now on; call `room` to check the limit first."""
        self.total += amount
        self._used[account] = self._used.get(account, 0) + amount

    def release(self, account: Hashable, amount: int = 1) -> None:
        """Count what an account does not use any more."""
        self.total -= amount
        left = self._used[account] - amount
        if left:
            self._used[account] = left
        else:
            del self._used[account]

    def __len__(self) -> int:
        """Return how many accounts use something."""
        return len(self._used)
