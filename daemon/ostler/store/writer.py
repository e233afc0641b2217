"""The one thread that writes, and the commits that its callers share."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import msgspec

from ostler import fork
from ostler.aio.fair import FairQueue
from ostler.aio.pool import contained
from ostler.clock import Clock
from ostler.errors import Busy, StoreError, StoreUnavailable, is_a
from ostler.store.current import Database, session
from ostler.store.failures import is_full, is_trouble
from ostler.store.files import DatabaseFiles, NoFiles, is_file_change
from ostler.store.outage import Outage

T = TypeVar("T")


def nobodys() -> Hashable:
    """Say that all work is the daemon's own."""
    return None


_log = logging.getLogger(__name__)

GROUP_SECONDS = 0.05
"""A group that has worked this long is committed, so that a heartbeat never waits for long."""
GROUP_JOBS = 1000
"""The most jobs of one commit."""
LONG_JOB_SECONDS = 1.0
"""A job that held the writer longer is named in the log."""


class Job:
    """One function that waits for the writer, and how its caller is told of the end."""

    __slots__ = ("_loop", "_waiter", "context", "error", "fn", "label", "result", "urgent")

    def __init__(
        self, fn: Callable[[], Any], label: str, urgent: bool, waiter: Any, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self.fn = fn
        self.label = label
        self.urgent = urgent
        self.context = contextvars.copy_context()
        self.result: Any = None
        self.error: BaseException | None = None
        self._waiter = waiter
        self._loop = loop

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which the caller waits; None for one that waits on a thread."""
        return self._loop

    def name(self) -> str:
        """Return what the job is called in messages."""
        return self.label or f"{self.fn.__module__}.{getattr(self.fn, '__qualname__', type(self.fn).__name__)}"

    def settle(self) -> None:
        """Tell the caller. For one on a thread: from the writer's; for one on a loop: on that loop."""
        if self._loop is None:
            self._waiter.release()
        elif not self._waiter.done():
            if self.error is None:
                self._waiter.set_result(self.result)
            else:
                self._waiter.set_exception(contained(self.error))


class Working(msgspec.Struct, frozen=True):
    """What the writer is busy with: the job's label and for how many seconds."""

    label: str
    seconds: float


class Writer:
    """One thread that runs jobs of many callers in shared transactions.

    All jobs that wait are run in one transaction, each in a savepoint of its own, so that one that fails harms only
    itself; then one commit serves them all, and only then their callers learn of it. While the disk works on that
    commit the next group gathers. Urgent jobs (heartbeats) go before all others, also in the middle of a group, which
    is committed at once then.

    A database that cannot be written fails the jobs that wait, and the thread goes on: the next group tries again.

    Args:
        connect: Makes the connection; called on the writer's thread, again after trouble with the file.
        translate: Turns an error of SQLite into one of ours.
        clock: The source of time.
        owner: What the sessions of the jobs belong to.
        queue_limit: The most jobs that wait, urgent ones aside; one more is refused.
        account: Returns whose the work of this thread or task is, None for the daemon's own: jobs are taken by turns.
        files: Watches the files, before a group and before it is acknowledged.
        on_full: Called when a group is the first one to fail because the disk is full.
    """

    def __init__(
        self,
        connect: Callable[[], Database],
        translate: Callable[[BaseException], BaseException],
        clock: Clock,
        owner: object,
        *,
        queue_limit: int = 20_000,
        account: Callable[[], Hashable] = nobodys,
        files: DatabaseFiles | NoFiles | None = None,
        on_full: Callable[[], object] = lambda: None,
    ) -> None:
        self._connect = connect
        self._files = files or NoFiles()
        self._translate = translate
        self._clock = clock
        self._owner = owner
        self._account = account
        self._on_full = on_full
        self._urgent: deque[Job] = deque()
        self._normal: FairQueue[Job] = FairQueue(queue_limit)
        self._changed = threading.Condition()
        self._closed = False
        self._waiting = False
        self._database: Database | None = None
        self._working: tuple[Job | str, float] | None = None
        self._last_commit = clock.monotonic()
        self._commits = 0
        self._jobs = 0
        self._outage = Outage(_log, "writing to the database", clock)
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self, database: Database | None = None) -> None:
        """Start the thread.

        Args:
            database: A connection to begin with, so that a file that is removed lives on in it; closed by the writer.

        Raises:
            StoreUnavailable: There is no memory for a thread, or the limit of tasks is reached.
        """
        self._database = database
        try:
            self._thread.start()
        except RuntimeError as error:
            raise StoreUnavailable(
                "the store's writer has got no thread", hint="raise TasksMax or free memory"
            ) from error

    @property
    def outage(self) -> Outage:
        """Whether the database can be written, and why not."""
        return self._outage

    @property
    def last_commit(self) -> float:
        """When a commit last succeeded, on the monotonic clock; at first when the writer was made."""
        return self._last_commit

    @property
    def queued(self) -> int:
        """How many jobs wait."""
        return len(self._urgent) + len(self._normal)

    @property
    def counts(self) -> tuple[int, int]:
        """How many jobs were committed, and with how many commits."""
        return self._jobs, self._commits

    def busy_with(self) -> Working | None:
        """Return what the writer is working on now, None when it waits for work. Any thread."""
        working = self._working
        if working is None:
            return None
        what, since = working
        return Working(what if isinstance(what, str) else what.name(), self._clock.monotonic() - since)

    def write(self, fn: Callable[[], T], *, label: str = "", urgent: bool = False) -> T:
        """Run `fn` on the writer's thread and return its result after the commit. Blocks; any thread but a loop's.

        Raises:
            Busy: Too many jobs wait.
            StoreUnavailable: It could not be written, or the store is closed.
            Exception: What `fn` raised.
        """
        waiter = threading.Lock()
        waiter.acquire()
        job = Job(fn, label, urgent, waiter, None)
        self._put(job)
        waiter.acquire()
        if job.error is not None:
            error = job.error
            job.error = None  # no cycle through the traceback's frames
            raise error
        result: T = job.result
        return result

    async def awrite(self, fn: Callable[[], T], *, label: str = "", urgent: bool = False) -> T:
        """Do the same for a caller on a loop. A cancelled wait does not take the write back."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(Job(fn, label, urgent, future, loop))
        return await future

    def close(self, timeout: float) -> str:
        """Finish what waits, take nothing new, end the thread; return what it hangs in, empty when it has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)
        working = self.busy_with()
        if not self._thread.is_alive():
            return ""
        return f"{working.label} for {working.seconds:.1f} s" if working else "the end of its thread"

    def _put(self, job: Job) -> None:
        if fork.in_child:
            raise fork.not_here("the store")
        account = None if job.urgent else self._account()
        with self._changed:
            if self._closed:
                raise StoreUnavailable("the store is closed", hint="the daemon is being stopped")
            if job.urgent:
                self._urgent.append(job)
            elif not self._normal.room(account):
                share = "" if len(self._normal) >= self._normal.limit else ", and this caller has its share of them"
                raise Busy(
                    f"{len(self._normal)} writes wait for the database{share}",
                    hint="try again in a second; if it lasts, look at `ostler status`",
                    retry_after=1.0,
                )
            else:
                self._normal.put(account, job)
            if self._waiting:
                self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            group: list[Job] = []
            try:
                self._write_group(group)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the callers learn of it and the thread lives
                self._fail(group, error)
            _release(group)
            # Only now: whoever sees nothing going on here may rely on all callers having been told.
            self._working = None
            del group
        self._leave()

    def _leave(self) -> None:
        """Look at the files once more: what was acknowledged is in them, or was said to be lost."""
        if self._database is not None:
            try:
                self._files.before_write(self._database)
            except StoreError as error:
                _log.error("at the end of the store: %s", error)
        self._disconnect()

    def _wait(self) -> bool:
        with self._changed:
            while not (self._urgent or self._normal):
                if self._closed:
                    return False
                self._waiting = True
                self._changed.wait()
                self._waiting = False
        return True

    def _write_group(self, group: list[Job]) -> None:
        """Run jobs in one transaction and commit it; each job taken is put on `group` first."""
        began = self._clock.monotonic()
        self._working = ("waiting for the database", began)
        try:
            database = self._begin()
        except BaseException:
            # Those who wait now waited as long for the lock as they are meant to; those who come later try anew.
            group.extend(self._take_all())
            raise
        connection = database.connection()
        with session(self._owner, database, writing=True):
            while (job := self._take(group, began)) is not None:
                group.append(job)
                self._run_job(job, connection)
        self._working = ("the commit", self._clock.monotonic())
        database.pop_transaction()
        connection.execute("COMMIT")
        if self._files.after_commit(database):
            self._disconnect()
        self._committed(group)

    def _begin(self) -> Database:
        if self._database is None:
            self._database = self._connect()
        if self._files.before_write(self._database):
            self._disconnect()
            self._database = self._connect()
        database = self._database
        database.connection().execute("BEGIN IMMEDIATE")
        # Tells peewee that a transaction is open, so that its `atomic()` makes a savepoint and not another BEGIN.
        database.push_transaction(self)
        return database

    def _take(self, group: list[Job], began: float) -> Job | None:
        """Return the next job of the group, None when it is to be committed."""
        if self._urgent:
            return self._urgent.popleft()  # a deque pops safely without the lock
        if group and group[-1].urgent and not group[0].urgent:
            return None  # a heartbeat came in the middle: it need not wait for more than this
        if not self._normal or len(group) >= GROUP_JOBS or self._clock.monotonic() - began > GROUP_SECONDS:
            return None
        with self._changed:
            return self._normal.pop()

    def _take_all(self) -> list[Job]:
        with self._changed:
            jobs = [*self._urgent, *self._normal]
            self._urgent.clear()
            self._normal.clear()
        return jobs

    def _run_job(self, job: Job, connection: sqlite3.Connection) -> None:
        began = self._clock.monotonic()
        self._working = (job, began)
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.context.run(job.fn)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a plugin must not end this thread
            job.error = self._translate(error)
            if connection.in_transaction:
                connection.execute("ROLLBACK TO job")
        if not connection.in_transaction:
            # SQLite does this itself when the disk is full or broken: the others of the group are undone as well.
            raise self._ended_by(job)
        connection.execute("RELEASE job")
        seconds = self._clock.monotonic() - began
        if seconds > LONG_JOB_SECONDS:
            _log.warning("the write %s held up all others for %.1f s; write in smaller pieces", job.name(), seconds)

    def _ended_by(self, job: Job) -> BaseException:
        if job.error is not None and is_trouble(job.error):
            return job.error
        return StoreError(
            f"the write {job.name()} ended the store's transaction, which others share",
            hint="use `with database.atomic():` in it, never commit, rollback or begin",
        )

    def _committed(self, group: list[Job]) -> None:
        self._last_commit = self._clock.monotonic()
        self._commits += 1
        self._jobs += len(group)
        self._outage.worked()

    def _fail(self, group: list[Job], error: BaseException) -> None:
        """Undo the transaction: nothing of the group was acknowledged, so all of it fails."""
        ours = self._translate(error)
        for job in group:
            if job.error is None:
                job.error = _each(ours)
        if is_trouble(ours):
            if self._outage.failed(ours) and is_full(ours):
                self._on_full()
        else:
            _log.error("a group of %d writes failed: %s", len(group), ours)
        if not is_file_change(ours):
            self._disconnect()

    def _disconnect(self) -> None:
        """Close the connection, which undoes an open transaction; the next group opens another."""
        database, self._database = self._database, None
        if database is None:
            return
        try:
            while database.in_transaction():
                database.pop_transaction()
            database.close()
        except Exception as error:  # noqa: BLE001 - a connection that is broken may not even close
            _log.debug("the writer's connection did not close: %s", error)
        self._files.disconnected()


def _each(error: BaseException) -> BaseException:
    """Return an error that several threads can raise at once: each needs one of its own, for its traceback."""
    if not is_a(error, StoreError):
        return error
    own = type(error)(error.message, hint=error.hint, **error.facts)
    own.__cause__ = error.__cause__
    return own


def _release(group: list[Job]) -> None:
    """Tell all callers; those on a loop with one wake-up for each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in group:
        if job.loop is None:
            job.settle()
        else:
            loops.setdefault(job.loop, []).append(job)
    for loop, jobs in loops.items():
        try:
            loop.call_soon_threadsafe(_settle, jobs)
        except RuntimeError:  # the loop has closed; nobody waits any more
            _log.debug("%d writes ended after their loop had closed", len(jobs))


def _settle(jobs: list[Job]) -> None:
    for job in jobs:
        job.settle()
