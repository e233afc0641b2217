"""The audit log as it is kept: written in batches, trimmed by number and age, read with filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import ValidationError, convert

from ostler.errors import StoreCorrupt, StoreError
from ostler.store.current import current_session
from ostler.types import AuditEntry

if TYPE_CHECKING:
    from ostler.store.ages import Ages
    from ostler.store.current import Database

T = TypeVar("T")
_COLUMNS = tuple(name for name in AuditEntry.__struct_fields__ if name != "number")
_NAMES, _MARKS = ", ".join(_COLUMNS), ", ".join("?" * len(_COLUMNS))
_INSERT = f"INSERT INTO audit ({_NAMES}) VALUES ({_MARKS})"  # noqa: S608 - our own words
_SELECT = f"SELECT number, {_NAMES} FROM audit"  # noqa: S608 - our own words
MOST = 10_000
"""The most entries of one answer."""
_ANSWER_MAX = 64 * 1024 * 1024
"""Characters of one answer in all."""


class Readable(Protocol):
    """The part of a store that reading needs; `offline` has one without a daemon."""

    def read(self, fn: Callable[[], T]) -> T:
        """Run `fn` inside one moment of the database; see `Store.read`."""
        ...


class AuditRecords:
    """The table `audit`. The methods block: on the loop hand them to `store.awrite` or `store.aread`.

    Args:
        store: Where it is kept.
    """

    def __init__(self, store: Readable) -> None:
        self._store = store

    def keep(self, entries: Iterable[AuditEntry]) -> list[int]:
        """Insert the entries that have no number yet, and bring the counts of the others up to date.

        Must run inside `store.write`.

        Returns:
            The number of each, in their order.
        """
        database = _here()
        numbers = []
        for entry in entries:
            if entry.number:
                values: tuple[Any, ...] = (entry.times, entry.last, entry.number)
                database.execute_sql("UPDATE audit SET times = ?, last = ? WHERE number = ?", values)
                numbers.append(entry.number)
            else:
                values = tuple(getattr(entry, name) for name in _COLUMNS)
                numbers.append(int(database.execute_sql(_INSERT, values).lastrowid))
        return numbers

    def trim(self, count: int, before: float, ages: Ages | None = None) -> None:
        """Remove those whose last time was `before` that wall time, and of the others all but `count`.

        `ages` says how many may go for their age at once, for the clock may be wrong; all of them without it.
        Who made the most gives up its oldest first: nobody can have the entries of others removed by making many.
        Must run inside `store.write`.
        """
        database = _here()
        (total,) = database.execute_sql("SELECT count(*) FROM audit").fetchone()
        (due,) = database.execute_sql("SELECT count(*) FROM audit WHERE last < ?", (before,)).fetchone()
        most = due if ages is None else ages.most("entries of the audit log", due, total, before)
        if most:
            database.execute_sql(
                "DELETE FROM audit WHERE number IN (SELECT number FROM audit WHERE last < ? ORDER BY number LIMIT ?)",
                (before, most),
            )
            total -= most
        if total <= count:
            return
        found = database.execute_sql("SELECT uid, key, count(*) FROM audit GROUP BY uid, key").fetchall()
        most = level([number for _, _, number in found], count)
        for uid, key, number in found:
            if number > most:
                database.execute_sql(
                    "DELETE FROM audit WHERE number IN"
                    " (SELECT number FROM audit WHERE uid = ? AND key = ? ORDER BY number LIMIT ?)",
                    (uid, key, number - most),
                )

    def list(
        self,
        *,
        who: str = "",
        method: str = "",
        since: float = 0.0,
        failed: bool = False,
        limit: int = 100,
        after: int = 0,
    ) -> list[AuditEntry]:
        """Return the newest entries that fit, oldest first.

        Args:
            who: A user's name, uid, key, or a name as it is shown.
            method: `topic.method`, each part with `*` for any run of characters; a topic alone stands for all of it.
            since: The wall time from which on.
            failed: Whether only those that were refused or ended with an error.
            limit: The most entries.
            after: Only entries with a number above this.
        """
        where, values = _conditions(who, method, since, failed, after)
        query = f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?"
        values.append(max(0, min(limit, MOST)))

        def read() -> Sequence[Any]:
            return _bounded(_here().execute_sql(query, values))

        return [_entry(row) for row in reversed(self._store.read(read))]


def level(counts: Sequence[int], room: int) -> int:
    """Return the most that each may keep, so that all together keep no more than `room`."""
    waiting = sorted(counts)
    for place, count in enumerate(waiting):
        share = room // (len(waiting) - place)
        if count > share:
            return share
        room -= count
    return max(counts, default=0)


def read_offline(path: Path) -> Readable:
    """Return what reads a database whose daemon is down, from a private copy; see `ostler.store.offline`."""
    return _Offline(path)


class _Offline:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, fn: Callable[[], T]) -> T:
        from ostler.store import offline
        from ostler.store.current import session

        with offline.opened(self._path, ("audit",)) as connection, session(self, connection, writing=False):
            return fn()


def _here() -> Database:
    here = current_session()
    assert here is not None  # noqa: S101 - the store runs these
    return here.database


def _conditions(who: str, method: str, since: float, failed: bool, after: int) -> tuple[list[str], list[Any]]:
    where = ["number > ?", "last >= ?"]
    values: list[Any] = [after, since]
    if who:
        where.append("(who = ? OR user = ? OR (key <> '' AND key = ?) OR (uid >= 0 AND uid = ?))")
        values += [who, who, who, int(who) if who.isdecimal() and len(who) < 12 else -1]
    if method:
        topic, dot, name = method.partition(".")
        where.append("topic GLOB ? AND method GLOB ?")
        values += [_glob(topic), _glob(name) if dot else "*"]
    if failed:
        where.append("result <> 'done'")
    return where, values


def _glob(pattern: str) -> str:
    return "".join(f"[{letter}]" if letter in "?[" else letter for letter in pattern)


def _bounded(cursor: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    rows, size = [], 0
    for row in cursor:
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if size > _ANSWER_MAX:
            raise StoreError(
                f"these entries of the audit log have more than {_ANSWER_MAX // 2**20}MiB", hint="ask for fewer (limit)"
            )
        rows.append(row)
    return rows


def _entry(row: Sequence[Any]) -> AuditEntry:
    values = dict(zip(("number", *_COLUMNS), row, strict=True))
    try:
        return convert({**values, "refused": bool(values["refused"])}, AuditEntry)
    except ValidationError as error:
        raise StoreCorrupt(
            f"entry {values['number']!r:.40} of the audit log is damaged: {error}", hint="who can write the database?"
        ) from None
