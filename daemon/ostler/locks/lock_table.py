"""Who holds which lock on this host, and who waits: first come first served, and no wait that can never end."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ostler.clock import Clock
from ostler.config.units import format_seconds
from ostler.errors import Cancelled, Conflict, Deadlock, Draining, OstlerError
from ostler.locks.lock_owner import LockOwner
from ostler.manager_types import LockStatus
from ostler.messaging.wire.request_context import Context
from ostler.printable import printable

_log = logging.getLogger(__name__)
MAX_LISTED_LOCKS = 10_000
"""The most rows of one answer."""
_MAX_NAMED_HOLDERS = 5
"""The most holders that an error names."""


class LockKey(NamedTuple):
    """A lock: the topic of the service that it belongs to, and its name there."""

    service: str
    name: str

    def __str__(self) -> str:
        return f"lock {printable(self.name)} of service {self.service}"


class Holding:
    """A lock that somebody has."""

    __slots__ = ("count", "is_shared", "key", "on_free", "owner", "since", "since_wall")

    def __init__(self, key: LockKey, owner: LockOwner, is_shared: bool, clock: Clock) -> None:
        self.key = key
        self.owner = owner
        self.is_shared = is_shared
        self.on_free: Callable[[Holding], None] | None = None
        """Called when it has been released, of a lock that is shared with other hosts. It must not block."""
        self.count = 1
        self.since = clock.monotonic()
        self.since_wall = clock.wall()


class Waiter:
    """Somebody who waits for a lock. `holding` or `error` is set before `wake` is called, once, on any thread."""

    __slots__ = ("error", "holding", "is_shared", "key", "owner", "since_wall", "wake")

    def __init__(
        self, key: LockKey, owner: LockOwner, is_shared: bool, wake: Callable[[], None], since_wall: float
    ) -> None:
        self.key = key
        self.owner = owner
        self.is_shared = is_shared
        self.wake = wake
        self.since_wall = since_wall
        self.holding: Holding | None = None
        self.error: OstlerError | None = None


class _Lock:
    __slots__ = ("holdings", "queue")

    def __init__(self) -> None:
        self.holdings: list[Holding] = []
        self.queue: deque[Waiter] = deque()

    def admits(self, is_shared: bool) -> bool:
        """Return whether it can be held together with those who hold it; the queue is not looked at."""
        return not self.holdings or (is_shared and self.holdings[0].is_shared)


class LockTable:
    """The locks of one host, of all its services. All methods may be called on any thread, and none of them waits.

    Who comes first is served first: one who wants to share a lock waits behind one who wants it alone, so that neither
    can be kept waiting indefinitely. The same task or thread, in the same request, may take a lock again.

    A wait that would close a circle is refused with `Deadlock`: it goes from who waits to who holds that lock, to what
    that one waits for itself, or in a call that it has made to a service of this daemon, and so on.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.mutex = threading.Lock()
        self._locks: dict[LockKey, _Lock] = {}
        self._held_in: dict[int, list[Holding]] = {}
        """The locks that requests hold, by the identity of their contexts."""
        self._waiting_in: dict[int, list[Waiter]] = {}
        """The waiters by the identity of each context that cannot continue before they do."""

    def acquire(
        self, key: LockKey, owner: LockOwner, *, is_shared: bool, wake: Callable[[], None] | None
    ) -> Holding | Waiter:
        """Take a lock, or queue for it.

        Args:
            key: The lock.
            owner: For whom.
            is_shared: Whether others may share it.
            wake: Called when the wait has ended; None to be refused at once if it would have to wait.

        Returns:
            The lock as it is held, or the waiter that was queued; without `wake` one that was not.

        Raises:
            Deadlock: The wait could never end.
            Conflict: The owner shares the lock already, and wants it alone.
        """
        with self.mutex:
            lock = self._locks.setdefault(key, _Lock())
            again = next((each for each in lock.holdings if each.owner.is_at(owner.context, owner.actor)), None)
            if again is not None:
                return self._take_again(again, is_shared)
            self._reap(key, lock)
            lock = self._locks.setdefault(key, lock)  # what was found to be over may have been the last of it
            admitted = lock.admits(is_shared)
            if admitted and not lock.queue:
                return self._grant(key, lock, owner, is_shared)
            circle = self._find_circle(key, lock, owner)
            if circle and admitted:  # only its place in the queue would close the circle
                return self._grant(key, lock, owner, is_shared)
            if circle:
                raise _deadlock_error(key, circle)
            waiter = Waiter(key, owner, is_shared, wake or _do_nothing, self.clock.wall())
            if wake is not None:
                lock.queue.append(waiter)
                for context, _ in owner.waiting_for_it():
                    self._waiting_in.setdefault(id(context), []).append(waiter)
            return waiter

    @staticmethod
    def _take_again(holding: Holding, is_shared: bool) -> Holding:
        if holding.is_shared and not is_shared:
            raise Conflict(
                f"{holding.owner} shares {holding.key} and cannot have it exclusively before it has released it",
                hint="take the lock exclusively in the first place", lock=holding.key.name, service=holding.key.service,
            )  # fmt: skip
        holding.count += 1
        return holding

    def _grant(self, key: LockKey, lock: _Lock, owner: LockOwner, is_shared: bool) -> Holding:
        holding = Holding(key, owner, is_shared, self.clock)
        lock.holdings.append(holding)
        if owner.context is not None:
            held = self._held_in.setdefault(id(owner.context), [])
            held.append(holding)
            owner.context.on_end(self, self._release_request)
        return holding

    def release(self, holding: Holding) -> bool:
        """Release a lock once; returns whether it is free for others now. Nothing happens if it was released before."""
        with self.mutex:
            holding.count -= 1
            return holding.count <= 0 and self._remove(holding)

    def _remove(self, holding: Holding) -> bool:
        lock = self._locks.get(holding.key)
        if lock is None or holding not in lock.holdings:
            return False
        lock.holdings.remove(holding)
        if holding.on_free is not None:
            holding.on_free(holding)
        context = holding.owner.context
        if context is not None:
            held = self._held_in[id(context)]
            held.remove(holding)
            if not held:
                del self._held_in[id(context)]
        self._serve_queue(holding.key, lock)
        return True

    def _serve_queue(self, key: LockKey, lock: _Lock) -> None:
        """Give the lock to those who are first in the queue and can have it."""
        while lock.queue and lock.admits(lock.queue[0].is_shared):
            waiter = lock.queue.popleft()
            self._forget(waiter)
            waiter.holding = self._grant(key, lock, waiter.owner, waiter.is_shared)
            waiter.wake()
        if not lock.holdings and not lock.queue:
            self._locks.pop(key, None)

    def _forget(self, waiter: Waiter) -> None:
        for context, _ in waiter.owner.waiting_for_it():
            waiting = self._waiting_in.get(id(context), [])
            if waiter in waiting:
                waiting.remove(waiter)
            if not waiting:
                self._waiting_in.pop(id(context), None)

    def withdraw(self, waiter: Waiter, error: OstlerError | None = None) -> None:
        """End a wait; a lock that was given meanwhile is released. With an error its thread or task is woken up."""
        with self.mutex:
            if waiter.holding is not None:
                if error is None:
                    waiter.holding.count = 0
                    self._remove(waiter.holding)
                return
            self._end_wait(waiter, error)

    def _end_wait(self, waiter: Waiter, error: OstlerError | None) -> None:
        lock = self._locks.get(waiter.key)
        if lock is None or waiter not in lock.queue:
            return
        lock.queue.remove(waiter)
        self._forget(waiter)
        self._serve_queue(waiter.key, lock)
        if error is not None:
            waiter.error = error
            waiter.wake()

    # ---------------------------------------------------------------- owners that have ended

    def _release_request(self, context: Context) -> None:
        """Release what a request still holds at its end. On the loop, or the thread of a periodic task."""
        with self.mutex:
            left = list(self._held_in.get(id(context), ()))
            for holding in left:
                self._remove(holding)
        if left:
            names = ", ".join(printable(each.key.name) for each in left)
            _log.warning("%s ended without releasing its locks (%s); they were released", left[0].owner, names)

    def reap(self, key: LockKey) -> None:
        """Release a lock whose holder's thread or task has ended; called by those who wait for it."""
        with self.mutex:
            if (lock := self._locks.get(key)) is not None:
                self._reap(key, lock)

    def _reap(self, key: LockKey, lock: _Lock) -> None:
        for holding in [each for each in lock.holdings if each.owner.has_ended()]:
            _log.warning("%s ended without releasing %s; it was released", holding.owner, key)
            self._remove(holding)

    def release_service(self, service: str) -> list[str]:
        """Release all locks of a service that has stopped, and end all waits for them.

        Returns:
            The names that were still held, each with its holder.
        """
        with self.mutex:
            mine = [(key, lock) for key, lock in self._locks.items() if key.service == service]
            held = [holding for _, lock in mine for holding in lock.holdings]
            for key, lock in mine:
                error = Draining(f"service {service} was stopped while waiting for {key}", topic=service)
                for waiter in list(lock.queue):
                    self._end_wait(waiter, error)
            for holding in held:
                self._remove(holding)
        return [f"{printable(each.key.name)} by {each.owner}" for each in held]

    # ---------------------------------------------------------------- circles

    def _find_circle(self, key: LockKey, lock: _Lock, owner: LockOwner) -> list[tuple[LockOwner, Holding]]:
        """Return the circle that a wait would close: who waits, and what it waits for as it is held; empty for none.

        The search goes from lock to lock, each one once: whoever is in the queue of a lock waits for those who hold it.
        """
        start = list(owner.waiting_for_it())
        seen = {key}
        trail: list[tuple[LockOwner, Holding]] = []

        def search(waiting: LockOwner, lock: _Lock) -> bool:
            for holding in lock.holdings:
                trail.append((waiting, holding))
                if any(holding.owner.is_at(*each) for each in start):
                    return True
                for waiter in self._blocking(holding.owner):
                    if waiter.key not in seen:
                        seen.add(waiter.key)
                        if search(waiter.owner, self._locks[waiter.key]):
                            return True
                trail.pop()
            return False

        return trail if search(owner, lock) else []

    def _blocking(self, owner: LockOwner) -> Iterator[Waiter]:
        """Yield the waits without whose end an owner cannot continue: its own, and those of the calls it waits for."""
        for waiter in self._waiting_in.get(id(owner.context), ()):
            if any(owner.is_at(*each) for each in waiter.owner.waiting_for_it()):
                yield waiter

    # ---------------------------------------------------------------- what others ask

    def holders(self, key: LockKey) -> list[Holding]:
        """Return who holds a lock."""
        with self.mutex:
            lock = self._locks.get(key)
            return list(lock.holdings) if lock is not None else []

    def list(self, host: str, service: str = "") -> list[LockStatus]:
        """Return who holds and who waits for locks, by service and name; those who wait in the order of the queue.

        Args:
            host: This host's name.
            service: The topic whose locks are wanted; empty for all.
        """
        with self.mutex:
            chosen = sorted(key for key in self._locks if service in ("", key.service))
            rows: list[LockStatus] = []
            for lock in map(self._locks.__getitem__, chosen):
                rows += [_status(host, each) for each in lock.holdings]
                rows += [_status(host, each) for each in lock.queue]
        return rows[:MAX_LISTED_LOCKS]

    def describe_holders(self, key: LockKey) -> str:
        """Return who holds a lock and for how long, for errors."""
        now = self.clock.monotonic()
        found = self.holders(key)
        lines = [
            f"{'shared' if each.is_shared else 'held'} by {each.owner} for {format_seconds(now - each.since, units=1)}"
            for each in found[:_MAX_NAMED_HOLDERS]
        ]
        more = [f"and {len(found) - _MAX_NAMED_HOLDERS} others"] if len(found) > _MAX_NAMED_HOLDERS else []
        return ", ".join([*lines, *more]) or "others wait for it as well"


def cancelled_error(waiter: Waiter) -> Cancelled:
    """Return the error of a request that was cancelled while it waited."""
    return Cancelled(
        f"{waiter.owner.method} was cancelled while waiting for {waiter.key}", request_id=waiter.owner.request_id
    )


def _status(host: str, each: Holding | Waiter) -> LockStatus:
    is_held = isinstance(each, Holding)
    return LockStatus(
        service=each.key.service,
        name=each.key.name,
        is_shared=each.is_shared,
        is_held=is_held,
        is_cluster=isinstance(each, Holding) and each.on_free is not None,
        since=each.since_wall,
        host=host,
        method=each.owner.method,
        request_id=each.owner.request_id,
        thread=each.owner.actor_name,
    )


def _deadlock_error(key: LockKey, circle: Iterable[tuple[LockOwner, Holding]]) -> Deadlock:
    lines = [
        f"{waiting} waits for {printable(holding.key.name)}, which {holding.owner} holds" for waiting, holding in circle
    ]
    return Deadlock(
        f"waiting for {key} would never end, it would be a deadlock: {'; '.join(lines)}",
        hint="take locks in one order everywhere, or all of them in one `hold`, and call nobody who needs one you hold",
        lock=key.name, service=key.service, cycle=lines,
    )  # fmt: skip


def _do_nothing() -> None:
    """Wake nobody up."""
