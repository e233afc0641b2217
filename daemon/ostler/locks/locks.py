"""`self.locks` of a manager: takes locks by name, in threads and on the loop."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from ostler.aio import waiting_for
from ostler.clock import SystemClock
from ostler.errors import DeadlineExceeded, FeatureNotSupported, InvalidInput, LockTimeout, check_length
from ostler.locks.lock_owner import LockOwner
from ostler.locks.lock_table import Holding, LockKey, LockTable, Waiter, cancelled_error
from ostler.manager_types import LockStatus
from ostler.messaging.wire.request_context import Context
from ostler.time_text import format_seconds

_SHORT_WAIT = 0.02
"""Seconds after which a wait is no longer quick: from then on the thread that waits is replaced in its pool."""
_RECHECK_INTERVAL = 0.5
"""Seconds between two looks whether the holder's thread or task has ended without releasing the lock."""


class ClusterLocks(Protocol):
    """The locks that the daemons of one database share. A lock that is asked for here is held on this host already."""

    def acquire(self, holding: Holding, until: float) -> None:
        """Take a lock for this host; blocks, not on the loop.

        Args:
            holding: The lock as it is held on this host.
            until: The moment of the monotonic clock at which the wait ends.

        Raises:
            LockTimeout: Another host holds it.
            StoreError: The database cannot be written.
        """
        ...

    async def aacquire(self, holding: Holding, until: float) -> None:
        """Do what `acquire` does, on the loop."""
        ...

    def release(self, holding: Holding) -> None:
        """Release a lock for the other hosts. Any thread; never waits."""
        ...


class Locks:
    """The locks of one service; every name belongs to the service. Safe on any thread.

    ```python
    with self.locks.hold("volume-{name}", name=name):  # in a `def` method
        ...
    async with self.locks.hold("volume-{source}", "volume-{name}", source=source, name=name, timeout=5):  # on the loop
        ...
    ```

    Args:
        table: The locks of the host.
        service: The topic of the service.
        host: This host's name.
        cluster: Returns what shares locks with other daemons, for locks that ask for it.
    """

    def __init__(self, table: LockTable, service: str, host: str, cluster: Callable[[], ClusterLocks]) -> None:
        self._table = table
        self._service = service
        self._host = host
        self._cluster = cluster

    @classmethod
    def private(cls) -> Locks:
        """Return locks that nobody else has, for managers that a test creates without a service."""
        return cls(LockTable(SystemClock()), "test", "", _no_cluster)

    def hold(
        self, *names: str, shared: bool = False, timeout: float | None = None, cluster: bool = False, **values: object
    ) -> LockHold:
        """Return what holds one lock or several, for `with` in threads and `async with` on the loop.

        Several are taken in the order of their names, whatever the order here, so that two requests which take the same
        ones do not block each other. Whoever came first is served first, whether it shares the lock or not. The same
        thread or task may take a lock again in the same request, and has it until its outermost block ends; one that it
        shares cannot be taken exclusively. Other threads and tasks of a request wait like anybody else.

        A request that ends without releasing a lock loses it, and so does a thread or task that ends, and a service
        that stops.

        Args:
            names: Templates of the names: `"volume-{name}"`.
            shared: Whether others that share the lock may hold it at the same time.
            timeout: Seconds to wait for all of them, 0 to not wait at all. By default the wait ends with the request:
                at its deadline, or when it is cancelled.
            cluster: Whether daemons that use the same database exclude each other as well. Such a lock costs a
                commit to take and one to release, and cannot be had while the database cannot be written.
            values: The values for the templates.

        Raises:
            InvalidInput: A template names a value that is missing, a name is empty or longer than 255 characters, or
                the time limit is not a number of seconds.
        """
        if not names or (timeout is not None and not timeout >= 0):
            raise InvalidInput(
                "`hold` needs the name of a lock, and a time limit of 0 seconds or more",
                hint='self.locks.hold("volume-{name}", name=name, timeout=5)',
            )
        keys = sorted({LockKey(self._service, _lock_name(template, values)) for template in names})
        sharing = self._cluster() if cluster else None
        return LockHold(self._table, keys, is_shared=shared, timeout=timeout, cluster=sharing)

    def holders(self, name: str, /, **values: object) -> list[LockStatus]:
        """Return who holds a lock on this host and who waits for it, the holders first. Never waits.

        Args:
            name: The name, or its template.
            values: The values for the template.

        Raises:
            InvalidInput: As `hold`.
        """
        wanted = _lock_name(name, values)
        return [row for row in self._table.list(self._host, self._service) if row.name == wanted]


def _lock_name(template: str, values: dict[str, object]) -> str:
    try:
        name = template.format_map(values)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"the lock name {template!r} cannot be formed: {type(error).__name__} {error}",
            hint="pass a value for each name in braces",
        ) from None
    if not name:
        raise InvalidInput("the name of a lock must not be empty")
    return check_length("the name of a lock", name, 255)


class LockHold:
    """One lock or several, held inside a `with` or `async with` block; for one block at a time.

    It may be left on another thread than it was entered on.

    Args:
        table: The locks of the host.
        keys: The locks, in the order in which they are taken.
        is_shared: Whether they are shared.
        timeout: Seconds to wait for all of them; None until the request ends.
        cluster: Shares them with other daemons; None for locks of this host.
    """

    __slots__ = ("_cluster", "_held", "_is_shared", "_keys", "_table", "_timeout")

    def __init__(
        self,
        table: LockTable,
        keys: list[LockKey],
        *,
        is_shared: bool,
        timeout: float | None,
        cluster: ClusterLocks | None,
    ) -> None:
        self._table = table
        self._keys = keys
        self._is_shared = is_shared
        self._timeout = timeout
        self._cluster = cluster
        self._held: list[Holding] = []

    @property
    def names(self) -> list[str]:
        """The names of the locks, in order."""
        return [key.name for key in self._keys]

    def __enter__(self) -> Self:
        """Take the locks; blocks the thread.

        Raises:
            LockTimeout: Somebody held one of them for longer than the time limit; the error names the holder.
            Deadlock: The wait could never end, as the holder waits for a lock of this request.
            DeadlineExceeded: The deadline of the request passed meanwhile.
            Cancelled: The request was cancelled meanwhile.
            Draining: The service was stopped meanwhile.
            Conflict: The request shares a lock that is wanted exclusively.
            StoreError: A lock of the cluster could not be recorded.
            RuntimeError: This is the thread of an event loop, which it would block.
        """
        if _is_on_loop():
            raise RuntimeError("a lock was taken with `with` on the event loop's thread; use `async with` there")
        owner = self._begin()
        until = self._end_of_wait()
        try:
            for key in self._keys:
                holding = self._acquire(key, owner, until)
                self._held.append(holding)
                if self._cluster is not None and holding.on_free is None:
                    self._cluster.acquire(holding, until)
                    holding.on_free = self._cluster.release
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._release()

    async def __aenter__(self) -> Self:
        """Take the locks without blocking the loop; see `__enter__` for what it raises."""
        owner = self._begin()
        until = self._end_of_wait()
        try:
            for key in self._keys:
                holding = await self._aacquire(key, owner, until)
                self._held.append(holding)
                if self._cluster is not None and holding.on_free is None:
                    await self._cluster.aacquire(holding, until)
                    holding.on_free = self._cluster.release
        except BaseException:
            self._release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._release()

    def _begin(self) -> LockOwner:
        if self._held:
            raise RuntimeError("this hold is in use; call `self.locks.hold` for each block")
        return LockOwner.current(self._keys[0].service)

    def _end_of_wait(self) -> float:
        """Return the moment of the monotonic clock at which the wait ends."""
        return math.inf if self._timeout is None else self._table.clock.monotonic() + self._timeout

    def _release(self) -> None:
        held, self._held = self._held, []
        for holding in reversed(held):
            self._table.release(holding)

    # ---------------------------------------------------------------- one lock

    def _acquire(self, key: LockKey, owner: LockOwner, until: float) -> Holding:
        gate = threading.Lock()
        gate.acquire()
        found = self._take(key, owner, until, gate.release)
        if isinstance(found, Holding):
            return found
        forget = _cancel_with_request(self._table, found)
        try:
            self._wait(found, gate, until)
        except BaseException:
            self._table.withdraw(found)
            raise
        finally:
            forget()
        return self._outcome(found, until)

    def _wait(self, waiter: Waiter, gate: threading.Lock, until: float) -> None:
        """Wait on this thread until `gate` opens, or the time is over."""
        pauses = self._pauses(waiter, until)
        if gate.acquire(timeout=min(_SHORT_WAIT, next(pauses, 0.0))):
            return
        with waiting_for(waiter.key):
            for pause in pauses:
                if gate.acquire(timeout=pause):
                    return

    async def _aacquire(self, key: LockKey, owner: LockOwner, until: float) -> Holding:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        found = self._take(key, owner, until, lambda: _post(loop, done))
        if isinstance(found, Holding):
            return found
        forget = _cancel_with_request(self._table, found)
        try:
            for pause in self._pauses(found, until):
                await asyncio.wait([done], timeout=pause)
                if done.done():
                    break
        except BaseException:
            self._table.withdraw(found)
            raise
        finally:
            forget()
        return self._outcome(found, until)

    def _take(self, key: LockKey, owner: LockOwner, until: float, wake: Callable[[], None]) -> Holding | Waiter:
        may_wait = until > self._table.clock.monotonic()
        found = self._table.acquire(key, owner, is_shared=self._is_shared, wake=wake if may_wait else None)
        if isinstance(found, Waiter) and not may_wait:
            raise self._timeout_error(found)
        return found

    def _pauses(self, waiter: Waiter, until: float) -> Iterator[float]:
        """Yield the seconds to wait until the next look, for as long as the wait may last."""
        clock, context = self._table.clock, waiter.owner.context
        deadline = math.inf if context is None or context.deadline is None else context.deadline
        while (left := min(until, deadline) - clock.monotonic()) > 0:
            yield min(left, _RECHECK_INTERVAL)
            self._table.reap(waiter.key)

    def _outcome(self, waiter: Waiter, until: float) -> Holding:
        """Return the lock after a wait, or say why it was not given."""
        if waiter.holding is None and waiter.error is None:
            error = self._timeout_error(waiter) if until <= self._table.clock.monotonic() else self._late_error(waiter)
            # It may be given, or end otherwise, just now.
            self._table.withdraw(waiter)
            raise error
        if waiter.error is not None:
            raise waiter.error
        assert waiter.holding is not None  # noqa: S101 - one of the two is set before the wait ends
        return waiter.holding

    def _timeout_error(self, waiter: Waiter) -> LockTimeout:
        waited = f"within {format_seconds(self._timeout)}" if self._timeout else "at once"
        return LockTimeout(
            f"{waiter.key} could not be taken {waited}: {self._table.describe_holders(waiter.key)}",
            hint="`ostler lock list` shows who holds it", lock=waiter.key.name, service=waiter.key.service,
        )  # fmt: skip

    def _late_error(self, waiter: Waiter) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the deadline of {waiter.owner.method} passed while it waited for {waiter.key}: "
            f"{self._table.describe_holders(waiter.key)}",
            hint="`ostler lock list` shows who holds it", request_id=waiter.owner.request_id,
        )  # fmt: skip


def _cancel_with_request(table: LockTable, waiter: Waiter) -> Callable[[], None]:
    """End a wait when its request is cancelled; return the function that undoes this."""
    context: Context | None = waiter.owner.context
    if context is None:
        return _nothing
    return context.on_cancel(lambda: table.withdraw(waiter, cancelled_error(waiter)))


def _no_cluster() -> ClusterLocks:
    raise FeatureNotSupported("locks of the cluster need the daemon's database: run the manager in `ostler.testing`")


def _nothing() -> None:
    """Undo nothing."""


def _post(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
    """Wake a task up. On any thread, which may be that of its loop."""

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    try:
        loop.call_soon_threadsafe(finish)
    except RuntimeError:  # the loop has closed: the task has no end any more
        return


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
