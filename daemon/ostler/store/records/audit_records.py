"""The stored audit log: written in batches, trimmed by number and age, read with filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import ValidationError, convert

from ostler.errors import StoreCorrupt, StoreError
from ostler.store.session import current_session, open_session
from ostler.types import AuditEntry

if TYPE_CHECKING:
    from ostler.store.retention_clock import RetentionClock
    from ostler.store.session import Database

T = TypeVar("T")
_COLUMNS = tuple(name for name in AuditEntry.__struct_fields__ if name != "number")
_COLUMN_LIST, _PLACEHOLDERS = ", ".join(_COLUMNS), ", ".join("?" * len(_COLUMNS))
_INSERT = f"INSERT INTO audit ({_COLUMN_LIST}) VALUES ({_PLACEHOLDERS})"  # noqa: S608 - our own words
_SELECT = f"SELECT number, {_COLUMN_LIST} FROM audit"  # noqa: S608 - our own words
MAX_LISTED_ENTRIES = 10_000
"""The most entries of one answer."""
_MAX_ANSWER_SIZE = 64 * 1024 * 1024
"""Characters of one answer in all."""


class StoreReader(Protocol):
    """The part of a store that reading needs; `offline` has one without a daemon."""

    def read(self, fn: Callable[[], T]) -> T:
        """Run `fn` on one snapshot of the database; see `Store.read`."""
        ...


class AuditRecords:
    """The table `audit`. The methods block: on the loop hand them to `store.awrite` or `store.aread`.

    Args:
        store: Where it is stored.
    """

    def __init__(self, store: StoreReader) -> None:
        self._store = store

    def save(self, entries: Iterable[AuditEntry]) -> list[int]:
        """Insert the entries that have no number yet, and update the counts of the others.

        Must run inside `store.write`.

        Returns:
            The number of each, in their order.
        """
        database = _current_database()
        numbers = []
        for entry in entries:
            if entry.number:
                values: tuple[Any, ...] = (entry.times, entry.last, entry.number)
                database.execute_sql("UPDATE audit SET times = ?, last = ? WHERE number = ?", values)
                numbers.append(entry.number)
            else:
                values = tuple(getattr(entry, name) for name in _COLUMNS)
                numbers.append(int(database.execute_sql(_INSERT, values).lastrowid or 0))
        return numbers

    def trim(self, count: int, before: float, ages: RetentionClock | None = None) -> None:
        """Remove entries whose last time is before the wall time `before`, and of the others all but `count`.

        `ages` limits how many may be removed because of their age at once, as the clock may be wrong; no limit without
        it. The oldest entries of the caller with the most are removed first: nobody can displace the entries of others.
        Must run inside `store.write`.
        """
        database = _current_database()
        (total,) = database.execute_sql("SELECT count(*) FROM audit").fetchone()
        (due,) = database.execute_sql("SELECT count(*) FROM audit WHERE last < ?", (before,)).fetchone()
        most = due if ages is None else ages.removal_limit("entries of the audit log", due, total, before)
        if most:
            database.execute_sql(
                "DELETE FROM audit WHERE number IN (SELECT number FROM audit WHERE last < ? ORDER BY number LIMIT ?)",
                (before, most),
            )
            total -= most
        if total <= count:
            return
        found = database.execute_sql("SELECT uid, key, count(*) FROM audit GROUP BY uid, key").fetchall()
        most = fair_limit([number for _, _, number in found], count)
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
            who: A user's name, uid, key, or a displayed name.
            method: `topic.method`, each part with `*` for any characters; a topic alone means all of its methods.
            since: The wall time from which on.
            failed: Whether only those that were refused or ended with an error.
            limit: The most entries.
            after: Only entries with a number above this.
        """
        where, values = _conditions(who, method, since, failed, after)
        query = f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?"
        values.append(max(0, min(limit, MAX_LISTED_ENTRIES)))

        def read() -> Sequence[Any]:
            return _fetch_bounded(_current_database().execute_sql(query, values))

        return [_to_entry(row) for row in reversed(self._store.read(read))]


def fair_limit(counts: Sequence[int], total_limit: int) -> int:
    """Return the most that each may keep, so that all together keep at most `total_limit`."""
    waiting = sorted(counts)
    for place, count in enumerate(waiting):
        share = total_limit // (len(waiting) - place)
        if count > share:
            return share
        total_limit -= count
    return max(counts, default=0)


def read_offline(path: Path) -> StoreReader:
    """Return a reader of the database of a stopped daemon, on a private copy; see `store.sqlite_files.offline_copy`."""
    return _OfflineStore(path)


class _OfflineStore:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, fn: Callable[[], T]) -> T:
        from ostler.store.sqlite_files import offline_copy  # only the command reads a copy

        with (
            offline_copy.open_offline_copy(self._path, ("audit",)) as connection,
            open_session(self, connection, is_writing=False),
        ):
            return fn()


def _current_database() -> Database:
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
        values += [_to_glob(topic), _to_glob(name) if dot else "*"]
    if failed:
        where.append("result <> 'done'")
    return where, values


def _to_glob(pattern: str) -> str:
    return "".join(f"[{letter}]" if letter in "?[" else letter for letter in pattern)


def _fetch_bounded(cursor: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    rows, size = [], 0
    for row in cursor:
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if size > _MAX_ANSWER_SIZE:
            raise StoreError(
                f"these entries of the audit log have more than {_MAX_ANSWER_SIZE // 2**20}MiB",
                hint="request fewer entries (limit)",
            )
        rows.append(row)
    return rows


def _to_entry(row: Sequence[Any]) -> AuditEntry:
    values = dict(zip(("number", *_COLUMNS), row, strict=True))
    try:
        return convert({**values, "refused": bool(values["refused"])}, AuditEntry)
    except ValidationError as error:
        raise StoreCorrupt(
            f"entry {values['number']!r:.40} of the audit log is damaged: {error}",
            hint="check who can write to the database",
        ) from None
