"""The store: one database file, its writer, its readers."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
from collections.abc import Callable, Coroutine, Hashable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple, TypeVar

import peewee

from ostler.aio import WorkerPool
from ostler.clock import Clock, SystemClock
from ostler.errors import Conflict, ContractError, StoreCorrupt, StoreError
from ostler.store import migrations as core
from ostler.store.damage import Damage
from ostler.store.kv import KeyValue
from ostler.store.migrate import CORE_NAMESPACE, Migrator
from ostler.store.outage import Outage
from ostler.store.reader_pool import ReaderPool
from ostler.store.retention_clock import RetentionClock
from ostler.store.session import Database, current_session, open_session
from ostler.store.slow_transactions import SLOW_TRANSACTION, SlowTransactions, nobody
from ostler.store.sqlite_errors import is_database_error, is_disk_full, is_transient, sqlite_error, translate_error
from ostler.store.sqlite_files import backup, file_identity, sqlite_connection
from ostler.store.sqlite_files.database_files import DatabaseFiles
from ostler.store.sqlite_files.reserved_space import ReservedSpace, disable_shm_copy_on_write
from ostler.store.sqlite_files.shm_space import ShmSpace
from ostler.store.sqlite_files.vacuum import VacuumResult, used_size, vacuum
from ostler.store.write_queue import WriteQueue, no_account
from ostler.store.writer import CurrentJob, Writer

_log = logging.getLogger(__name__)
T = TypeVar("T")
_RETRY_LOCK_WAIT = 1.0
"""Seconds to wait for locks of other programs when the database is opened once more: readers wait for that as well."""
MAX_ONLINE_VACUUM = 256 * 1024 * 1024
"""Bytes: some seconds, which is less than the watchdog waits for the writer."""


class Callers(NamedTuple):
    """How the store learns whose work this thread or task is doing.

    Attributes:
        account: Returns its account; None for the daemon's own.
        request: Returns the request that it serves, with who made it, for the log; empty for none.
    """

    account: Callable[[], Hashable] = no_account
    request: Callable[[], str] = nobody


NO_CALLERS = Callers()
"""All work is the daemon's own."""


class Store:
    """One database: many readers, one writer thread with shared commits. Made by `Store.open`.

    What a function writes is on disk when `write` has returned, and not there at all when it has raised.

    Args:
        path: The database file; it is locked and sound.
        clock: The source of time.
        lock: The lock that is given back by `close`.
        connect: Makes connections; the argument says whether one for reading is wanted.
        backups: Where copies go before migrations.
        callers: Whose work it is; reads and writes of many are done by turns.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        lock: sqlite_connection.OwnerLock,
        connect: Callable[[bool], Database],
        backups: backup.BackupDirectory,
        migrations: Mapping[str, ModuleType | str],
        callers: Callers = NO_CALLERS,
    ) -> None:
        self.path = path
        self.retention_clock = RetentionClock(clock)
        self._clock = clock
        self._lock = lock
        self._connect = connect
        self._backups = backups
        self._readers = ReaderPool(lambda: self._open_connection(True))
        self._reader_threads = WorkerPool("store-reader", 4)
        self._account = callers.account
        self.failed_migrations: dict[str, StoreError | ContractError] = {}
        self._migrations = migrations
        self._open_lock = threading.Lock()
        self._database_files = DatabaseFiles(path, lock, backups, clock, self._readers.invalidate)
        self._header_file = file_identity.HeaderFile(path)
        self._shm_space = ShmSpace(path)
        self._reserved_space = ReservedSpace(path)
        self._slow = SlowTransactions(clock, SLOW_TRANSACTION, callers.request)
        self._damage = Damage(clock)
        self._writer = Writer(
            lambda: self._open_connection(False),
            self._translate,
            clock,
            self,
            queue=WriteQueue(account=callers.account),
            files=self._database_files,
            on_full=self._reserved_space.release,
            slow=self._slow,
        )

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        clock: Clock | None = None,
        synchronous: str = "FULL",
        busy_timeout: float = 5.0,
        backups: int = 5,
        migrations: Mapping[str, ModuleType | str] | None = None,
        callers: Callers = NO_CALLERS,
        later: bool = False,
    ) -> Store:
        """Lock, open, check and migrate the database; make it if there is none. Blocks; any thread.

        Args:
            path: The database file; its directory is made if necessary.
            clock: The source of time.
            synchronous: `FULL`: what was acknowledged survives a power cut. `NORMAL`: it survives a crash of the
                daemon, and commits cost less.
            busy_timeout: Seconds to wait for another program that holds the database locked.
            backups: How many copies from before migrations are kept.
            migrations: The migrations of plugins: namespace to package; see `migrate`.
            callers: Whose work it is; by default all of it is the daemon's own.
            later: Whether a disk that cannot be written now (full, read-only, broken) is no reason to raise: all reads
                and writes raise `StoreUnavailable` until one of them finds that it can be written.

        Raises:
            StoreInUse: Another daemon owns this state.
            StoreUnavailable: It cannot be opened or written now.
            StoreCorrupt: It is damaged.
            SchemaTooNew: It was written by a newer version.
            StoreError: A migration of the core failed and was rolled back. Failures of a plugin's migrations are in
                `failed_migrations`: it is that plugin's trouble alone.
        """
        clock = clock or SystemClock()

        def connect(read_only: bool) -> Database:
            return sqlite_connection.connect(
                path, synchronous=synchronous, busy_timeout=busy_timeout, read_only=read_only
            )

        lock = sqlite_connection.OwnerLock(path.with_suffix(".lock"))
        store = cls(
            path,
            clock,
            lock,
            connect,
            backup.BackupDirectory(path, backups, clock),
            {CORE_NAMESPACE: core, **(migrations or {})},
            callers,
        )
        try:
            store._start(later=later)
        except BaseException:
            store._close_descriptors()
            lock.release()
            raise
        return store

    def _start(self, *, later: bool) -> None:
        connection: Database | None = None
        try:
            connection = self._open_database()
            self._writer.start(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if not (later and connection is None and is_transient(error)):
                raise
            self._writer.start()
            self._writer.outage.failed(error)
            if is_disk_full(error):
                self._reserved_space.release()

    def _open_database(self, lock_wait: float = math.inf) -> Database:
        """Lock, create if necessary, check and migrate the database; return a connection for writing.

        Args:
            lock_wait: Seconds to wait for locks of other programs, if that is less than usual.
        """
        sqlite_connection.make_state_directory(self.path.parent)
        if not self._lock.is_held:
            self._lock.acquire()
        file_identity.raise_if_lost(self.path)
        self._shm_space.require()
        if sqlite_connection.create_file(self.path):
            _log.info("created the database %s", self.path)
        backup.remove_partial_copies(self.path)
        file_identity.set_aside_foreign_wal(self.path, self._header_file)
        sqlite_connection.check_wal(self.path)
        disable_shm_copy_on_write(self.path)
        connection = self._connect(False)
        try:
            self._shm_space.allocate()
            with sqlite_connection.limit_lock_wait(connection, lock_wait):
                self._prepare(connection)
            with sqlite_connection.limit_lock_wait(connection, _RETRY_LOCK_WAIT):  # of a read that may never end
                ids = file_identity.assign_new_id(connection, self.path)
            self._database_files.open(ids)
        except BaseException:
            connection.close()
            raise
        return connection

    def _close_descriptors(self) -> None:
        self._header_file.close()
        self._shm_space.close()

    def _open_connection(self, read_only: bool) -> Database:
        """Return a new connection; the first successful one prepares the database."""
        with self._open_lock:
            if not self._database_files.is_open:
                connection = self._open_database(_RETRY_LOCK_WAIT)
                if not read_only:
                    return connection
                connection.close()
        self._database_files.raise_if_changed()
        return self._connect(read_only)

    def _prepare(self, connection: Database) -> None:
        sqlite_connection.check_usable(connection, self.path)
        migrator = Migrator(connection, self.path, self._clock, self._backups.create_before_migration)
        for namespace, package in self._migrations.items():
            try:
                migrator.migrate(namespace, package)
            except (StoreError, ContractError) as error:
                if namespace == CORE_NAMESPACE or is_database_error(error):
                    raise
                self.failed_migrations[namespace] = error
                _log.error("the tables of %s were not migrated, its services cannot use them: %s", namespace, error)

    def migrate(self, namespace: str, package: ModuleType | str) -> list[str]:
        """Bring a plugin's tables up to date; return the steps that were applied. Blocks; at start.

        Args:
            namespace: The plugin's own, with which the names of its tables begin.
            package: The package of modules `mNNNN_what.py`, or its import path.

        Raises:
            SchemaTooNew: The tables are newer than the plugin.
            StoreError: A migration failed and was rolled back.
            ContractError: The package is not valid.
        """
        connection = self._open_connection(False)
        try:
            return Migrator(connection, self.path, self._clock, self._backups.create_before_migration).migrate(
                namespace, package
            )
        finally:
            connection.close()

    def add_tables(self, namespace: str, package: ModuleType | str) -> None:
        """Bring the tables of a plugin up to date that was loaded after the start; no effect when they are. Blocks.

        Raises:
            StoreError: See `migrate`.
            ContractError: Likewise.
        """
        if namespace in self._migrations and namespace not in self.failed_migrations:
            return
        self.migrate(namespace, package)
        # From now on they are also there when the database is opened again.
        self._migrations = {**self._migrations, namespace: package}
        self.failed_migrations.pop(namespace, None)

    def write(self, fn: Callable[[], T], *, label: str = "", urgent: bool = False) -> T:
        """Run `fn` on the writer's thread and return its result when it is committed. Any thread but the loop's.

        `fn` may read and write, and must be quick: all writers wait for it. When it raises, only what it wrote is
        rolled back. Called inside another write of this store, it becomes a part of that.

        Args:
            fn: The function. Records use this store inside it.
            label: Its name in messages when it is slow; by default the function's name.
            urgent: Whether it runs before all waiting writes (heartbeats).

        Raises:
            StoreUnavailable: The database cannot be written now (locked, full, read-only), or the store is closed.
            Busy: Too many writes are waiting.
            StoreError: It was called on the loop's thread, or inside a read.
            Exception: What `fn` raised.
        """
        here = current_session()
        if here is not None and here.owner is self:
            return self._write_within(fn, here.database, here.is_writing)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._writer.write(fn, label=label, urgent=urgent)
        raise StoreError(
            "store.write was called on the event loop's thread, which it would block",
            hint="use `await store.awrite(fn)` in `async def` methods",
        )

    @property
    def is_writing(self) -> bool:
        """Whether this thread is inside a `write` of this store."""
        here = current_session()
        return here is not None and here.owner is self and here.is_writing

    def _write_within(self, fn: Callable[[], T], connection: Database, writing: bool) -> T:
        if not writing:
            raise StoreError(
                "store.write was called inside store.read, which would not see the changes",
                hint="use store.write for all of it: it can read as well",
            )
        with connection.atomic():
            return fn()

    def awrite(self, fn: Callable[[], T], *, label: str = "", urgent: bool = False) -> Coroutine[Any, Any, T]:
        """Do what `write` does, for `async def` callers. `fn` still runs on the writer's thread.

        A cancelled wait does not cancel the write.
        """
        return self._writer.awrite(fn, label=label, urgent=urgent)

    def read(self, fn: Callable[[], T]) -> T:
        """Run `fn` on the calling thread and return its result; it sees one snapshot of the database. Any thread.

        Finish queries inside `fn` (`list(…)`), as they cannot run outside. Inside a write it is a part of that.

        Raises:
            StoreUnavailable: The database cannot be read now, or the store is closed.
            StoreError: `fn` tried to write.
            Exception: What `fn` raised.
        """
        here = current_session()
        if here is not None and here.owner is self:
            return fn()
        began = self._clock.monotonic()
        try:
            with self._readers.borrow() as connection, open_session(self, connection, is_writing=False):
                return fn()
        except peewee.PeeweeException as error:
            raise self._read_error(error) from error
        finally:
            seconds = self._clock.monotonic() - began
            if seconds > self._slow.limit:
                self._slow.on_read(fn, seconds)

    def _read_error(self, error: peewee.PeeweeException) -> BaseException:
        cause = sqlite_error(error)
        if getattr(cause, "sqlite_errorname", "") == "SQLITE_READONLY":
            return StoreError("the function passed to store.read writes", hint="use store.write instead")
        return self._translate(error)

    def _translate(self, error: BaseException) -> BaseException:
        ours = translate_error(error, self.path)
        if isinstance(ours, StoreCorrupt):
            self._damage.found(ours)
        return ours

    async def aread(self, fn: Callable[[], T]) -> T:
        """Do what `read` does on a thread for it, for `async def` callers that read much."""
        return await self._reader_threads.run(lambda: self.read(fn), label="read", client=self._account())

    def kv(self, namespace: str) -> KeyValue:
        """Return the key-value store of a namespace."""
        return KeyValue(self, namespace)

    def last_commit_time(self) -> float:
        """Return when a commit last succeeded, by the monotonic clock: the watchdog's evidence. Any thread."""
        return self._writer.last_commit

    def _write_heartbeat(self) -> int:
        here = current_session()
        assert here is not None  # noqa: S101 - only ever run as a write
        here.database.execute_sql("UPDATE pulse SET number = number + 1")
        return int(here.database.execute_sql("SELECT number FROM pulse").fetchone()[0])

    def ping(self) -> int:
        """Write a number to disk, to check that writing works; return it. Any thread but the loop's."""
        return self.write(self._write_heartbeat, label="pulse", urgent=True)

    async def aping(self) -> int:
        """Do what `ping` does, on the loop."""
        return await self.awrite(self._write_heartbeat, label="pulse", urgent=True)

    def keep_spare_room(self) -> bool:
        """Reserve disk space for the database, in case others fill the disk; return whether all of it is reserved.

        Call it periodically, on any thread but the loop's: it is reserved again when the disk has enough space.
        """
        return self._reserved_space.refill()

    def release_spare_room(self) -> bool:
        """Release a part of the reserved space, for a write that frees space; return whether there was any.

        Any thread but the loop's. A first part is released when the disk is found full.
        """
        return self._reserved_space.release()

    @property
    def outage(self) -> Outage:
        """Whether the database can be written, and if not, why and since when."""
        return self._writer.outage

    def problems(self) -> list[str]:
        """Return the problems of the database, a line each. Any thread."""
        outage = self.outage
        lines = [f"the database cannot be written: {outage.why}"] if outage.is_active else []
        lines += [f"the tables of {name}: {error.message}" for name, error in self.failed_migrations.items()]
        lines += [line for line in self._damage.problems() if not outage.is_active or outage.why not in line]
        lines += self._reserved_space.problems()
        return [*lines, *self._database_files.wal_monitor.problems(), *self.retention_clock.problems()]

    def set_slow_transaction(self, seconds: float) -> None:
        """Change the seconds after which a write, a commit or a read is named in the log. Any thread."""
        self._slow.limit = seconds

    def set_backup_count(self, count: int) -> None:
        """Change how many copies from before migrations are kept. Any thread."""
        self._backups.max_count = count

    def current_job(self) -> CurrentJob | None:
        """Return the current job of the writer and its seconds, None when it is idle. Any thread."""
        return self._writer.current_job()

    def stats(self) -> dict[str, int]:
        """Return counters: successful writes and commits, and waiting writes. Any thread."""
        writes, commits = self._writer.job_and_commit_counts
        return {"writes": writes, "commits": commits, "queued": self._writer.queued_count}

    def check(self) -> list[str]:
        """Check the whole database; return what is wrong with it. Blocks, maybe for minutes; any thread."""
        connection = self._open_connection(True)
        try:
            found = sqlite_connection.check_integrity(connection, self.path)
        except StoreCorrupt as error:
            self._damage.found(error)
            raise
        finally:
            connection.close()
        if found:
            self._damage.found(sqlite_connection.corrupt_error(self.path, found))
        else:
            self._damage.repaired()
        return found

    async def acheck(self) -> list[str]:
        """Do what `check` does, on the loop."""
        return await self._reader_threads.run(self.check, label="check the database", client=self._account())

    def vacuum(self, limit: int = MAX_ONLINE_VACUUM) -> VacuumResult:
        """Give the room of removed rows back to the file system. Blocks, any thread but the loop's; writes wait.

        Args:
            limit: The most bytes that may be in use.

        Raises:
            Conflict: The database is so large that all writes, and with them the heartbeats, would wait for too long.
            StoreUnavailable: There is not enough room, or the database cannot be written.
        """

        def run() -> VacuumResult:
            here = current_session()
            assert here is not None  # noqa: S101 - the writer has opened one
            size = used_size(here.database)
            if size > limit:
                raise Conflict(
                    f"the database has {size // 2**20} MiB in use; at most {limit // 2**20} MiB are "
                    "vacuumed while the daemon runs, as nothing can be written meanwhile",
                    hint="stop the daemon, and run `ostler db vacuum` again",
                )
            return vacuum(here.database, self.path)

        return self._writer.run_alone(run, label="vacuum")

    def backup(self, path: Path) -> Path:
        """Copy the database to a new file; reads and writes continue meanwhile. Blocks; any thread.

        Raises:
            Conflict: The file exists.
            StoreUnavailable: It cannot be written.
        """
        self._database_files.raise_if_changed()
        backup.copy_database(self.path, path)
        return path

    def open_copy(self) -> BinaryIO:
        """Return a consistent copy of the database in a file without a name. Blocks; any thread.

        Raises:
            StoreUnavailable: It cannot be written, or the database was replaced.
            StoreCorrupt: It is damaged.
        """
        target = self.path.with_name(f".ostler-{os.urandom(8).hex()}.copy.part")
        self.backup(target)
        try:
            return target.open("rb")
        finally:
            target.unlink()

    def close(self, timeout: float = 10.0, *, keep_lock: bool = False) -> str:
        """Finish the waiting writes, close all connections, release the lock. May be called twice.

        Args:
            timeout: Seconds that the writes may take.
            keep_lock: Whether to hold the lock until this process has ended.

        Returns:
            What the writer hangs in, as one line; empty when everything has ended.
        """
        hung = self._writer.close(timeout)
        self._reader_threads.close()
        self._reader_threads.join(0.0 if hung else timeout)
        self._readers.close()
        self._database_files.close()
        self._close_descriptors()
        if not hung and not keep_lock:  # as long as the writer may still write, no other process may own the database
            self._lock.release()
        return hung
