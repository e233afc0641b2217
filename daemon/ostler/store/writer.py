"""The one writing thread, and the commits that its callers share."""

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
from ostler.aio.fair_queue import FairQueue
from ostler.aio.worker_pool import as_exception
from ostler.clock import Clock
from ostler.errors import Busy, StoreError, StoreUnavailable, is_a
from ostler.store.outage import Outage
from ostler.store.session import Database, open_session
from ostler.store.sqlite_errors import is_database_error, is_disk_full
from ostler.store.sqlite_files.database_files import DatabaseFiles, NoDatabaseFiles, is_file_change

T = TypeVar("T")


def no_account() -> Hashable:
    """Attribute all work to the daemon itself."""
    return None


_log = logging.getLogger(__name__)

MAX_GROUP_TIME = 0.05
"""Seconds after which a group is committed, so that a heartbeat never waits for long."""
MAX_GROUP_JOBS = 1000
"""The most jobs of one commit."""
SLOW_JOB_THRESHOLD = 1.0
"""Seconds after which a job is logged as slow."""


class WriteJob:
    """One function that waits for the writer, and how its caller is notified of its end."""

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

    def display_name(self) -> str:
        """Return the name of the job in messages."""
        return self.label or f"{self.fn.__module__}.{getattr(self.fn, '__qualname__', type(self.fn).__name__)}"

    def resolve(self) -> None:
        """Notify the caller: one on a thread from the writer's thread, one on a loop on that loop."""
        if self._loop is None:
            self._waiter.release()
        elif not self._waiter.done():
            if self.error is None:
                self._waiter.set_result(self.result)
            else:
                self._waiter.set_exception(as_exception(self.error))


class CurrentJob(msgspec.Struct, frozen=True):
    """What the writer is busy with: the job's label and for how many seconds."""

    label: str
    seconds: float


class Writer:
    """One thread that runs jobs of many callers in shared transactions.

    All waiting jobs run in one transaction, each in a savepoint of its own, so that a failing one affects only itself;
    then one commit serves them all, and only then are their callers notified. The next group gathers during that
    commit. Urgent jobs (heartbeats) run before all others, even in the middle of a group, which is then committed at
    once.

    If the database cannot be written the waiting jobs fail, and the thread continues: the next group tries again.

    Args:
        connect: Opens the connection; called on the writer's thread, again after problems with the file.
        translate: Converts an error of SQLite to one of the store.
        clock: The source of time.
        owner: The owner of the jobs' sessions.
        queue_limit: The most waiting jobs, except urgent ones; one more is refused.
        account: Returns the account of this thread or task, None for the daemon itself: accounts take turns.
        files: Watches the files, before a group and before it is acknowledged.
        on_full: Called when a group is the first to fail because the disk is full.
    """

    def __init__(
        self,
        connect: Callable[[], Database],
        translate: Callable[[BaseException], BaseException],
        clock: Clock,
        owner: object,
        *,
        queue_limit: int = 20_000,
        account: Callable[[], Hashable] = no_account,
        files: DatabaseFiles | NoDatabaseFiles | None = None,
        on_full: Callable[[], object] = lambda: None,
    ) -> None:
        self._connect = connect
        self._database_files = files or NoDatabaseFiles()
        self._translate = translate
        self._clock = clock
        self._owner = owner
        self._account = account
        self._on_full = on_full
        self._urgent: deque[WriteJob] = deque()
        self._normal: FairQueue[WriteJob] = FairQueue(queue_limit)
        self._condition = threading.Condition()
        self._is_closed = False
        self._is_idle = False
        self._database: Database | None = None
        self._current: tuple[WriteJob | str, float] | None = None
        self._last_commit = clock.monotonic()
        self._commit_count = 0
        self._job_count = 0
        self._outage = Outage(_log, "writing to the database", clock)
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self, database: Database | None = None) -> None:
        """Start the thread.

        Args:
            database: The first connection, which still has the data of a removed file; closed by the writer.

        Raises:
            StoreUnavailable: No thread can be started: out of memory, or the limit of tasks is reached.
        """
        self._database = database
        try:
            self._thread.start()
        except RuntimeError as error:
            raise StoreUnavailable(
                "the store's writer could not start a thread", hint="raise TasksMax, or free memory"
            ) from error

    @property
    def outage(self) -> Outage:
        """Whether the database can be written, and why not."""
        return self._outage

    @property
    def last_commit(self) -> float:
        """When a commit last succeeded, on the monotonic clock; before the first one when the writer was created."""
        return self._last_commit

    @property
    def queued_count(self) -> int:
        """The number of waiting jobs."""
        return len(self._urgent) + len(self._normal)

    @property
    def job_and_commit_counts(self) -> tuple[int, int]:
        """The numbers of committed jobs, and of commits."""
        return self._job_count, self._commit_count

    def current_job(self) -> CurrentJob | None:
        """Return the current job of the writer, None when it is idle. Any thread."""
        working = self._current
        if working is None:
            return None
        what, since = working
        return CurrentJob(what if isinstance(what, str) else what.display_name(), self._clock.monotonic() - since)

    def write(self, fn: Callable[[], T], *, label: str = "", urgent: bool = False) -> T:
        """Run `fn` on the writer's thread and return its result after the commit. Blocks; any thread but a loop's.

        Raises:
            Busy: Too many jobs are waiting.
            StoreUnavailable: It could not be written, or the store is closed.
            Exception: What `fn` raised.
        """
        waiter = threading.Lock()
        waiter.acquire()
        job = WriteJob(fn, label, urgent, waiter, None)
        self._enqueue(job)
        waiter.acquire()
        if job.error is not None:
            error = job.error
            job.error = None  # no cycle through the traceback's frames
            raise error
        result: T = job.result
        return result

    async def awrite(self, fn: Callable[[], T], *, label: str = "", urgent: bool = False) -> T:
        """Do the same for a caller on a loop. A cancelled wait does not cancel the write."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._enqueue(WriteJob(fn, label, urgent, future, loop))
        return await future

    def close(self, timeout: float) -> str:
        """Refuse new jobs, finish the waiting ones, end the thread; return what it hangs in, empty if it has ended."""
        with self._condition:
            self._is_closed = True
            self._condition.notify()
        self._thread.join(timeout)
        working = self.current_job()
        if not self._thread.is_alive():
            return ""
        return f"{working.label} for {working.seconds:.1f} s" if working else "the end of its thread"

    def _enqueue(self, job: WriteJob) -> None:
        if fork.in_child:
            raise fork.forked_child_error("the store")
        account = None if job.urgent else self._account()
        with self._condition:
            if self._is_closed:
                raise StoreUnavailable("the store is closed", hint="the daemon is stopping")
            if job.urgent:
                self._urgent.append(job)
            elif not self._normal.has_room(account):
                share = (
                    "" if len(self._normal) >= self._normal.limit else ", and this caller has reached its share of them"
                )
                raise Busy(
                    f"{len(self._normal)} writes are waiting for the database{share}",
                    hint="retry in a second; if this persists, see `ostler status`",
                    retry_after=1.0,
                )
            else:
                self._normal.put(account, job)
            if self._is_idle:
                self._condition.notify()

    def _run(self) -> None:
        while self._wait_for_jobs():
            group: list[WriteJob] = []
            try:
                self._write_group(group)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the callers learn of it and the thread lives
                self._fail_group(group, error)
            _resolve_group(group)
            # Only now: an idle writer means that all callers have been notified.
            self._current = None
            del group
        self._finish()

    def _finish(self) -> None:
        """Check the files once more: acknowledged writes are in them, or their loss was logged."""
        if self._database is not None:
            try:
                self._database_files.before_write(self._database)
            except StoreError as error:
                _log.error("closing the store: %s", error)
        self._disconnect()

    def _wait_for_jobs(self) -> bool:
        with self._condition:
            while not (self._urgent or self._normal):
                if self._is_closed:
                    return False
                self._is_idle = True
                self._condition.wait()
                self._is_idle = False
        return True

    def _write_group(self, group: list[WriteJob]) -> None:
        """Run jobs in one transaction and commit it; each job taken is put on `group` first."""
        began = self._clock.monotonic()
        self._current = ("waiting for the database", began)
        try:
            database = self._begin_transaction()
        except BaseException:
            # The waiting jobs have waited for the lock as long as intended; later ones try again.
            group.extend(self._pop_all_jobs())
            raise
        connection = database.connection()
        with open_session(self._owner, database, is_writing=True):
            while (job := self._next_job(group, began)) is not None:
                group.append(job)
                self._run_job(job, connection)
        self._current = ("the commit", self._clock.monotonic())
        database.pop_transaction()
        connection.execute("COMMIT")
        if self._database_files.after_commit(database):
            self._disconnect()
        self._on_commit(group)

    def _begin_transaction(self) -> Database:
        if self._database is None:
            self._database = self._connect()
        if self._database_files.before_write(self._database):
            self._disconnect()
            self._database = self._connect()
        database = self._database
        database.connection().execute("BEGIN IMMEDIATE")
        # Tells peewee that a transaction is open, so that its `atomic()` makes a savepoint instead of a BEGIN.
        database.push_transaction(self)
        return database

    def _next_job(self, group: list[WriteJob], began: float) -> WriteJob | None:
        """Return the next job of the group, None when the group is complete."""
        if self._urgent:
            return self._urgent.popleft()  # a deque pops safely without the lock
        if group and group[-1].urgent and not group[0].urgent:
            return None  # a heartbeat arrived: commit now, so that it waits no longer
        if not self._normal or len(group) >= MAX_GROUP_JOBS or self._clock.monotonic() - began > MAX_GROUP_TIME:
            return None
        with self._condition:
            return self._normal.pop()

    def _pop_all_jobs(self) -> list[WriteJob]:
        with self._condition:
            jobs = [*self._urgent, *self._normal]
            self._urgent.clear()
            self._normal.clear()
        return jobs

    def _run_job(self, job: WriteJob, connection: sqlite3.Connection) -> None:
        began = self._clock.monotonic()
        self._current = (job, began)
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.context.run(job.fn)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a plugin must not end this thread
            job.error = self._translate(error)
            if connection.in_transaction:
                connection.execute("ROLLBACK TO job")
        if not connection.in_transaction:
            # SQLite rolls back the whole transaction when the disk is full or broken: the other jobs are lost as well.
            raise self._transaction_ended_error(job)
        connection.execute("RELEASE job")
        seconds = self._clock.monotonic() - began
        if seconds > SLOW_JOB_THRESHOLD:
            _log.warning(
                "the write %s blocked all others for %.1f s; write in smaller pieces", job.display_name(), seconds
            )

    def _transaction_ended_error(self, job: WriteJob) -> BaseException:
        if job.error is not None and is_database_error(job.error):
            return job.error
        return StoreError(
            f"the write {job.display_name()} ended the store's transaction, which other writes share",
            hint="use `with database.atomic():` in it; never call commit, rollback or begin",
        )

    def _on_commit(self, group: list[WriteJob]) -> None:
        self._last_commit = self._clock.monotonic()
        self._commit_count += 1
        self._job_count += len(group)
        self._outage.worked()

    def _fail_group(self, group: list[WriteJob], error: BaseException) -> None:
        """Roll back the transaction: nothing of the group was acknowledged, so all of it fails."""
        ours = self._translate(error)
        for job in group:
            if job.error is None:
                job.error = _copy_error(ours)
        if is_database_error(ours):
            if self._outage.failed(ours) and is_disk_full(ours):
                self._on_full()
        else:
            _log.error("a group of %d writes failed: %s", len(group), ours)
        if not is_file_change(ours):
            self._disconnect()

    def _disconnect(self) -> None:
        """Close the connection, which rolls back an open transaction; the next group opens another."""
        database, self._database = self._database, None
        if database is None:
            return
        try:
            while database.in_transaction():
                database.pop_transaction()
            database.close()
        except Exception as error:  # noqa: BLE001 - a connection that is broken may not even close
            _log.debug("cannot close the writer's connection: %s", error)
        self._database_files.on_disconnect()


def _copy_error(error: BaseException) -> BaseException:
    """Return a copy of an error for one caller: each thread needs its own, for its traceback."""
    if not is_a(error, StoreError):
        return error
    own = type(error)(error.message, hint=error.hint, **error.details)
    own.__cause__ = error.__cause__
    return own


def _resolve_group(group: list[WriteJob]) -> None:
    """Notify all callers; those on a loop with one wake-up per loop."""
    loops: dict[asyncio.AbstractEventLoop, list[WriteJob]] = {}
    for job in group:
        if job.loop is None:
            job.resolve()
        else:
            loops.setdefault(job.loop, []).append(job)
    for loop, jobs in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve_jobs, jobs)
        except RuntimeError:  # the loop is closed; there is no waiter any longer
            _log.debug("%d writes finished after their event loop was closed", len(jobs))


def _resolve_jobs(jobs: list[WriteJob]) -> None:
    for job in jobs:
        job.resolve()
