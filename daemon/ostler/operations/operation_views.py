"""What callers see of operations: those who ask, who watch, and who wait for an end."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any

from ostler.errors import Conflict, NotFound, OstlerError
from ostler.messaging.rpc.call import Call
from ostler.messaging.wire.envelope import PROGRESS
from ostler.messaging.wire.request_context import Progress
from ostler.operations.operation_call import OperationCall
from ostler.operations.operation_status import operation_event, status_of
from ostler.store import OperationOutcome, OperationRecord, OperationRecords, Store
from ostler.types import OperationState, OperationStatus

Publish = Callable[[str, Any], None]
_PROGRESS_INTERVAL = 0.2
"""Seconds between two reports of progress to those who watch."""

_NO_PROGRESS = Progress(0, 0, "")


class OperationViews:
    """Tells of operations. On the loop.

    Args:
        store: Where they are stored.
        records: The table.
        attempts: What runs, by the id of the operation.
        publish: Publishes the event of each change of a state: its name and its payload.
        on_interest: Called when somebody begins to wait for an operation, or to watch it.
    """

    def __init__(
        self,
        store: Store,
        records: OperationRecords,
        attempts: Mapping[str, OperationCall],
        publish: Publish,
        on_interest: Callable[[], object],
    ) -> None:
        self._on_interest = on_interest
        self._store = store
        self._records = records
        self._attempts = attempts
        self._publish = publish
        self.ended_counts: Counter[tuple[str, str]] = Counter()
        """How many have ended, by topic and state."""
        self._waiters: dict[str, list[asyncio.Future[OperationOutcome]]] = defaultdict(list)
        self._watchers: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._callers: dict[str, list[Call]] = defaultdict(list)

    async def find(self, operation_id: str) -> OperationRecord:
        """Return an operation by its id.

        Raises:
            NotFound: There is none.
        """
        record = await self._store.aread(lambda: self._records.find(operation_id))
        if record is None:
            raise _not_found(operation_id)
        return record

    async def find_id(self, beginning: str) -> str:
        """Return the id of the operation that has this id, or whose id begins so: what an operator has typed.

        Programs use whole ids: the id of an operation that was not accepted may be the beginning of another one.

        Raises:
            NotFound: There is none.
            Conflict: There are several that begin so, and none has this id.
        """

        def read() -> list[str]:
            if self._records.find(beginning) is not None:
                return [beginning]
            return self._records.find_by_prefix(beginning) if beginning else []

        ids = await self._store.aread(read)
        if len(ids) > 1:
            raise Conflict(f"several operations begin with {beginning}", hint="give more of the id")
        if not ids:
            raise _not_found(beginning)
        return ids[0]

    async def status(self, operation_id: str, *, show_values: Callable[[OperationRecord], bool]) -> OperationStatus:
        """Return the status of an operation.

        Args:
            operation_id: The operation; see `find`.
            show_values: Whether the arguments and the result of this one are shown.
        """
        record = await self.find(operation_id)
        steps = await self._store.aread(lambda: list(self._records.steps(record)))
        return status_of(record, steps, self._progress(record), show_values=show_values(record))

    async def select(
        self, *, topic: str, states: Sequence[OperationState], account: str, limit: int
    ) -> list[OperationStatus]:
        """Return the newest operations that fit, oldest first; see `OperationRecords.select`."""

        def read() -> list[OperationStatus]:
            rows = self._records.select(topic=topic, states=states, account=account, limit=limit)
            return [status_of(row, (), self._progress(row), show_values=False) for row in rows]

        return await self._store.aread(read)  # thousands of them would hold up the loop

    async def watch(
        self, operation_id: str, *, show_values: Callable[[OperationRecord], bool]
    ) -> AsyncGenerator[OperationStatus, None]:
        """Yield the status of an operation: now, and after each change, until it has ended."""
        record = await self.find(operation_id)
        changed = asyncio.Event()
        self._watchers[record.id].add(changed)
        self._on_interest()
        try:
            last: OperationStatus | None = None
            while True:
                changed.clear()
                status = await self.status(record.id, show_values=show_values)
                if status != last:
                    yield status
                if status.state.is_final:
                    return
                last = status
                await changed.wait()
                await asyncio.sleep(_PROGRESS_INTERVAL if record.id in self._attempts else 0)
        finally:
            self._watchers[record.id].discard(changed)
            if not self._watchers[record.id]:
                del self._watchers[record.id]

    async def wait(self, call: Call, record: OperationRecord) -> OperationOutcome:
        """Wait for the end of an operation, and return what it came to; progress is sent to the call meanwhile."""
        self._callers[record.id].append(call)
        try:
            return await self._wait_for_end(call, record)
        finally:
            self._callers[record.id].remove(call)
            if not self._callers[record.id]:
                del self._callers[record.id]

    async def _wait_for_end(self, call: Call, record: OperationRecord) -> OperationOutcome:
        if record.state.is_final:
            return _outcome_of(record)
        future: asyncio.Future[OperationOutcome] = asyncio.get_running_loop().create_future()
        self._waiters[record.id].append(future)
        self._on_interest()
        try:
            if record.id not in self._attempts:  # it may have ended between the read and now
                found = await self.find(record.id)
                if found.state.is_final:
                    _send_progress(call, Progress(found.done, found.total, found.text))
                    return _outcome_of(found)
            # A short one may have reported all that it has to report before this caller was there to be told.
            _send_progress(call, self._progress(record))
            return await future
        finally:
            self._waiters[record.id].remove(future)
            if not self._waiters[record.id]:
                del self._waiters[record.id]

    def announce(self, record: OperationRecord) -> None:
        """Tell everybody that an operation has another state, which is on disk."""
        for changed in self._watchers.get(record.id, ()):
            changed.set()
        self.answer(record.id, _outcome_of(record))
        if record.state.is_final:
            self.ended_counts[record.topic, record.state] += 1
        self._publish(f"operation.{record.state}", operation_event(record))

    def answer(self, operation_id: str, outcome: OperationOutcome) -> None:
        """Tell those who wait for the end of an operation what it came to, if it has ended."""
        if not outcome.state.is_final:
            return
        for future in self._waiters.get(operation_id, ()):
            if not future.done():
                future.set_result(outcome)

    def is_awaited(self, operation_id: str) -> bool:
        """Return whether somebody waits for the end of an operation, or watches it."""
        return operation_id in self._waiters or operation_id in self._watchers

    def waited_for(self, topic: str) -> list[str]:
        """Return the operations of a topic for whose ends calls wait."""
        return [key for key, calls in self._callers.items() if calls[0].request.topic == topic]

    def refuse(self, operation_id: str, error: OstlerError) -> None:
        """Let those who wait for the end of an operation wait no longer."""
        for future in self._waiters.get(operation_id, ()):
            if not future.done():
                future.set_exception(error)

    def report_progress(self, calls: Iterable[OperationCall]) -> None:
        """Tell those who wait for or watch some operations how far these are."""
        for call in calls:
            for caller in self._callers.get(call.record.id, ()):
                _send_progress(caller, call.progress)
            for changed in self._watchers.get(call.record.id, ()):
                changed.set()

    def _progress(self, record: OperationRecord) -> Progress | None:
        call = self._attempts.get(record.id)
        return None if call is None else call.progress


def _send_progress(caller: Call, progress: Progress | None) -> None:
    """Tell a caller who wants to know how far an operation is, if it has said so."""
    if progress is not None and progress != _NO_PROGRESS and caller.request.flags & PROGRESS:
        caller.send_progress(progress)


def _outcome_of(record: OperationRecord) -> OperationOutcome:
    return OperationOutcome(record.state, record.why, record.result, record.error)


def _not_found(operation_id: str) -> NotFound:
    return NotFound(f"operation {operation_id} not found", hint="see `ostler operation list`")
