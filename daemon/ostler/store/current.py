"""Which database the running code means: the session that its thread is in, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec
import peewee

from ostler.errors import StoreError


class Database(peewee.SqliteDatabase):
    """One SQLite connection with peewee's query building; what `forward(database)` of a migration is handed.

    Inside `store.read`, `store.write` and migrations the transaction is the store's: `with database.atomic():` makes a
    savepoint in it, and nobody else commits.
    """


class Session(msgspec.Struct, frozen=True):
    """What a thread is doing with a store now; `owner` tells two stores of one process apart."""

    owner: object
    database: Database
    writing: bool


class _Local(threading.local):
    session: Session | None = None


_local = _Local()


def current_session() -> Session | None:
    """Return the session that this thread is in, None outside of `store.read` and `store.write`."""
    return _local.session


@contextmanager
def session(owner: object, database: Database, *, writing: bool) -> Iterator[None]:
    """Make `database` the one that records mean on this thread, inside the block."""
    before = _local.session
    _local.session = Session(owner, database, writing)
    try:
        yield
    finally:
        _local.session = before


class _Nowhere(peewee.SqliteDatabase):
    """Stands for the database outside of a session: queries can be built, and none can be run."""

    def __init__(self) -> None:
        super().__init__(None, autoconnect=False)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise StoreError(
            "a record was used outside of store.read and store.write",
            hint="use it in a function that is passed to `store.read` or `store.write`; finish queries (list(…)) there",
        )

    connect = connection = cursor = execute = execute_sql = begin = commit = rollback = _refuse
    atomic = transaction = savepoint = manual_commit = _refuse


class _CurrentDatabase(peewee.DatabaseProxy):
    """The proxy behind `Record`: what `obj` is depends on the thread that asks."""

    _nowhere = _Nowhere()

    def initialize(self, obj: Any) -> None:
        """Bind nothing: there is no global database."""

    @property
    def obj(self) -> peewee.SqliteDatabase:
        here = _local.session
        return self._nowhere if here is None else here.database


class Record(peewee.Model):
    """The base of all tables; its database is the store that this thread is reading or writing now.

    A plugin derives its tables from this, with `class Meta: table_name = "NAMESPACE_things"`, makes them in its
    migrations, and uses them in functions that it hands to `store.read` and `store.write`. Outside of those every query
    is an error that says so.
    """

    class Meta:
        """Where the table is."""

        database = _CurrentDatabase()
        legacy_table_names = False
