"""Which database the running code uses: that of the session of its thread, and no other."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec
import peewee

from ostler.errors import StoreError

_peewee_log = logging.getLogger("peewee")
_peewee_errors: Any = vars(peewee)["__exception_wrapper__"]


class Database(peewee.SqliteDatabase):
    """One SQLite connection with peewee's query building; the argument of `forward(database)` of a migration.

    Inside `store.read`, `store.write` and migrations the store owns the transaction: `with database.atomic():` makes a
    savepoint in it, and only the store commits.
    """

    _state: Any

    def execute_sql(self, sql: str, params: Any = None) -> sqlite3.Cursor:
        """Run a statement; errors are peewee's. Does what peewee does, in half of the time."""
        connection = self._state.conn
        if connection is None or self.query_hooks or _peewee_log.isEnabledFor(logging.DEBUG):
            cursor: sqlite3.Cursor = super().execute_sql(sql, params)
            return cursor
        try:
            cursor = connection.execute(sql, params or ())
        except sqlite3.Error as error:
            with _peewee_errors:
                raise error from None  # peewee's own refers to it
        return cursor

    def begin(self, lock_type: str | None = None) -> None:
        """See peewee; refused inside a transaction, which is the store's."""
        self._raise_if_in_transaction("begin")
        super().begin(lock_type)

    def commit(self) -> None:
        """See peewee; refused inside a transaction, which is the store's and has work of others in it."""
        self._raise_if_in_transaction("commit")
        super().commit()

    def rollback(self) -> None:
        """See peewee; refused inside a transaction, which is the store's."""
        self._raise_if_in_transaction("rollback")
        super().rollback()

    def _raise_if_in_transaction(self, what: str) -> None:
        if self._state.transactions:
            raise StoreError(
                f"{what} was called inside store.read, store.write or a migration, whose transaction is the store's",
                hint="use `with database.atomic() as part:` and `part.rollback()`; what has returned is committed",
            )

    def pop_commit_callbacks(self) -> list[Callable[[], object]] | None:
        """Return what `after_commit` was given since the last time, None when that is nothing; for the writer."""
        callbacks = self._state.commit_callbacks
        if not callbacks:
            return None
        self._state.commit_callbacks = []
        found: list[Callable[[], object]] = callbacks
        return found


class StoreSession(msgspec.Struct, frozen=True):
    """A thread's current use of a store; `owner` distinguishes two stores of one process."""

    owner: object
    database: Database
    is_writing: bool


class _Local(threading.local):
    session: StoreSession | None = None


_local = _Local()


def current_session() -> StoreSession | None:
    """Return the session that this thread is in, None outside of `store.read` and `store.write`."""
    return _local.session


@contextmanager
def open_session(owner: object, database: Database, *, is_writing: bool) -> Iterator[None]:
    """Make `database` the one that records use on this thread, inside the block."""
    before = _local.session
    _local.session = StoreSession(owner, database, is_writing)
    try:
        yield
    finally:
        _local.session = before


class _NoDatabase(peewee.SqliteDatabase):
    """The database outside of a session: queries can be built, but not run."""

    def __init__(self) -> None:
        super().__init__(None, autoconnect=False)

    def _raise_no_session(self, *_: Any, **__: Any) -> NoReturn:
        raise StoreError(
            "a record was used outside of store.read and store.write",
            hint="use it in a function passed to `store.read` or `store.write`; finish queries there (list(…))",
        )

    connect = connection = cursor = execute = execute_sql = begin = commit = rollback = _raise_no_session
    atomic = transaction = savepoint = manual_commit = _raise_no_session


class _CurrentDatabase(peewee.DatabaseProxy):
    """The proxy behind `Record`: what `obj` is depends on the thread that asks."""

    _no_database = _NoDatabase()

    def initialize(self, obj: Any) -> None:
        """Do nothing: there is no global database."""

    @property
    def obj(self) -> peewee.SqliteDatabase:
        here = _local.session
        return self._no_database if here is None else here.database


class Record(peewee.Model):
    """The base of all tables; its database is the store that this thread is reading from or writing to now.

    A plugin derives its tables from this, with `class Meta: table_name = "NAMESPACE_things"`, creates them in its
    migrations, and uses them in functions that it passes to `store.read` and `store.write`. Outside of those every
    query raises an error.
    """

    class Meta:
        """Where the table is."""

        database = _CurrentDatabase()
        legacy_table_names = False
