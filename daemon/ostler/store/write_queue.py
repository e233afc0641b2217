"""The writes that wait: urgent ones first, then one of each account by turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

from ostler.store.write_job import WriteJob


def no_account() -> Hashable:
    """Attribute all work to the daemon itself."""
    return None


class WriteQueue:
    """The queue of the writer. Not thread-safe; `urgent` and `alone` are only appended to and popped from, which is.

    It shares its room as `FairQueue` does, which costs three times as much, as it takes turns between the connections
    of an account as well.

    Args:
        limit: The most waiting jobs, except urgent ones.
        account: Returns the account of this thread or task, None for the daemon itself; for who puts jobs in.
    """

    __slots__ = ("_accounts", "_count", "account", "alone", "limit", "urgent")

    def __init__(self, limit: int = 20_000, account: Callable[[], Hashable] = no_account) -> None:
        self.limit = limit
        self.account = account
        self.urgent: deque[WriteJob] = deque()
        self.alone: deque[WriteJob] = deque()
        """What runs between two transactions."""
        self._accounts: dict[Hashable, deque[WriteJob]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count + len(self.urgent) + len(self.alone)

    @property
    def normal_count(self) -> int:
        """How many of the waiting jobs are not urgent."""
        return self._count

    def put(self, account: Hashable, job: WriteJob) -> bool:
        """Add a job that is not urgent; return False when its account has no more room than it uses already.

        None is the daemon's own account, which may use all the room.
        """
        waiting = self._accounts.get(account)
        if waiting is None:
            if self._count >= self.limit:
                return False
            waiting = self._accounts[account] = deque()
        elif self._count + (0 if account is None else len(waiting)) >= self.limit:
            return False
        waiting.append(job)
        self._count += 1
        return True

    def pop(self) -> WriteJob:
        """Remove and return the next job that is not urgent; there is one."""
        accounts = self._accounts
        account = next(iter(accounts))
        waiting = accounts[account]
        job = waiting.popleft()
        self._count -= 1
        if not waiting:
            del accounts[account]
        elif len(accounts) > 1:
            del accounts[account]
            accounts[account] = waiting  # to the end: the others are next
        return job

    def pop_all(self) -> list[WriteJob]:
        """Remove and return all jobs."""
        jobs = [*self.urgent, *self.alone]
        self.urgent.clear()
        self.alone.clear()
        while self._count:
            jobs.append(self.pop())
        return jobs
