"""Handles files of an open database that were removed, replaced or overwritten by another program."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ostler.clock import Clock
from ostler.errors import OstlerError, StoreUnavailable, error_line
from ostler.store.session import Database
from ostler.store.sqlite_files import backup
from ostler.store.sqlite_files.file_identity import DatabaseFileState, FileWatch, IdentityFile, wal_path
from ostler.store.sqlite_files.sqlite_connection import OwnerLock, make_state_directory
from ostler.store.sqlite_files.wal_monitor import WalMonitor

_log = logging.getLogger(__name__)


class DatabaseFiles:
    """Watches the files of an open database for its writer. On the writer's thread, `raise_if_changed` on any.

    A removed file is recreated from the open connection, so that nothing is lost. When the file was replaced, nothing
    more is acknowledged, and what was written is saved to the backups.

    Args:
        path: The database file.
        lock: The owner's lock.
        backups: Where what was written is saved.
        clock: The source of time.
        invalidate_readers: Has connections of readers opened again, because the file is another one.
    """

    def __init__(
        self,
        path: Path,
        lock: OwnerLock,
        backups: backup.BackupDirectory,
        clock: Clock,
        invalidate_readers: Callable[[], None],
    ) -> None:
        self._path = path
        self._lock = lock
        self._backups = backups
        self._file_watch: FileWatch | None = None
        self._identity = IdentityFile(path)
        self._has_saved_copy = False
        self.wal_monitor = WalMonitor(path, clock)
        self._invalidate_readers = invalidate_readers

    @property
    def is_open(self) -> bool:
        """Whether a prepared database is open."""
        return self._file_watch is not None

    def open(self, ids: frozenset[int]) -> None:
        """Start watching; the header of the database has one of these ids."""
        self._file_watch = FileWatch(self._path, ids)

    @property
    def _open_watch(self) -> FileWatch:
        assert self._file_watch is not None  # noqa: S101 - nothing is connected before
        return self._file_watch

    def raise_if_changed(self) -> None:
        """Raise when a new connection would open another file. Any thread.

        Raises:
            StoreUnavailable: It would.
        """
        self._open_watch.raise_if_changed()

    def before_write(self, database: Database) -> bool:
        """Check before a transaction starts; return whether connections must be reopened. See `after_commit`."""
        state = self._open_watch.check_state()
        if state is DatabaseFileState.OURS:
            if self._has_saved_copy:
                self._on_restored()
            return False
        return self._handle_change(database, state)

    def after_commit(self, database: Database) -> bool:
        """Check after a commit, before it is acknowledged; return whether connections must be reopened.

        Raises:
            StoreUnavailable: The commit is not in the file at the database's path.
        """
        state = self._open_watch.check_state()
        if state is DatabaseFileState.OURS:
            self._open_watch.on_connect()
            self.wal_monitor.check(self._open_watch.wal_size)
            return False
        return self._handle_change(database, state)

    def on_disconnect(self) -> None:
        """Record that the writer has closed its connection."""
        if self._file_watch is not None:
            self._file_watch.on_disconnect()

    def close(self) -> None:
        """Close the held descriptors; after all connections."""
        if self._file_watch is not None:
            self._file_watch.close()

    def _handle_change(self, database: Database, state: DatabaseFileState) -> bool:
        if state is DatabaseFileState.WAL_REMOVED:
            self._checkpoint_wal(database)
        elif state is DatabaseFileState.REMOVED:
            self._rewrite_file(database)
        else:
            if state is not DatabaseFileState.HIDDEN:
                self._save_copy(database, state)
            raise self._open_watch.changed_error(state)
        return True

    def _checkpoint_wal(self, database: Database) -> None:
        """Checkpoint the log that only open connections have."""
        self._invalidate_readers()
        if database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise self._open_watch.changed_error(
                DatabaseFileState.WAL_REMOVED
            )  # a read is in progress; retried with the next write
        with suppress(OSError):
            wal_path(self._path).unlink()  # another file of the same name
        self._open_watch.on_disconnect()
        text = (
            "the write-ahead log of %s was removed while the daemon was running; its content is saved in the database"
        )
        _log.error(text, self._path)

    def _rewrite_file(self, database: Database) -> None:
        try:
            make_state_directory(self._path.parent)
            self._lock.reacquire()
            for beside in ("-wal", "-shm"):
                self._path.with_name(self._path.name + beside).unlink(missing_ok=True)
            fresh = backup.copy_database(database, self._path)
            self._identity.write(fresh)
            before, self._file_watch = self._open_watch, FileWatch(self._path, frozenset((fresh,)))
        except (OSError, OstlerError) as error:
            raise StoreUnavailable(
                f"the database {self._path} was removed while the daemon was running, "
                f"and cannot be recreated: {error_line(error)}",
                hint="check the state directory; the daemon retries with the next write",
                path=self._path,
            ) from error
        self._invalidate_readers()
        before.close()
        text = "the database %s was removed while the daemon was running; it has been recreated, nothing is lost"
        _log.error(text, self._path)

    def _save_copy(self, database: Database, state: DatabaseFileState) -> None:
        """Save once what this daemon has acknowledged, and leave the other file unchanged."""
        if self._has_saved_copy:
            return
        self._has_saved_copy = True
        if state is DatabaseFileState.OVERWRITTEN:
            self._open_watch.block_checkpoint()  # the old content is lost; there is nothing to save
            return
        with suppress(OSError):
            self._identity.write()  # the log belongs to a file that has no name any longer
        try:
            self._backups.create("before-it-was-replaced", database)
        except OstlerError as error:
            _log.error("cannot save what was written to the replaced database: %s", error_line(error))

    def _on_restored(self) -> None:
        self._has_saved_copy = False
        with suppress(OSError):
            self._identity.write(*self._open_watch.ids)


class NoDatabaseFiles:
    """Replaces `DatabaseFiles` where files are not watched."""

    def before_write(self, _database: Database) -> bool:
        """Report no change."""
        return False

    def after_commit(self, _database: Database) -> bool:
        """Report no change."""
        return False

    def on_disconnect(self) -> None:
        """Do nothing."""


def is_file_change(error: BaseException) -> bool:
    """Return whether an error reports a replaced file: then only the open connection has the data."""
    names = {state.name for state in DatabaseFileState}
    return isinstance(error, StoreUnavailable) and error.reason in names
