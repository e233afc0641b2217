"""The operations of one topic: what waits, what runs, and when the next attempt of a failed one is due."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable
from typing import TYPE_CHECKING

import msgspec

from ostler.aio.fair_queue import FairQueue
from ostler.config.core_sections import OperationsSection
from ostler.errors import OWN_SHARE, Busy

if TYPE_CHECKING:
    from ostler.operations.operation_call import OperationCall


class OperationLimits(msgspec.Struct, frozen=True):
    """How many operations may wait, and how many that have ended are kept for how many seconds."""

    max_queued: int = 10_000
    max_ended: int = 10_000
    max_age: float = 30 * 86400.0

    @classmethod
    def from_options(cls, options: OperationsSection) -> OperationLimits:
        """Return those of the section `[operations]`."""
        return cls(options.max_queued, options.count, options.age)


DEFAULT_LIMITS = OperationLimits()


class OperationQueue:
    """The operations of one topic; no I/O. On the loop.

    Each operation is in it once, and begins by turns: one of each account, then the next of each.

    Args:
        topic: The topic.
        max_running: How many may run at once.
        max_queued: How many may wait; one more is refused, except those that a start finds in the database.
    """

    def __init__(self, topic: str, max_running: int, max_queued: int) -> None:
        self.topic = topic
        self.max_running = max_running
        self.running: dict[str, OperationCall] = {}
        self.is_open = False
        """Whether operations are begun: after the start of the service, and until it drains."""
        self.is_frozen = False
        """Whether nothing is begun until an operator thaws the service; what waits goes on waiting."""
        self.is_draining = False
        """Whether what is not running waits for the next start of the service, or until it is resumed."""
        self.is_stopping = False
        """Whether what is cut off from now on is continued by the next start."""
        self._waiting: FairQueue[tuple[str, Hashable]] = FairQueue(max_queued)
        self._known: set[str] = set()
        self._retries: list[tuple[float, str, Hashable]] = []
        self._reserved = 0

    @property
    def max_queued(self) -> int:
        """How many may wait."""
        return self._waiting.limit

    @max_queued.setter
    def max_queued(self, limit: int) -> None:
        self._waiting.limit = limit

    def __len__(self) -> int:
        """Return how many wait, or wait for their next attempt."""
        return len(self._waiting) + len(self._retries)

    @property
    def has_free_slot(self) -> bool:
        """Whether one more may be begun."""
        return self.is_open and not self.is_frozen and len(self.running) + self._reserved < self.max_running

    @property
    def is_idle(self) -> bool:
        """Whether a new operation may be begun at once, before no other."""
        return self.has_free_slot and not self._waiting

    def has_room(self, account: Hashable) -> bool:
        """Return whether an account may have one more waiting."""
        return self._waiting.has_room(account)

    def full_error(self) -> Busy:
        """Return the refusal of one more, which says whether its caller has used its share."""
        is_own = len(self._waiting) < self._waiting.limit
        whose = ", and this caller has used its share of them" if is_own else ""
        return Busy(
            f"{len(self)} operations of {self.topic} are waiting{whose}",
            hint="retry in a second, or see `ostler operation list`", retry_after=1.0,
            reason=OWN_SHARE if is_own else "",
        )  # fmt: skip

    def put(self, operation_id: str, account: Hashable) -> None:
        """Add an operation that waits; one that is here already is not added again."""
        if operation_id not in self._known:
            self._known.add(operation_id)
            self._waiting.put(account, (operation_id, account))

    def put_later(self, operation_id: str, account: Hashable, at: float) -> None:
        """Add an operation whose next attempt is due at a moment of the monotonic clock."""
        if operation_id not in self._known:
            self._known.add(operation_id)
            heapq.heappush(self._retries, (at, operation_id, account))

    def reserve(self, operation_id: str) -> None:
        """Take a slot for an operation that is about to be claimed; `forget` gives it back, or `start` uses it."""
        self._known.add(operation_id)
        self._reserved += 1

    def pop(self) -> tuple[str, Hashable]:
        """Take out the next one, with a reserved slot; return it and its account.

        Raises:
            IndexError: None waits.
        """
        found = self._waiting.pop()
        self._reserved += 1
        return found

    def start(self, operation_id: str, call: OperationCall) -> None:
        """Record that an operation with a reserved slot runs."""
        self._reserved -= 1
        self.running[operation_id] = call

    def release(self, operation_id: str) -> None:
        """Give back the slot of an operation that was not begun."""
        self._reserved -= 1
        self._known.discard(operation_id)

    def end(self, operation_id: str) -> None:
        """Record that an operation does not run any more."""
        self.running.pop(operation_id, None)
        self._known.discard(operation_id)

    def enqueue_due(self, now: float) -> float | None:
        """Queue the operations whose next attempt is due; return when the next one is, None without one."""
        while self._retries and self._retries[0][0] <= now:
            _, operation_id, account = heapq.heappop(self._retries)
            self._waiting.put(account, (operation_id, account))
        return self._retries[0][0] if self._retries else None

    @property
    def has_waiting(self) -> bool:
        """Whether one could be begun now."""
        return bool(self._waiting)


def count_operations(queues: Collection[OperationQueue]) -> tuple[int, int]:
    """Return how many operations wait in some queues, and how many run."""
    return sum(map(len, queues)), sum(len(queue.running) for queue in queues)
