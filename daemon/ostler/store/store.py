"""The store: one database file, its writer, its readers."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, TypeVar

import peewee

from ostler.aio import WorkerPool
from ostler.clock import Clock, SystemClock
from ostler.errors import ContractError, StoreError
from ostler.store import backup, database, identity
from ostler.store import migrations as core
from ostler.store.ages import Ages
from ostler.store.current import Database, current_session, session
from ostler.store.failures import is_full, is_trouble, may_pass, sqlite_error, translate
from ostler.store.files import DatabaseFiles
from ostler.store.kv import KeyValue
from ostler.store.migrate import Migrator
from ostler.store.outage import Outage
from ostler.store.readers import Readers
from ostler.store.spare import SpareRoom, prepare_shared_memory
from ostler.store.writer import Working, Writer, nobodys

_log = logging.getLogger(__name__)
T = TypeVar("T")
CORE = "ostler"
"""The namespace of the core's own migrations."""


class Store:
    """One database: many readers, one writer thread with shared commits. Made by `Store.open`.

    What a function writes is on disk when `write` has returned, and not there at all when it has raised.

    Args:
        path: The database file; it is locked and sound.
        clock: The source of time.
        lock: The lock that is given back by `close`.
        connect: Makes connections; the argument says whether one for reading is wanted.
        backups: Where copies go before migrations.
        account: Returns whose the work of this thread or task is; reads and writes of many are done by turns.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        lock: database.OwnerLock,
        connect: Callable[[bool], Database],
        backups: backup.Backups,
        account: Callable[[], Hashable] = nobodys,
    ) -> None:
        self.path = path
        self.ages = Ages(clock)
        self._clock = clock
        self._lock = lock
        self._connect = connect
        self._backups = backups
        self._readers = Readers(lambda: self._open(True))
        self._reader_threads = WorkerPool("store-reader", 4)
        self._account = account
        self.failed_migrations: dict[str, StoreError | ContractError] = {}
        self._wanted: Mapping[str, ModuleType | str] = {}
        self._beginning = threading.Lock()
        self._files = DatabaseFiles(path, lock, backups, clock)
        self._files.renew_readers = self._readers.renew
        self._spare = SpareRoom(path)
        self._writer = Writer(
            lambda: self._open(False),
            lambda error: translate(error, path),
            clock,
            self,
            account=account,
            files=self._files,
            on_full=self._spare.release,
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
        account: Callable[[], Hashable] = nobodys,
        later: bool = False,
    ) -> Store:
        """Lock, open, check and migrate the database; make it if there is none. Blocks; any thread.

        Args:
            path: The database file; its folder is made if need be.
            clock: The source of time.
            synchronous: `FULL`: what was acknowledged survives a power cut. `NORMAL`: it survives a crash of the
                daemon, and commits cost less.
            busy_timeout: Seconds to wait for another program that holds the database locked.
            backups: How many copies from before migrations are kept.
            migrations: The migrations of plugins: namespace to package; see `migrate`.
            account: Returns whose the work of this thread or task is, None for the daemon's own.
            later: Whether a disk that cannot be written now (full, read-only, broken) is no reason to raise: all reads
                and writes raise `StoreUnavailable` until one of them finds that it can be written.

        Raises:
            StoreInUse: Another daemon owns this state.
            StoreUnavailable: It cannot be opened or written now.
            StoreCorrupt: It is damaged.
            SchemaTooNew: It was written by a newer version.
            StoreError: A migration of the core failed and was taken back. What a plugin's did wrong is in
                `failed_migrations`: it is that plugin's trouble alone.
        """
        clock = clock or SystemClock()

        def connect(read_only: bool) -> Database:
            return database.connect(path, synchronous=synchronous, busy_timeout=busy_timeout, read_only=read_only)

        lock = database.OwnerLock(path.with_suffix(".lock"))
        store = cls(path, clock, lock, connect, backup.Backups(path, backups, clock), account)
        store._wanted = {CORE: core, **(migrations or {})}
        try:
            store._start(later=later)
        except BaseException:
            lock.release()
            raise
        return store

    def _start(self, *, later: bool) -> None:
        connection: Database | None = None
        try:
            connection = self._begin()
            self._writer.start(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if not (later and connection is None and may_pass(error)):
                raise
            self._writer.start()
            self._writer.outage.failed(error)
            if is_full(error):
                self._spare.release()

    def _begin(self) -> Database:
        """Lock, make if need be, look through and migrate the database; return a connection for writing."""
        database.make_folder(self.path.parent)
        if not self._lock.held:
            self._lock.take()
        identity.refuse_lost(self.path)
        database.create_file(self.path)
        backup.clear_parts(self.path)
        identity.set_aside_foreign_wal(self.path)
        database.check_wal(self.path)
        prepare_shared_memory(self.path)
        connection = self._connect(False)
        try:
            self._prepare(connection)
            self._files.open(identity.stamp(connection, self.path))
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self, read_only: bool) -> Database:
        """Return a new connection; the first one that can be had prepares the database."""
        with self._beginning:
            if not self._files.opened:
                connection = self._begin()
                if not read_only:
                    return connection
                connection.close()
        self._files.check()
        return self._connect(read_only)

    def _prepare(self, connection: Database) -> None:
        database.inspect(connection, self.path)
        migrator = Migrator(connection, self.path, self._clock, self._backups.make_before_change)
        for namespace, package in self._wanted.items():
            try:
                migrator.migrate(namespace, package)
            except (StoreError, ContractError) as error:
                if namespace == CORE or is_trouble(error):
                    raise
                self.failed_migrations[namespace] = error
                _log.error("the tables of %s are not as its services need them: %s", namespace, error)

    def migrate(self, namespace: str, package: ModuleType | str) -> list[str]:
        """Bring a plugin's tables up to date; return the steps that were applied. Blocks; at start.

        Args:
            namespace: The plugin's own, with which the names of its tables begin.
            package: The package of modules `mNNNN_what.py`, or its import path.

        Raises:
            SchemaTooNew: The tables are newer than the plugin.
            StoreError: A migration failed and was taken back.
            ContractError: The package is not as it should be.
        """
        connection = self._open(False)
        try:
            return Migrator(connection, self.path, self._clock, self._backups.make_before_change).migrate(
                namespace, package
            )
        finally:
            connection.close()

    def write(self, fn: Callable[[], T], *, label: str = "", urgent: bool = False) -> T:
        """Run `fn` on the writer's thread and return its result when it is committed. Any thread but the loop's.

        `fn` may read and write, and must be quick: everybody waits for it. When it raises, what it wrote is undone, and
        nothing else is. Called inside another write of this store, it becomes a part of that.

        Args:
            fn: What to do. Records mean this store inside it.
            label: What it is called when it is slow; by default the function's name.
            urgent: Whether it goes before all that waits (heartbeats).

        Raises:
            StoreUnavailable: The database cannot be written now (locked, full, read-only), or the store is closed.
            Busy: Too many writes wait.
            StoreError: It was called on the loop's thread, or inside a read.
            Exception: What `fn` raised.
        """
        here = current_session()
        if here is not None and here.owner is self:
            return self._write_within(fn, here.database, here.writing)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._writer.write(fn, label=label, urgent=urgent)
        raise StoreError(
            "store.write was called on the loop's thread, where it would hold up everything",
            hint="use `await store.awrite(fn)` in `async def` methods",
        )

    def _write_within(self, fn: Callable[[], T], connection: Database, writing: bool) -> T:
        if not writing:
            raise StoreError(
                "store.write was called inside store.read, which would not see what it writes",
                hint="use store.write for the whole: it can read as well",
            )
        with connection.atomic():
            return fn()

    async def awrite(self, fn: Callable[[], T], *, label: str = "", urgent: bool = False) -> T:
        """Do what `write` does, for `async def` callers. `fn` still runs on the writer's thread.

        A cancelled wait does not take the write back.
        """
        return await self._writer.awrite(fn, label=label, urgent=urgent)

    def read(self, fn: Callable[[], T]) -> T:
        """Run `fn` on the calling thread and return its result; it sees one moment of the database. Any thread.

        Finish queries inside `fn` (`list(…)`), for outside of it they cannot run. Inside a write it is a part of that.

        Raises:
            StoreUnavailable: The database cannot be read now, or the store is closed.
            StoreError: `fn` tried to write.
            Exception: What `fn` raised.
        """
        here = current_session()
        if here is not None and here.owner is self:
            return fn()
        try:
            with self._readers.borrow() as connection, session(self, connection, writing=False):
                return fn()
        except peewee.PeeweeException as error:
            raise self._read_error(error) from error

    def _read_error(self, error: peewee.PeeweeException) -> BaseException:
        cause = sqlite_error(error)
        if getattr(cause, "sqlite_errorname", "") == "SQLITE_READONLY":
            return StoreError("store.read was given a function that writes", hint="use store.write for it")
        return translate(error, self.path)

    async def aread(self, fn: Callable[[], T]) -> T:
        """Do what `read` does on a thread for it, for `async def` callers that read much."""
        return await self._reader_threads.run(lambda: self.read(fn), label="read", client=self._account())

    def kv(self, namespace: str) -> KeyValue:
        """Return the key-value store of a namespace."""
        return KeyValue(self, namespace)

    def evidence(self) -> float:
        """Return when a commit last succeeded, on the monotonic clock: the watchdog's evidence. Any thread."""
        return self._writer.last_commit

    def _pulse(self) -> int:
        here = current_session()
        assert here is not None  # noqa: S101 - only ever run as a write
        here.database.execute_sql("UPDATE pulse SET number = number + 1")
        return int(here.database.execute_sql("SELECT number FROM pulse").fetchone()[0])

    def ping(self) -> int:
        """Write a number to disk, to see whether that goes; return it. Any thread but the loop's."""
        return self.write(self._pulse, label="pulse", urgent=True)

    async def aping(self) -> int:
        """Do what `ping` does, on the loop."""
        return await self.awrite(self._pulse, label="pulse", urgent=True)

    def keep_spare_room(self) -> bool:
        """Keep some room for the database on a disk that others fill; return whether all of it is kept.

        Call it now and then, on any thread but the loop's: it is kept again when the disk has plenty.
        """
        return self._spare.keep()

    def release_spare_room(self) -> bool:
        """Give the database a part of that room, for a write that gives room back; return whether there was any.

        Any thread but the loop's. A first part is given when the disk is found full.
        """
        return self._spare.release()

    @property
    def outage(self) -> Outage:
        """Whether the database can be written, and if not, why and since when."""
        return self._writer.outage

    def problems(self) -> list[str]:
        """Return what is not as it should be with the database, a line each. Any thread."""
        outage = self.outage
        lines = [f"the database cannot be written: {outage.why}"] if outage.active else []
        lines += [f"the tables of {name}: {error.message}" for name, error in self.failed_migrations.items()]
        return [*lines, *self._files.growth.problems(), *self.ages.trouble()]

    def busy_with(self) -> Working | None:
        """Return what the writer works on and for how many seconds, None when it waits for work. Any thread."""
        return self._writer.busy_with()

    def stats(self) -> dict[str, int]:
        """Return counters: writes and commits that succeeded, and how many writes wait. Any thread."""
        writes, commits = self._writer.counts
        return {"writes": writes, "commits": commits, "queued": self._writer.queued}

    def check(self) -> list[str]:
        """Look through the whole database; return what is wrong with it. Blocks, maybe for minutes; any thread."""
        connection = self._open(True)
        try:
            return database.check(connection, self.path)
        finally:
            connection.close()

    async def acheck(self) -> list[str]:
        """Do what `check` does, on the loop."""
        return await self._reader_threads.run(self.check, label="check the database", client=self._account())

    def backup(self, path: Path) -> Path:
        """Copy the database to a file that is not there yet; work goes on meanwhile. Blocks; any thread.

        Raises:
            Conflict: The file is there.
            StoreUnavailable: It cannot be written.
        """
        self._files.check()
        backup.copy(self.path, path)
        return path

    def open_copy(self) -> BinaryIO:
        """Return a consistent copy of the database in a file without a name. Blocks; any thread.

        Raises:
            StoreUnavailable: It cannot be written, or the database is another one by now.
            StoreCorrupt: It is damaged.
        """
        target = self.path.with_name(f".ostler-{os.urandom(8).hex()}.copy.part")
        self.backup(target)
        try:
            return target.open("rb")
        finally:
            target.unlink()

    def close(self, timeout: float = 10.0, *, keep_lock: bool = False) -> str:
        """Finish the writes that wait, close all connections, give the lock back. Harmless when done twice.

        Args:
            timeout: Seconds that the writes may take.
            keep_lock: Whether nobody else may own the database before this process has ended.

        Returns:
            What the writer hangs in, as one line; empty when all has ended.
        """
        hung = self._writer.close(timeout)
        self._reader_threads.close()
        self._reader_threads.join(0.0 if hung else timeout)
        self._readers.close()
        self._files.close()
        if not hung and not keep_lock:  # as long as the writer may still write, nobody else may own the database
            self._lock.release()
        return hung
