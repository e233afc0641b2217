"""What is done about the files of an open database that were removed, replaced or overwritten by somebody else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ostler.clock import Clock
from ostler.errors import OstlerError, StoreUnavailable, describe
from ostler.store import backup
from ostler.store.current import Database
from ostler.store.database import OwnerLock, make_folder
from ostler.store.identity import FileState, FileWatch, Identity, wal_of
from ostler.store.wal import WalGrowth

_log = logging.getLogger(__name__)


class DatabaseFiles:
    """Watches the files of an open database for its writer. On the writer's thread, `check` on any.

    A file that was removed is written again from what the open connection has, so that nothing is lost. Beside one that
    was replaced nothing more is acknowledged, and what was written is saved to the backups.

    Args:
        path: The database file.
        lock: Makes this process its owner.
        backups: Where what was written is saved.
        clock: The source of time.
    """

    def __init__(self, path: Path, lock: OwnerLock, backups: backup.Backups, clock: Clock) -> None:
        self._path = path
        self._lock = lock
        self._backups = backups
        self._opened: FileWatch | None = None
        self._identity = Identity(path)
        self._saved = False
        self.growth = WalGrowth(path, clock)
        self.renew_readers: Callable[[], None] = lambda: None

    @property
    def opened(self) -> bool:
        """Whether there is a database that was prepared."""
        return self._opened is not None

    def open(self, ids: frozenset[int]) -> None:
        """Watch from now on; the header of the database has one of these ids."""
        self._opened = FileWatch(self._path, ids)

    @property
    def _watch(self) -> FileWatch:
        assert self._opened is not None  # noqa: S101 - nothing is connected before
        return self._opened

    def check(self) -> None:
        """Raise when a new connection would open another file. Any thread.

        Raises:
            StoreUnavailable: It would.
        """
        self._watch.check()

    def before_write(self, database: Database) -> bool:
        """Look before a transaction begins; return whether connections have to be made anew. See `after_commit`."""
        state = self._watch.look()
        if state is FileState.OURS:
            if self._saved:
                self._restored()
            return False
        return self._changed(database, state)

    def after_commit(self, database: Database) -> bool:
        """Look after a commit, before it is acknowledged; return whether connections have to be made anew.

        Raises:
            StoreUnavailable: What was committed is not in the file that is in the database's place.
        """
        state = self._watch.look()
        if state is FileState.OURS:
            self._watch.connected()
            self.growth.look(self._watch.wal_size)
            return False
        return self._changed(database, state)

    def disconnected(self) -> None:
        """Take note that the writer has closed its connection."""
        if self._opened is not None:
            self._opened.disconnected()

    def close(self) -> None:
        """Close what is held open; after all connections."""
        if self._opened is not None:
            self._opened.close()

    def _changed(self, database: Database, state: FileState) -> bool:
        if state is FileState.WAL_REMOVED:
            self._bring_in(database)
        elif state is FileState.REMOVED:
            self._write_again(database)
        else:
            if state is not FileState.HIDDEN:
                self._save(database, state)
            raise self._watch.error(state)
        return True

    def _bring_in(self, database: Database) -> None:
        """Bring the log that only open connections have into the database."""
        self.renew_readers()
        if database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise self._watch.error(FileState.WAL_REMOVED)  # somebody reads; tried again with the next write
        with suppress(OSError):
            wal_of(self._path).unlink()  # another one that was put in its place
        self._watch.disconnected()
        text = "the write-ahead log of %s was removed while the daemon runs; what was in it is in the database now"
        _log.error(text, self._path)

    def _write_again(self, database: Database) -> None:
        try:
            make_folder(self._path.parent)
            self._lock.renew()
            for beside in ("-wal", "-shm"):
                self._path.with_name(self._path.name + beside).unlink(missing_ok=True)
            fresh = backup.copy(database, self._path)
            self._identity.write(fresh)
            before, self._opened = self._watch, FileWatch(self._path, frozenset((fresh,)))
        except (OSError, OstlerError) as error:
            raise StoreUnavailable(
                f"the database {self._path} was removed while the daemon runs, "
                f"and cannot be written again: {describe(error)}",
                hint="look at the state directory; the daemon tries again with the next write",
                path=self._path,
            ) from error
        self.renew_readers()
        before.close()
        text = "the database %s was removed while the daemon runs; it was written again, and nothing is lost"
        _log.error(text, self._path)

    def _save(self, database: Database, state: FileState) -> None:
        """Save once what this daemon has acknowledged, and leave the other file as it is."""
        if self._saved:
            return
        self._saved = True
        if state is FileState.OVERWRITTEN:
            self._watch.keep_file_as_it_is()  # what was in the old one is gone; there is nothing to save
            return
        with suppress(OSError):
            self._identity.write()  # the log beside it belongs to no file that has a name
        try:
            self._backups.make("before-it-was-replaced", database)
        except OstlerError as error:
            _log.error("what was written to the replaced database could not be saved: %s", describe(error))

    def _restored(self) -> None:
        self._saved = False
        with suppress(OSError):
            self._identity.write(*self._watch.ids)


class NoFiles:
    """Stands for `DatabaseFiles` where nobody watches."""

    def before_write(self, _database: Database) -> bool:
        """Say that all is as it was."""
        return False

    def after_commit(self, _database: Database) -> bool:
        """Say that all is as it was."""
        return False

    def disconnected(self) -> None:
        """Take no note."""


def is_file_change(error: BaseException) -> bool:
    """Return whether an error says that the file is another one: then the open connection is all that has the data."""
    names = {state.name for state in FileState}
    return isinstance(error, StoreUnavailable) and error.facts.get("reason") in names
