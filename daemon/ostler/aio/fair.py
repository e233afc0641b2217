"""A queue that is fair between those who put things in."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Hands out what waits by turns: one of each client, then the next of each; those of one client in their order.

    How much one client may have waiting follows from how much room is left: no more than there is free. So one alone
    gets half of the room, two that both want all of it a third each, and there is always some for another (the rule of
    dynamic thresholds by Choudhury and Hahne, which switches use for their buffers). None stands for the daemon's own
    work, which may use all of it. Not thread-safe.

    Args:
        limit: The most that may wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: dict[Hashable, deque[T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        for waiting in self._waiting.values():
            yield from waiting

    def room(self, client: Hashable) -> bool:
        """Return whether a client may put in one more."""
        free = self.limit - self._count
        if client is None or free <= 0:
            return free > 0
        mine = self._waiting.get(client)
        # With a limit of one there is no half: whoever comes first has it.
        return mine is None or len(mine) < free

    def put(self, client: Hashable, item: T) -> None:
        """Put in something of a client; the limit is for `room` to tell."""
        mine = self._waiting.get(client)
        if mine is None:
            mine = self._waiting[client] = deque()
        mine.append(item)
        self._count += 1

    def pop(self) -> T:
        """Take out what is next.

        Raises:
            IndexError: There is nothing.
        """
        if not self._count:
            raise IndexError("the queue is empty")
        client, mine = next(iter(self._waiting.items()))
        item = mine.popleft()
        self._count -= 1
        if not mine:
            del self._waiting[client]
        elif len(self._waiting) > 1:
            # To the end: it is the others' turn.
            del self._waiting[client]
            self._waiting[client] = mine
        return item

    def withdraw(self, client: Hashable) -> T:
        """Take back what a client put in last.

        Raises:
            KeyError: It has nothing waiting.
        """
        mine = self._waiting[client]
        item = mine.pop()
        self._count -= 1
        if not mine:
            del self._waiting[client]
        return item

    def clear(self) -> list[T]:
        """Take out everything."""
        found = list(self)
        self._waiting.clear()
        self._count = 0
        return found
