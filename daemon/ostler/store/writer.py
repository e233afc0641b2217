"""The one writing thread, and the commits that its callers share."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

import msgspec

from ostler import fork
from ostler.clock import Clock
from ostler.errors import OWN_SHARE, Busy, StoreError, StoreUnavailable, is_a
from ostler.store.outage import Outage
from ostler.store.session import Database, open_session
from ostler.store.slow_transactions import NO_LIMIT, SlowTransactions
from ostler.store.sqlite_errors import is_database_error, is_disk_full
from ostler.store.sqlite_files.database_files import DatabaseFiles, NoDatabaseFiles, is_file_change
from ostler.store.statement import Statement, written_by
from ostler.store.write_job import WriteJob, resolve_jobs
from ostler.store.write_queue import WriteQueue
from ostler.time_text import format_seconds

T = TypeVar("T")


_log = logging.getLogger(__name__)

MAX_GROUP_TIME = 0.05
"""Seconds after which a group is committed, so that a heartbeat never waits for long."""
MAX_GROUP_JOBS = 1000
"""The most jobs of one commit."""


class CurrentJob(msgspec.Struct, frozen=True):
    """What the writer is busy with: the job's label and for how many seconds."""

    label: str
    seconds: float


class Writer:
    """One thread that runs jobs of many callers in shared transactions.

    All waiting jobs run in one transaction, each in a savepoint of its own, so that a failing one affects only itself
    (a `Statement` needs none); then one commit serves them all, and only then are their callers notified. The next
    group gathers during that commit. Urgent jobs (heartbeats) run before all others, even in the middle of a group,
    which is then committed at once.

    If the database cannot be written the waiting jobs fail, and the thread continues: the next group tries again.

    Args:
        connect: Opens the connection; called on the writer's thread, again after problems with the file.
        translate: Converts an error of SQLite to one of the store.
        clock: The source of time.
        owner: The owner of the jobs' sessions.
        queue: Where jobs wait; one more than its limit is refused.
        files: Watches the files, before a group and before it is acknowledged.
        on_full: Called when a group is the first to fail because the disk is full.
        slow: Names what takes long in the log; by default nothing does.
    """

    def __init__(
        self,
        connect: Callable[[], Database],
        translate: Callable[[BaseException], BaseException],
        clock: Clock,
        owner: object,
        *,
        queue: WriteQueue | None = None,
        files: DatabaseFiles | NoDatabaseFiles | None = None,
        on_full: Callable[[], object] = lambda: None,
        slow: SlowTransactions | None = None,
    ) -> None:
        self._connect = connect
        self._database_files = files or NoDatabaseFiles()
        self._translate = translate
        self._clock = clock
        self._owner = owner
        self._on_full = on_full
        self._queue = WriteQueue() if queue is None else queue
        self._slow = slow or SlowTransactions(clock, NO_LIMIT)
        self._lock = threading.Lock()
        self._wake_up = threading.Lock()
        """Released once for each time that the writer was idle and is not to be any longer."""
        self._wake_up.acquire()
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
        return len(self._queue)

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
        job = WriteJob(fn, label, urgent, self._clock.monotonic(), copy_context(), waiter, None)
        self._enqueue(job)
        result: T = _wait_for(job)
        return result

    async def awrite(self, fn: Callable[[], T], *, label: str = "", urgent: bool = False) -> T:
        """Do the same for a caller on a loop. A cancelled wait does not cancel the write."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._enqueue(WriteJob(fn, label, urgent, self._clock.monotonic(), copy_context(), future, loop))
        return await future

    def run_alone(self, fn: Callable[[], T], *, label: str) -> T:
        """Run `fn` on the writer's thread in no transaction, with its connection in the session. Blocks as `write`.

        Raises:
            StoreUnavailable: The database cannot be opened, or the store is closed.
            Exception: What `fn` raised.
        """
        waiter = threading.Lock()
        waiter.acquire()
        job = WriteJob(fn, label, False, self._clock.monotonic(), copy_context(), waiter, None)
        with self._lock:
            if self._is_closed:
                raise _closed_error()
            self._queue.alone.append(job)
            self._end_idleness()
        result: T = _wait_for(job)
        return result

    def close(self, timeout: float) -> str:
        """Refuse new jobs, finish the waiting ones, end the thread; return what it hangs in, empty if it has ended."""
        with self._lock:
            self._is_closed = True
            self._end_idleness()
        self._thread.join(timeout)
        working = self.current_job()
        if not self._thread.is_alive():
            return ""
        return f"{working.label} for {format_seconds(working.seconds, 2)}" if working else "the end of its thread"

    def _enqueue(self, job: WriteJob) -> None:
        if fork.in_child:
            raise fork.forked_child_error("the store")
        account = None if job.urgent else self._queue.account()
        with self._lock:
            if self._is_closed:
                raise _closed_error()
            if job.urgent:
                self._queue.urgent.append(job)
            elif not self._queue.put(account, job):
                raise self._queue_full_error()
            if self._is_idle:
                self._end_idleness()

    def _queue_full_error(self) -> Busy:
        count = self._queue.normal_count
        is_own = count < self._queue.limit
        share = ", and this caller has used its share of them" if is_own else ""
        return Busy(
            f"{count} writes are waiting for the database{share}",
            hint="retry in a second; if this persists, see `ostler status`",
            retry_after=1.0,
            reason=OWN_SHARE if is_own else "",
        )

    def _end_idleness(self) -> None:
        """Wake the writer if it is idle; with the lock held, so that it is woken once."""
        if self._is_idle:
            self._is_idle = False
            self._wake_up.release()

    def _run(self) -> None:
        while self._wait_for_jobs():
            group: list[WriteJob] = []
            try:
                if self._queue.alone:
                    self._run_alone(group)
                else:
                    self._write_group(group)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the callers learn of it and the thread lives
                self._fail_group(group, error)
            resolve_jobs(group)
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
        while True:
            with self._lock:
                if self._queue:
                    return True
                if self._is_closed:
                    return False
                self._is_idle = True
            self._wake_up.acquire()

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
            now = self._clock.monotonic()
            if now - began > self._slow.limit:
                self._slow.on_lock(now - began)
            began = now  # the wait for a lock leaves no less time for the group
            while (job := self._next_job(group, now - began)) is not None:
                group.append(job)
                self._current = (job, now)
                now = self._run_job(job, database, connection, now)
        self._current = ("the commit", now)
        database.pop_transaction()
        connection.execute("COMMIT")
        if self._database_files.after_commit(database):
            self._disconnect()
        self._on_commit(group, now)

    def _run_alone(self, group: list[WriteJob]) -> None:
        job = self._queue.alone.popleft()
        self._current = (job, self._clock.monotonic())
        group.append(job)
        try:
            database = self._open_database()
            with open_session(self._owner, database, is_writing=True):
                job.result = job.context.run(job.fn)
        except BaseException as error:  # noqa: BLE001 - it is its caller's; what is wrong with the file shows at the next write
            job.error = self._translate(error)
            self._disconnect()

    def _open_database(self) -> Database:
        if self._database is None:
            self._database = self._connect()
        if self._database_files.before_write(self._database):
            self._disconnect()
            self._database = self._connect()
        return self._database

    def _begin_transaction(self) -> Database:
        database = self._open_database()
        database.connection().execute("BEGIN IMMEDIATE")
        # Tells peewee that a transaction is open, so that its `atomic()` makes a savepoint instead of a BEGIN.
        database.push_transaction(self)
        return database

    def _next_job(self, group: list[WriteJob], age: float) -> WriteJob | None:
        """Return the next job of a group that is some seconds old, None when the group is complete."""
        queue = self._queue
        if queue.urgent:
            return queue.urgent.popleft()  # a deque pops safely without the lock
        if group and group[-1].urgent and not group[0].urgent:
            return None  # a heartbeat arrived: commit now, so that it waits no longer
        if not queue.normal_count or len(group) >= MAX_GROUP_JOBS or age > MAX_GROUP_TIME:
            return None
        with self._lock:
            return queue.pop()

    def _pop_all_jobs(self) -> list[WriteJob]:
        with self._lock:
            return self._queue.pop_all()

    def _run_job(self, job: WriteJob, database: Database, connection: sqlite3.Connection, began: float) -> float:
        """Run one job of a group; return when it ended, on the monotonic clock."""
        fn = job.fn
        if type(fn) is Statement:
            self._run_statement(job, fn, connection)
        else:
            self._run_function(job, database, connection)
        if not connection.in_transaction:
            # SQLite rolls back the whole transaction when the disk is full or broken: the other jobs are lost as well.
            raise self._transaction_ended_error(job)
        ended = self._clock.monotonic()
        if ended - began > self._slow.limit:
            self._slow.on_write(job, began - job.since, ended - began)
        return ended

    def _run_function(self, job: WriteJob, database: Database, connection: sqlite3.Connection) -> None:
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.context.run(job.fn)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a plugin must not end this thread
            job.error = self._translate(error)
            database.pop_commit_callbacks()
            if connection.in_transaction:
                connection.execute("ROLLBACK TO job")
        else:
            job.callbacks = database.pop_commit_callbacks()
        if connection.in_transaction:
            connection.execute("RELEASE job")

    def _run_statement(self, job: WriteJob, statement: Statement, connection: sqlite3.Connection) -> None:
        changes = connection.total_changes
        try:
            job.result = written_by(connection.execute(statement.sql, statement.values))
        except BaseException as error:
            job.error = self._translate(error)
            if connection.total_changes != changes:
                raise StoreError(
                    f"the write {job.display_name()} failed and had changed rows, so the writes that shared its "
                    "transaction were rolled back with it",
                    hint="retry; have its trigger use RAISE(ABORT) instead of RAISE(FAIL)",
                ) from error

    def _transaction_ended_error(self, job: WriteJob) -> BaseException:
        if job.error is not None and is_database_error(job.error):
            return job.error
        return StoreError(
            f"the write {job.display_name()} ended the store's transaction, which other writes share",
            hint="use `with database.atomic():` in it; never call commit, rollback or begin",
        )

    def _on_commit(self, group: list[WriteJob], began: float) -> None:
        self._last_commit = self._clock.monotonic()
        if self._last_commit - began > self._slow.limit:
            self._slow.on_commit(len(group), self._last_commit - began)
        self._commit_count += 1
        self._job_count += len(group)
        self._outage.worked()
        for job in group:
            if job.callbacks:
                self._run_callbacks(job)

    def _run_callbacks(self, job: WriteJob) -> None:
        for callback in job.callbacks or ():
            try:
                job.context.run(callback)
            except BaseException:  # noqa: BLE001 - its write is committed, and its caller must not be told otherwise
                _log.exception("a function that was passed to after_commit in the write %s failed", job.display_name())

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


def _closed_error() -> StoreUnavailable:
    return StoreUnavailable("the store is closed", hint="the daemon is stopping")


def _wait_for(job: WriteJob) -> Any:
    """Wait on a thread for the end of a job; return its result or raise its error."""
    job.waiter.acquire()
    if job.error is not None:
        error = job.error
        job.error = None  # no cycle through the traceback's frames
        raise error
    return job.result


def _copy_error(error: BaseException) -> BaseException:
    """Return a copy of an error for one caller: each thread needs its own, for its traceback."""
    if not is_a(error, StoreError):
        return error
    own = type(error)(error.message, hint=error.hint, **error.details)
    own.__cause__ = error.__cause__
    return own
