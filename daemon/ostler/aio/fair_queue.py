"""A queue that is fair between its clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _ClientQueues(Generic[T]):
    """What waits of one client: by turns one of each of its connections, those of one connection in their order."""

    __slots__ = ("count", "queues")

    def __init__(self) -> None:
        self.count = 0
        self.queues: dict[Hashable, deque[T]] = {}

    def put(self, connection: Hashable, item: T) -> None:
        queue = self.queues.get(connection)
        if queue is None:
            queue = self.queues[connection] = deque()
        queue.append(item)
        self.count += 1

    def pop(self) -> T:
        connection, queue = next(iter(self.queues.items()))
        item = queue.popleft()
        self.count -= 1
        if not queue:
            del self.queues[connection]
        elif len(self.queues) > 1:
            # To the end: the others are next.
            del self.queues[connection]
            self.queues[connection] = queue
        return item

    def withdraw(self, connection: Hashable) -> T:
        queue = self.queues[connection]
        item = queue.pop()
        self.count -= 1
        if not queue:
            del self.queues[connection]
        return item


class FairQueue(Generic[T]):
    """Hands out what waits by turns: one of each client, then the next of each.

    A client is an account (a uid, a key; see `Peer.account`), and its own turn goes to its connections by turns: a
    uid with fifty processes gets as much as one with a single one. Those of one connection keep their order.

    How much one client may have waiting follows from how much room is left: no more than there is free. So one alone
    gets half of the room, two that both want all of it a third each, and there is always some for another (the rule of
    dynamic thresholds by Choudhury and Hahne, which switches use for their buffers). None stands for the daemon's own
    work, which may use all of it. The share of a client is divided among its connections in the same way.
    Not thread-safe.

    Args:
        limit: The most that may wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: dict[Hashable, _ClientQueues[T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        for turns in self._waiting.values():
            for queue in turns.queues.values():
                yield from queue

    def has_room(self, client: Hashable, connection: Hashable = None) -> bool:
        """Return whether a client may put in one more, from one of its connections."""
        free = self.limit - self._count
        if client is None or free <= 0:
            return free > 0
        mine = self._waiting.get(client)
        # With a limit of one there is no half: the first one gets it.
        if mine is None:
            return True
        left = free - mine.count
        if left <= 0:
            return False
        # The same among the connections of one client: its other processes are to get in as well.
        queue = mine.queues.get(connection) if connection is not None else None
        return queue is None or len(queue) < left

    def put(self, client: Hashable, item: T, connection: Hashable = None) -> None:
        """Put in something of a client, from one of its connections; call `room` to check the limit first."""
        mine = self._waiting.get(client)
        if mine is None:
            mine = self._waiting[client] = _ClientQueues()
        mine.put(connection, item)
        self._count += 1

    def pop(self) -> T:
        """Take out what is next.

        Raises:
            IndexError: There is nothing.
        """
        if not self._count:
            raise IndexError("the queue is empty")
        client, mine = next(iter(self._waiting.items()))
        item = mine.pop()
        self._count -= 1
        if not mine.count:
            del self._waiting[client]
        elif len(self._waiting) > 1:
            # To the end: the others are next.
            del self._waiting[client]
            self._waiting[client] = mine
        return item

    def withdraw(self, client: Hashable, connection: Hashable = None) -> T:
        """Take back what a client put in last from one of its connections.

        Raises:
            KeyError: It has nothing waiting.
        """
        mine = self._waiting[client]
        item = mine.withdraw(connection)
        self._count -= 1
        if not mine.count:
            del self._waiting[client]
        return item

    def clear(self) -> list[T]:
        """Take out everything."""
        found = list(self)
        self._waiting.clear()
        self._count = 0
        return found
