"""How much of something bounded each account uses, and whether it may use more."""

from __future__ import annotations

from collections.abc import Hashable


class Shares:
    """Counts what each account uses of a limit, and says whether it may use more.

    The rule is that of `FairQueue`: no account gets more than what is free, so that one alone gets half, and there is
    always some for another. Nobody has to give up anything for somebody else. Not thread-safe.

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

    def room(self, account: Hashable, amount: int = 1) -> bool:
        """Return whether an account may use so much more."""
        used, free = self._used.get(account, 0), self.limit - self.total
        if not used:
            return amount <= free  # with a limit of one there is no half: whoever comes first has it
        return used + amount <= free

    def take(self, account: Hashable, amount: int = 1) -> None:
        """Count what an account uses from now on; the limit is for `room` to tell."""
        self.total += amount
        self._used[account] = self._used.get(account, 0) + amount

    def give_back(self, account: Hashable, amount: int = 1) -> None:
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
