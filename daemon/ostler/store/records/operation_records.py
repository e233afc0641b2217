"""The table of operations: each change of state is one compare-and-set, in the write that calls it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ostler.clock import Clock
from ostler.errors import StoreError
from ostler.store.session import current_session
from ostler.store.statement import Statement, Written
from ostler.types import LOCAL_PEER, OperationState, Peer, Role

if TYPE_CHECKING:
    from ostler.store.retention_clock import RetentionClock

PENDING_STATES = (OperationState.QUEUED, OperationState.RUNNING, OperationState.WAITING)
FINAL_STATES = (OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED)
MAX_LISTED_OPERATIONS = 10_000
"""The most operations of one answer."""
_TRIM_BATCH_SIZE = 1000
"""The most rows that one write removes, so that others do not wait long for it."""
_PENDING = "state IN ('queued', 'running', 'waiting')"
_ENDED = "state IN ('succeeded', 'failed', 'cancelled')"


class Requester(msgspec.Struct, frozen=True):
    """Who submitted an operation.

    Attributes:
        peer: Who made the request.
        role: The role that it had.
        origin: Who is behind it: the peer, or whose request a manager served when it submitted this.
        host: The host in whose name it may report something; see `Context`.
    """

    peer: Peer
    role: Role
    origin: Peer
    host: str = ""

    @property
    def account(self) -> str:
        """The account behind the request as text: its key, its uid, or a name."""
        return str(self.origin.account)

    def restored(self) -> Requester:
        """Return this with the one object that stands for the daemon itself, where it is meant."""
        peer, origin = (LOCAL_PEER if each == LOCAL_PEER else each for each in (self.peer, self.origin))
        return Requester(peer, self.role, origin, self.host)


class NewOperation(NamedTuple):
    """An operation that is to be stored: its request, who made it, and the seconds in which it must end."""

    id: str
    topic: str
    method: str
    arguments: bytes
    flags: int
    requester: Requester
    trace: str
    time_limit: float | None


class OperationRecord(msgspec.Struct, frozen=True):
    """One row, in the order of the columns; see `OperationStatus` for what the fields mean."""

    number: int
    id: str
    host: str
    topic: str
    method: str
    arguments: bytes
    flags: int
    account: str
    requester: bytes
    trace: str
    state: OperationState
    why: str
    since: float
    submitted_at: float
    submitted_boot_id: str
    submitted_boot: float
    time_limit: float | None
    attempts: int
    interruptions: int
    next_attempt_at: float
    cancelled_by: str
    owner: str
    lease_boot_id: str
    lease_boot: float
    lease_wall: float
    done: float
    total: float
    text: str
    result: bytes | None
    error: bytes | None


class PendingOperation(NamedTuple):
    """What a start has to know of an operation that has not ended."""

    id: str
    method: str
    account: str
    state: str
    next_attempt_at: float
    owner: str


class OperationOutcome(NamedTuple):
    """What an operation, or an attempt, came to."""

    state: OperationState
    why: str = ""
    result: bytes | None = None
    error: bytes | None = None
    next_attempt_at: float = 0.0


class Insertion(NamedTuple):
    """The statement that stores an operation, and the values of all columns that it stores, after the number."""

    statement: Statement
    values: tuple[Any, ...]

    def record(self, written: Written) -> OperationRecord:
        """Return the stored operation; for a statement that has changed a row."""
        return OperationRecord(written.row_id, *self.values)


_COLUMNS = ", ".join(OperationRecord.__struct_fields__)
_LIST_COLUMNS = _COLUMNS.replace("arguments", "x''").replace("result", "NULL")
"""Those of a list, which shows no values: arguments and results may have megabytes."""
_NO_PROGRESS = (0.0, 0.0, "", None, None)
"""The columns that follow those of the claim: `done` and so on."""


def _insert_sql(last_column: str) -> str:
    columns = OperationRecord.__struct_fields__[1 : OperationRecord.__struct_fields__.index(last_column) + 1]
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO operations ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING"


_INSERT_QUEUED = _insert_sql("time_limit")
_INSERT_CLAIMED = _insert_sql("lease_wall")
_decode_requester = msgspec.msgpack.Decoder(Requester).decode
_encode = msgspec.msgpack.Encoder().encode


class OperationRecords:
    """The operations of one host. The methods block: on the loop hand them to `store.awrite` or `store.aread`.

    Args:
        clock: The source of time.
        host: This host's name.
        owner: The id of this run of the daemon, which claims operations.
        lease_time: Seconds for which a claim is valid without being renewed.
    """

    def __init__(self, clock: Clock, host: str, owner: str, lease_time: float = 60.0) -> None:
        self._clock = clock
        self._host = host
        self.owner = owner
        self._lease_time = lease_time

    # ---------------------------------------------------------------- writing; inside `store.write`

    def insertion(self, new: NewOperation, *, begin: bool = False) -> Insertion:
        """Return what stores an operation, unless there is one of its id. Any thread, also outside of a write.

        Args:
            new: The operation.
            begin: Whether its first attempt begins with that, as `claim` does.
        """
        now, requester = self._clock.wall(), new.requester
        values = (
            new.id, self._host, new.topic, new.method, new.arguments, new.flags, requester.account,
            _encode(requester), new.trace, OperationState.RUNNING if begin else OperationState.QUEUED, "", now, now,
            self._clock.boot_id(), self._clock.boot(), new.time_limit,
        )  # fmt: skip
        claim = (1, 0, 0.0, "", self.owner, *self._lease()) if begin else (0, 0, 0.0, "", "", "", 0.0, 0.0)
        statement = Statement(_INSERT_CLAIMED, values + claim) if begin else Statement(_INSERT_QUEUED, values)
        return Insertion(statement, values + claim + _NO_PROGRESS)

    def insert(self, new: NewOperation, *, begin: bool = False) -> tuple[OperationRecord, bool]:
        """Store an operation, unless there is one of this id; return the stored one, and whether it is new."""
        insertion = self.insertion(new, begin=begin)
        written = insertion.statement()
        if written.changed:
            return insertion.record(written), True
        found = self.find(new.id)
        assert found is not None  # noqa: S101 - it conflicted a moment ago, in this transaction
        return found, False

    def claim(self, operation_id: str) -> OperationRecord | None:
        """Begin an attempt of an operation that is queued or waiting; None when it is neither any more."""
        now = self._clock.wall()
        return _optional_record(
            _connection().execute(
                "UPDATE operations SET state = 'running', why = '', since = ?, attempts = attempts + 1,"
                " next_attempt_at = 0, owner = ?, lease_boot_id = ?, lease_boot = ?, lease_wall = ?"
                f" WHERE id = ? AND state IN ('queued', 'waiting') RETURNING {_COLUMNS}",
                (now, self.owner, *self._lease(), operation_id),
            )
        )

    def take_over(self, operation_id: str, owner: str) -> OperationRecord | None:
        """Claim an operation that another run of the daemon has left running.

        Returns:
            It, still in the state `running` and owned by this run; None when it has another owner meanwhile.
        """
        return _optional_record(
            _connection().execute(
                "UPDATE operations SET owner = ?, interruptions = interruptions + 1, lease_boot_id = ?, lease_boot = ?,"
                " lease_wall = ? WHERE id = ? AND state = 'running' AND owner = ?"
                f" RETURNING {_COLUMNS}",
                (self.owner, *self._lease(), operation_id, owner),
            )
        )

    def end_attempt(
        self,
        operation_id: str,
        outcome: OperationOutcome,
        *,
        drop_steps: bool = False,
        progress: tuple[float, float, str] | None = None,
    ) -> OperationRecord | None:
        """Record what an attempt of this run came to; None when it does not own the operation any more.

        Args:
            operation_id: The operation.
            outcome: Its new state.
            drop_steps: Whether the next attempt is to begin from the start.
            progress: What is done, of how much, and a text; None for what was stored last.
        """
        database = _connection()
        if progress is not None and any(progress):
            self._save_progress([(operation_id, *progress)])
        record = _optional_record(
            database.execute(
                "UPDATE operations SET state = ?, why = ?, since = ?, result = ?, error = ?, next_attempt_at = ?,"
                " owner = '' WHERE id = ? AND state = 'running' AND owner = ?"
                f" RETURNING {_COLUMNS}",
                (
                    str(outcome.state), outcome.why, self._clock.wall(), outcome.result, outcome.error,
                    outcome.next_attempt_at, operation_id, self.owner,
                ),
            )
        )  # fmt: skip
        if record is not None and drop_steps:
            database.execute("DELETE FROM operation_steps WHERE operation = ?", (record.number,))
        return record

    def end_unstarted(self, operation_id: str, outcome: OperationOutcome) -> OperationRecord | None:
        """End an operation that is queued or waiting; None when it is neither any more."""
        return _optional_record(
            _connection().execute(
                "UPDATE operations SET state = ?, why = ?, since = ?, error = ?, next_attempt_at = 0"
                f" WHERE id = ? AND state IN ('queued', 'waiting') RETURNING {_COLUMNS}",
                (str(outcome.state), outcome.why, self._clock.wall(), outcome.error, operation_id),
            )
        )

    def request_cancel(self, operation_id: str, who: str) -> OperationRecord | None:
        """Record who cancels an operation that is running; None when it is not running."""
        return _optional_record(
            _connection().execute(
                "UPDATE operations SET cancelled_by = ?, why = ? WHERE id = ? AND state = 'running'"
                f" RETURNING {_COLUMNS}",
                (who, f"asked to stop by {who}", operation_id),
            )
        )

    def requeue(self, operation_id: str, why: str) -> OperationRecord | None:
        """Queue an operation again that has failed or was cancelled, with its steps; None when it has not."""
        now = self._clock.wall()
        return _optional_record(
            _connection().execute(
                "UPDATE operations SET state = 'queued', why = ?, since = ?, result = NULL, error = NULL,"
                " cancelled_by = '', attempts = 0, interruptions = 0, next_attempt_at = 0, submitted_boot_id = ?,"
                " submitted_boot = ?, submitted_at = ? WHERE id = ? AND state IN ('failed', 'cancelled')"
                f" RETURNING {_COLUMNS}",
                (why, now, self._clock.boot_id(), self._clock.boot(), now, operation_id),
            )
        )

    def save_step(self, record: OperationRecord, position: int, name: str, result: bytes) -> bool:
        """Record the result of a step; return False when this run does not own the operation any more."""
        database = _connection()
        owned = database.execute(
            "SELECT 1 FROM operations WHERE number = ? AND state = 'running' AND owner = ?",
            (record.number, self.owner),
        ).fetchone()
        if owned is None:
            return False
        database.execute(
            "INSERT OR REPLACE INTO operation_steps VALUES (?, ?, ?, ?, ?)",
            (record.number, position, name, result, self._clock.wall()),
        )
        return True

    def renew_leases(self, progress: Iterable[tuple[str, float, float, str]]) -> None:
        """Renew the lease of all operations of this run, and record how far some of them are.

        Args:
            progress: For each: the operation's id, what is done, of how much, and a text.
        """
        database = _connection()
        database.execute(
            "UPDATE operations SET lease_boot_id = ?, lease_boot = ?, lease_wall = ?"
            " WHERE state = 'running' AND owner = ?",
            (*self._lease(), self.owner),
        )
        self._save_progress(progress)

    def _save_progress(self, progress: Iterable[tuple[str, float, float, str]]) -> None:
        _connection().executemany(
            "UPDATE operations SET done = ?, total = ?, text = ? WHERE id = ? AND state = 'running' AND owner = ?",
            [(done, total, text, operation_id, self.owner) for operation_id, done, total, text in progress],
        )

    def trim(self, count: int, before: float, ages: RetentionClock) -> int:
        """Remove ended operations that ended before a moment, and of the others all but the newest `count`.

        Operations that have not ended are never removed. At most 1,000 go at once.

        Args:
            count: How many ended operations are kept.
            before: The wall time before which an ended operation has expired.
            ages: Limits how many may be removed because of their age at once, as the clock may be wrong.

        Returns:
            How many were removed.
        """
        total, due = self._count_ended(before)
        expired = ages.removal_limit("operations", due, total, before)
        return self._remove_oldest(max(expired, total - count))

    def prune(self, keep: int, before: float) -> int:
        """Remove operations that ended before a moment, except the newest `keep`; as `trim`, for an operator."""
        total, due = self._count_ended(before)
        return self._remove_oldest(min(due, total - keep))

    def _count_ended(self, before: float) -> tuple[int, int]:
        row = _connection().execute(
            f"SELECT count(*), count(CASE WHEN since < ? THEN 1 END) FROM operations WHERE {_ENDED}", (before,)
        )
        total, due = row.fetchone()
        return int(total), int(due)

    def _remove_oldest(self, most: int) -> int:
        if most <= 0:
            return 0
        return (
            _connection()
            .execute(
                "DELETE FROM operations WHERE number IN"
                f" (SELECT number FROM operations WHERE {_ENDED} ORDER BY since LIMIT ?)",
                (min(most, _TRIM_BATCH_SIZE),),
            )
            .rowcount
        )

    def _lease(self) -> tuple[str, float, float]:
        return self._clock.boot_id(), self._clock.boot() + self._lease_time, self._clock.wall() + self._lease_time

    # ---------------------------------------------------------------- reading; inside `store.read` or `store.write`

    def find(self, operation_id: str) -> OperationRecord | None:
        """Return an operation."""
        return _optional_record(
            _connection().execute(
                f"SELECT {_COLUMNS} FROM operations WHERE id = ?",
                (operation_id,),
            )
        )

    def find_by_prefix(self, prefix: str) -> list[str]:
        """Return the ids that begin with a text; two at most, as more are as ambiguous as two."""
        rows = _connection().execute(
            "SELECT id FROM operations WHERE substr(id, 1, length(?)) = ? ORDER BY number DESC LIMIT 2",
            (prefix, prefix),
        )
        return [row[0] for row in rows]

    def select(
        self, *, topic: str = "", states: Sequence[OperationState] = (), account: str = "", limit: int = 100
    ) -> list[OperationRecord]:
        """Return the newest operations that fit, oldest first; without their arguments and results.

        Args:
            topic: Only those of this topic.
            states: Only those in one of these states; all when empty.
            account: Only those that this account submitted.
            limit: The most operations.
        """
        wanted = [("topic = ?", topic), ("account = ?", account)]
        where = [text for text, value in wanted if value]
        values: list[Any] = [value for _, value in wanted if value]
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += [str(state) for state in states]
        query = f"SELECT {_LIST_COLUMNS} FROM operations"
        if where:
            query += f" WHERE {' AND '.join(where)}"
        values.append(max(0, min(limit, MAX_LISTED_OPERATIONS)))
        rows = _connection().execute(f"{query} ORDER BY number DESC LIMIT ?", values).fetchall()
        return [_record(row) for row in reversed(rows)]

    def pending(self, topic: str) -> list[PendingOperation]:
        """Return the operations of a topic here that have not ended, in the order of their submission."""
        rows = _connection().execute(
            "SELECT id, method, account, state, next_attempt_at, owner FROM operations INDEXED BY operations_pending"
            f" WHERE host = ? AND topic = ? AND {_PENDING} ORDER BY number",
            (self._host, topic),
        )
        return [PendingOperation(*row) for row in rows]

    def steps(self, record: OperationRecord) -> dict[str, bytes]:
        """Return the recorded steps of an operation, in their order."""
        rows = _connection().execute(
            "SELECT name, result FROM operation_steps WHERE operation = ? ORDER BY position", (record.number,)
        )
        return dict(rows.fetchall())

    def count_pending(self) -> int:
        """Return how many operations have not ended."""
        (count,) = _connection().execute(f"SELECT count(*) FROM operations WHERE {_PENDING}").fetchone()
        return int(count)

    # ---------------------------------------------------------------- what follows from a record

    def is_lease_valid(self, record: OperationRecord) -> bool:
        """Return whether the owner of a running operation may still be at work, by the age of its last report.

        By the boot clock where that is the same; of an earlier boot of this host nothing is left.
        """
        if record.lease_boot_id == self._clock.boot_id():
            return self._clock.boot() < record.lease_boot
        return record.host != self._host and self._clock.wall() < record.lease_wall

    def time_left(self, record: OperationRecord) -> float | None:
        """Return the seconds in which an operation must end; None for no limit.

        They go on over restarts. The wall clock counts only when the machine was booted meanwhile.
        """
        if record.time_limit is None:
            return None
        if record.submitted_boot_id == self._clock.boot_id():
            return record.time_limit - (self._clock.boot() - record.submitted_boot)
        return record.time_limit - max(0.0, self._clock.wall() - record.submitted_at)


def requester_of(record: OperationRecord) -> Requester:
    """Return who submitted an operation.

    Raises:
        StoreError: The record is damaged.
    """
    try:
        return _decode_requester(record.requester).restored()
    except msgspec.MsgspecError as error:
        raise StoreError(
            f"the record of operation {record.id} is damaged: {error}",
            hint="see `ostler db check`, and submit the request again",
        ) from error


def _connection() -> sqlite3.Connection:
    here = current_session()
    if here is None:
        raise StoreError("the operations were used outside of store.read and store.write")
    connection: sqlite3.Connection = here.database.connection()
    return connection


def _record(row: Sequence[Any]) -> OperationRecord:
    fields = list(row)
    fields[_STATE] = OperationState(fields[_STATE])
    return OperationRecord(*fields)


_STATE = OperationRecord.__struct_fields__.index("state")


def _optional_record(cursor: sqlite3.Cursor) -> OperationRecord | None:
    row = cursor.fetchone()
    return None if row is None else _record(row)
