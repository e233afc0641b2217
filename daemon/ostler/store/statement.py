"""One statement as a write: the cheapest one, as SQLite itself undoes a statement that fails."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ostler.errors import ContractError, StoreError
from ostler.store.session import current_session

_WRITES = re.compile(r"\s*(?:INSERT|REPLACE|UPDATE|DELETE)\b", re.IGNORECASE)
# `OR FAIL` keeps the rows before the one that failed, `OR ROLLBACK` ends the transaction of all, and `RETURNING` gives
# rows that somebody has to fetch, which may fail when the statement has been done.
_REFUSED = re.compile(r"\bOR\s+(?:FAIL|ROLLBACK)\b|\bRETURNING\b", re.IGNORECASE)


class Written(NamedTuple):
    """What a statement has done: how many rows it changed, and the row id of the last one that it inserted."""

    changed: int
    row_id: int


def written_by(cursor: sqlite3.Cursor) -> Written:
    """Return what the statement of a cursor has done."""
    return Written(cursor.rowcount, cursor.lastrowid or 0)


class Statement:
    """An `INSERT`, `REPLACE`, `UPDATE` or `DELETE` for `store.write` and `store.awrite`, which return a `Written`.

    It does what a function with this one statement does, and costs half of that: SQLite undoes a statement that fails,
    so it needs no savepoint of its own. Any thread.

    Args:
        sql: One statement with `?` for each value; without `RETURNING`, `OR FAIL` and `OR ROLLBACK`.
        values: The values.

    Raises:
        ContractError: It is another kind of statement.
    """

    __slots__ = ("sql", "values")

    def __init__(self, sql: str, values: Sequence[Any] = ()) -> None:
        _check(sql)
        self.sql = sql
        self.values = values

    def __call__(self) -> Written:
        """Run it in the write of this thread, as a part of that.

        Raises:
            StoreError: This thread is not inside `store.write`.
            sqlite3.Error: SQLite refused it; it has changed nothing.
        """
        here = current_session()
        if here is None or not here.is_writing:
            raise StoreError("a statement was run outside of store.write", hint="pass it to `store.write`")
        cursor = here.database.connection().execute(self.sql, self.values)
        return written_by(cursor)

    def __repr__(self) -> str:
        return f"Statement({self.sql!r})"  # without the values: those may be secret


@lru_cache(500)
def _check(sql: str) -> None:
    if not _WRITES.match(sql) or _REFUSED.search(sql):
        raise ContractError(
            f"this is not a statement for `Statement`: {sql[:200]!r}",
            hint="it is one INSERT, REPLACE, UPDATE or DELETE without RETURNING, OR FAIL and OR ROLLBACK; pass a "
            "function to `store.write` for anything else",
        )
