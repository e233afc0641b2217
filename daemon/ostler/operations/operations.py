"""Accepts operations, runs them, ends them, and tells whoever waits or watches."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any, TypeVar

import msgspec

from ostler.aio import TaskOwner
from ostler.errors import (
    Conflict,
    Draining,
    FeatureNotSupported,
    OstlerError,
    StoreError,
    StoreUnavailable,
)
from ostler.messaging.interface.exposure import Durable
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.dispatcher import Dispatcher
from ostler.messaging.rpc.in_flight import DeadlineTimer
from ostler.messaging.wire.envelope import CAST, FANOUT, SUBMIT
from ostler.operations import outcomes
from ostler.operations.deferral import Deferral
from ostler.operations.new_operation import check_same, new_operation
from ostler.operations.operation_call import STORE_RETRY_DELAY, AttemptState, OperationCall
from ostler.operations.operation_queue import DEFAULT_LIMITS, OperationLimits, OperationQueue, count_operations
from ostler.operations.operation_status import status_of
from ostler.operations.operation_views import OperationViews, Publish
from ostler.operations.retention import OperationRetention
from ostler.operations.unstored_call import may_run_unstored, run_unstored
from ostler.store import (
    NewOperation,
    OperationRecord,
    OperationRecords,
    PendingOperation,
    Store,
    requester_of,
)
from ostler.time_text import format_seconds
from ostler.types import OperationState

_log = logging.getLogger(__name__)
T = TypeVar("T")
_LEASE_INTERVAL = 15.0
"""Seconds between two renewals of the leases; progress is stored with them."""
_RECOVERY_BATCH = 200
"""Operations of an earlier run that are taken over in one write, so that others do not wait long for it."""
_LAST_WRITE_TIMEOUT = 2.0
"""Seconds that a stop waits for the ends of the last attempts to be stored: a locked database must not delay it."""
CleanUp = Callable[[str], Callable[..., Any]]
"""Returns a method of a manager by its name."""


class Operations:
    """The operations of one daemon. On the loop.

    A request becomes an operation in one commit, and its end is another one: what was accepted is not lost, and what
    has ended is not run again. The state in the table is changed by compare-and-set alone.

    Args:
        store: Where they are stored.
        dispatcher: Runs their methods.
        publish: Publishes the event of each change of a state: its name and its payload.
        limits: What is kept; another one may be put in its place.
        records: The table; by default that of the dispatcher's host, for a run of the daemon of its own.
        on_end: Called with a reason when a permanent task has ended.
        hold_restored: Whether what earlier runs of the daemon have left is not begun before `release_restored`.
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        publish: Publish,
        limits: OperationLimits = DEFAULT_LIMITS,
        *,
        records: OperationRecords | None = None,
        on_end: Callable[[str], None] | None = None,
        hold_restored: bool = False,
    ) -> None:
        self.limits = limits
        self.records = records or OperationRecords(dispatcher.clock, dispatcher.host, os.urandom(8).hex())
        self._store = store
        self._dispatcher = dispatcher
        self._clock = dispatcher.clock
        self._loop_queue = dispatcher.inbox
        self._tasks = TaskOwner("operations", on_end=on_end)
        self._queues: dict[str, dict[bool, OperationQueue]] = {}
        """Of each topic two: the second one is of its short methods, which must not wait behind long work."""
        self._clean_ups: dict[str, CleanUp] = {}
        self._timers: dict[str, DeadlineTimer] = {}
        self._numbers = itertools.count(1)
        self._fresh_progress: dict[str, OperationCall] = {}
        self._is_progress_posted = self._is_closed = False
        self._ending: set[asyncio.Task[Any]] = set()
        self._storing: set[asyncio.Future[OperationRecord]] = set()
        self._attempts: dict[str, OperationCall] = {}
        """What runs, of all topics; a thread that hangs may outlive the queue of its topic."""
        self._deferral = Deferral()
        """Holds back the ends that nobody waits for."""
        self.views = OperationViews(store, self.records, self._attempts, publish, self._deferral.release)
        """What callers see of them."""
        self.retention = OperationRetention(store, self.records, self._clock, lambda: self.limits)
        """Removes those that ended long ago."""
        self._restored_gate = asyncio.Event()
        if not hold_restored:
            self._restored_gate.set()
        self._restored: set[str] = set()
        """Those that an earlier run has left, until they end: they wait for what is not ready yet."""
        self._clean_ups_due: dict[str, tuple[OperationRecord, dict[str, bytes], int]] = {}
        """Operations to be cleaned up, with their steps and how often that was tried; they are in the queue as well."""

    def start(self) -> None:
        """Begin to renew leases and to remove what has ended long ago."""
        self._tasks.supervise(self._renew_leases, name="renew the leases of operations")
        self._tasks.supervise(self.retention.run, name="prune operations")

    async def close(self) -> None:
        """End everything; what runs is continued by the next start. After the services have stopped."""
        for timer in self._timers.values():
            timer.cancel()
        self._deferral.release()
        if self._ending:  # what they came to is stored, if the database takes it
            await asyncio.wait(self._ending, timeout=_LAST_WRITE_TIMEOUT)
        await self._hand_over_stuck()
        self._is_closed = True
        await self._tasks.cancel()

    async def _hand_over_stuck(self) -> None:
        """Leave what has not ended by now to the next start, which is not to take it for the cause of a crash."""
        left = [call for call in self._attempts.values() if call.is_handed_over and not call.cancelled_by]
        decisions = [(call.record.id, outcomes.decide_after_stop(call.record, call.policy)) for call in left]

        def hand_over() -> None:
            for operation_id, decision in decisions:
                if decision is not None:
                    self.records.end_attempt(operation_id, decision.outcome, drop_steps=decision.drop_steps)

        if not decisions:
            return
        try:
            await asyncio.wait_for(self._store.awrite(hand_over, label="hand over operations"), _LAST_WRITE_TIMEOUT)
        except (StoreError, TimeoutError) as error:
            _log.debug("running operations were not handed over: %s", error)

    def release_restored(self) -> None:
        """Begin what earlier runs of the daemon have left: the services that they may need have been started."""
        self._restored_gate.set()

    @property
    def running(self) -> list[str]:
        """The ids of the operations that run, of all topics."""
        return list(self._attempts)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return how many operations of each topic wait, and how many run."""
        return {topic: count_operations(queues.values()) for topic, queues in self._queues.items()}

    def problems(self) -> list[str]:
        """Return the problems of its permanent tasks, a line each."""
        return self._tasks.problems()

    def apply(self, limits: OperationLimits) -> None:
        """Put other limits in force, as a reload does; what waits already goes on waiting."""
        self.limits = limits
        for queues in self._queues.values():
            for queue in queues.values():
                queue.max_queued = limits.max_queued

    # ---------------------------------------------------------------- topics

    def add_topic(self, topic: str, max_running: int, clean_up: CleanUp) -> None:
        """Accept operations of a topic from now on; none is begun before `start_topic`.

        Args:
            topic: The topic.
            max_running: How many may run at once, and as many of those that are short.
            clean_up: Returns the manager's method of a name.
        """
        self._queues[topic] = {
            is_short: OperationQueue(topic, max_running, self.limits.max_queued) for is_short in (False, True)
        }
        self._clean_ups[topic] = clean_up
        self._timers[topic] = DeadlineTimer(self._clock, partial(self._start_due, topic))

    def start_topic(self, topic: str, until_ready: Callable[[], Awaitable[None]] | None = None) -> None:
        """Begin the operations of a topic: new ones, and then those that an earlier run of the daemon has left.

        Args:
            topic: The topic.
            until_ready: Waits for what the latter need, within its own time limit.
        """
        for queue in self._queues[topic].values():
            queue.is_open, queue.is_draining, queue.is_stopping = True, False, False
        self._tasks.spawn(self._load(topic, until_ready), name=f"load the operations of {topic}")

    def drain_topic(self, topic: str) -> None:
        """Begin no more operations of a topic, and ask those that are to be handed over to stop."""
        for queue in self._queues.get(topic, {}).values():
            queue.is_open, queue.is_draining = False, True
            for call in list(queue.running.values()):
                if call.policy.on_drain == "hand over":
                    call.hand_over()
        for operation_id in self.views.waited_for(topic):
            self._refuse_unless_running(topic, operation_id)

    def resume_topic(self, topic: str) -> None:
        """Begin operations of a topic again, after a drain."""
        for queue in self._queues.get(topic, {}).values():
            queue.is_open, queue.is_draining = True, False
            self._fill(queue)

    def freeze_topic(self, topic: str, frozen: bool) -> None:
        """Begin no more operations of a topic, though it is started and resumed; or begin them again."""
        for queue in self._queues.get(topic, {}).values():
            queue.is_frozen = frozen
            self._fill(queue)

    def stop_topic(self, topic: str) -> None:
        """Ask the running operations of a topic to stop, and have the next start continue them."""
        for queue in self._queues.get(topic, {}).values():
            queue.is_open, queue.is_stopping = False, True
            for call in list(queue.running.values()):
                call.hand_over()

    def remove_topic(self, topic: str) -> None:
        """Accept no operations of a topic any more; the ends of attempts that still run are stored all the same."""
        if self._queues.pop(topic, None) is not None:
            del self._clean_ups[topic]
            self._timers.pop(topic).cancel()

    def set_max_running(self, topic: str, max_running: int) -> None:
        """Change how many operations of a topic may run at once."""
        for queue in self._queues.get(topic, {}).values():
            queue.max_running = max_running
            self._fill(queue)

    def _queue_of(self, topic: str, method: str) -> OperationQueue | None:
        """Return the queue of a method; None when its service is not there."""
        queues = self._queues.get(topic)
        if queues is None:
            return None
        found = self._dispatcher.registry.find_method(topic, method)
        return queues[found is not None and found.exposure.short]

    # ---------------------------------------------------------------- accepting

    async def accept(self, call: Call) -> object:
        """See `DurableCalls.accept`.

        Raises:
            Busy: Too many operations wait.
            Conflict: The id belongs to another operation.
            StoreUnavailable: The database cannot be written now; nothing was accepted.
            OstlerError: Of a plain call, what the operation ended with.
        """
        queue = self._queue_of(call.request.topic, call.request.method)
        if queue is None:
            raise FeatureNotSupported(
                f"{call.full_name} cannot be submitted: {call.request.topic} has no operations", method=call.full_name
            )
        try:
            record = await self._store_safely(call, queue)
        except StoreUnavailable:
            if not may_run_unstored(call):
                raise
            return await run_unstored(self._dispatcher, self, next(self._numbers), call, new_operation(call))
        if call.request.flags & SUBMIT:
            return status_of(record, show_values=True)
        if call.request.flags & (CAST | FANOUT):
            self._dispatcher.send_accepted(call)
            return None
        call.is_audited = False  # the attempt is, with its end
        return await self._wait(call, record)

    async def _store_safely(self, call: Call, queue: OperationQueue) -> OperationRecord:
        """Store a request in a task of its own, so that none is stored and not run when its caller leaves meanwhile."""
        new = new_operation(call)
        storing = asyncio.ensure_future(self._store_new(new, queue))
        self._storing.add(storing)
        storing.add_done_callback(self._on_stored)
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:
            is_plain = not call.request.flags & (SUBMIT | CAST | FANOUT)
            if is_plain and not call.is_caller_gone and not queue.is_stopping:
                self._tasks.spawn(self._cancel_stored(storing, call.peer.name), name=f"cancel {new.id}")
            raise

    def _on_stored(self, storing: asyncio.Future[OperationRecord]) -> None:
        self._storing.discard(storing)
        if not storing.cancelled():
            storing.exception()  # retrieved: whoever waited for it may have left

    async def _cancel_stored(self, storing: asyncio.Future[OperationRecord], who: str) -> None:
        """Cancel an operation whose caller has cancelled the call before it was stored."""
        await asyncio.wait([storing])
        if not storing.cancelled() and storing.exception() is None:
            await self._cancel_quietly(storing.result().id, who)

    async def _store_new(self, new: NewOperation, queue: OperationQueue) -> OperationRecord:
        account = new.requester.account
        may_begin = queue.is_idle
        if not may_begin and not queue.has_room(account):
            raise queue.full_error()
        if may_begin:
            queue.reserve(new.id)
        stored = False
        try:
            if self._deferral.release():
                await asyncio.sleep(0)  # they are queued, and are committed together with this one
            record, stored = await self._insert(new, may_begin)
        finally:
            if may_begin and not stored:
                queue.release(new.id)
        if not stored:
            check_same(record, new)
            return record
        self.views.announce(record)
        if may_begin:
            self._run(queue, record, {})
        else:
            queue = self._queue_of(record.topic, record.method) or queue  # its service may have been started again
            queue.put(record.id, account)
            self._fill(queue)
        return record

    async def _insert(self, new: NewOperation, may_begin: bool) -> tuple[OperationRecord, bool]:
        insertion = self.records.insertion(new, begin=may_begin)
        written = await self._store.awrite(insertion.statement, label="submit operation")
        if written.changed:
            return insertion.record(written), True
        # There is one of this id, or there was a moment ago.
        insert = partial(self.records.insert, new, begin=may_begin)
        return await self._store.awrite(insert, label="submit operation")

    def _refuse_unless_running(self, topic: str, operation_id: str) -> None:
        """Let no call wait for an operation that does not begin while its service drains: the drain waits for it."""
        if operation_id not in self._attempts:
            self.views.refuse(operation_id, _draining_error(topic, operation_id))

    async def _wait(self, call: Call, record: OperationRecord) -> object:
        """Wait for the end of an operation; a caller that cancels its call cancels the operation."""
        waiting_in = self._queue_of(record.topic, record.method)
        is_draining = waiting_in is not None and waiting_in.is_draining
        if is_draining and record.id not in self._attempts and not record.state.is_final:
            # It was stored when the drain had begun.
            raise _draining_error(record.topic, record.id)
        try:
            ended = await self.views.wait(call, record)
        except asyncio.CancelledError:
            # Whoever lost its connection, or is told that the service stops, has not cancelled anything.
            # A deadline is that of the operation as well, which ends by it.
            queue = self._queue_of(record.topic, record.method)
            is_late = call.context.deadline is not None and self._clock.monotonic() >= call.context.deadline
            if not (call.is_caller_gone or is_late or queue is None or queue.is_stopping):
                self._tasks.spawn(self._cancel_quietly(record.id, call.peer.name), name=f"cancel {record.id}")
            raise
        if ended.error is not None:
            raise outcomes.decode_error(ended.error)
        return None if ended.result is None else msgspec.Raw(ended.result)

    # ---------------------------------------------------------------- running

    def _fill(self, queue: OperationQueue) -> None:
        """Begin as many operations as may run."""
        while queue.has_free_slot and queue.has_waiting:
            operation_id, account = queue.pop()
            self._tasks.spawn(self._begin(queue, operation_id, account), name=f"begin operation {operation_id}")

    def _start_due(self, topic: str, now: float) -> float | None:
        queues = self._queues[topic].values()
        due = [at for queue in queues if (at := queue.enqueue_due(now)) is not None]
        for queue in queues:
            self._fill(queue)
        return min(due, default=None)

    async def _begin(self, queue: OperationQueue, operation_id: str, account: Hashable) -> None:
        """Claim an operation and run it; one that ended meanwhile, or is claimed elsewhere, is skipped."""
        if operation_id in self._clean_ups_due:
            record, steps, _ = self._clean_ups_due[operation_id]
            self._run(queue, record, steps, self._clean_up_of(record))
            return

        def claim() -> tuple[OperationRecord, dict[str, bytes]] | None:
            record = self.records.claim(operation_id)
            return None if record is None else (record, self.records.steps(record))

        try:
            claimed = await self._store.awrite(claim, label="begin operation")
        except StoreError as error:
            _log.debug("operation %s was not begun, and will be: %s", operation_id, error)
            queue.release(operation_id)
            self._put_later(queue, operation_id, account, STORE_RETRY_DELAY)
            return
        if claimed is None:
            queue.release(operation_id)
            self._fill(queue)
            return
        self.views.announce(claimed[0])
        try:
            self._run(queue, *claimed)
        except StoreError as error:  # its record is damaged
            queue.release(operation_id)
            failed = partial(self.records.end_attempt, operation_id, outcomes.failed(error))
            ended = await self._write_until_done(failed, "end operation")
            if ended is not None:
                self.views.announce(ended)
            self._fill(queue)

    def _run(
        self,
        queue: OperationQueue,
        record: OperationRecord,
        steps: dict[str, bytes],
        clean_up: Callable[..., Any] | None = None,
    ) -> None:
        time_left, requester = self.records.time_left(record), requester_of(record)
        call = OperationCall(
            self._clock, next(self._numbers), AttemptState(record, requester, steps, self, clean_up),
            None if time_left is None or clean_up is not None else max(0.0, time_left),
            self._policy(record) or outcomes.NOT_DURABLE, partial(self._on_attempt_end, queue), self._on_progress,
        )  # fmt: skip
        queue.start(record.id, call)
        self._attempts[record.id] = call
        if queue.is_stopping:  # since it was claimed
            call.send_error(Draining(f"{record.topic} has stopped", topic=record.topic))
        else:
            self._dispatcher.dispatch(call)

    def _on_attempt_end(self, queue: OperationQueue, call: OperationCall) -> None:
        if self._is_closed:  # it was handed over
            return
        task = self._tasks.spawn(self._end_attempt(queue, call), name=f"end operation {call.record.id}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _clean_up_of(self, record: OperationRecord) -> Callable[..., Any]:
        policy = self._policy(record)
        assert policy is not None  # noqa: S101 - a method without one has nothing to clean up with
        return self._clean_ups[record.topic](policy.clean_up)

    def _cleans_up_later(self, queue: OperationQueue, call: OperationCall) -> bool:
        """Try a clean-up again that failed because its service is not ready; return whether it is to be."""
        if not call.is_clean_up:
            return False
        record, steps, tried = self._clean_ups_due.pop(call.record.id)
        delay = outcomes.clean_up_delay(call, tried + 1)
        if call.error is None or delay is None or queue.is_stopping:
            return False
        self._clean_ups_due[record.id] = record, steps, tried + 1
        queue.end(record.id)
        self._attempts.pop(record.id, None)
        wait = format_seconds(delay, 2)
        _log.warning("undoing operation %s failed and will be retried in %s: %s", record.id, wait, call.error)
        self._put_later(queue, record.id, record.account, delay)
        self._fill(queue)
        return True

    async def _end_attempt(self, queue: OperationQueue, call: OperationCall) -> None:
        if self._cleans_up_later(queue, call):
            return
        decision = outcomes.decide_after_attempt(
            call, is_stopping=queue.is_stopping, is_restored=call.record.id in self._restored, now=self._clock.wall()
        )
        record = None
        if decision is not None:
            end = partial(
                self.records.end_attempt, call.record.id, decision.outcome, drop_steps=decision.drop_steps,
                progress=call.progress,
            )  # fmt: skip
            on_failure = (
                partial(self.views.answer, call.record.id, decision.outcome) if call.policy.runs_unstored else None
            )
            if decision.outcome.state.is_final and not (queue.has_waiting or queue.is_stopping or queue.is_draining):
                await self._defer(call.record.id)
            record = await self._write_until_done(end, "end operation", on_failure)
        queue.end(call.record.id)
        self._attempts.pop(call.record.id, None)
        self._fresh_progress.pop(call.record.id, None)
        if record is not None:
            self.views.announce(record)
            if record.state.is_final:
                self._restored.discard(record.id)
        # Its service may have been started again meanwhile.
        queue = self._queue_of(call.record.topic, call.record.method) or queue
        if record is not None and record.state is OperationState.WAITING:
            self._put_later(queue, record.id, record.account, record.next_attempt_at - self._clock.wall())
        elif record is not None and record.state is OperationState.QUEUED and not queue.is_stopping:
            queue.put(record.id, record.account)
        if queue.is_draining and record is not None:
            self._refuse_unless_running(record.topic, record.id)
        self._fill(queue)

    async def _defer(self, operation_id: str) -> None:
        """Hold back the end of an operation that nobody waits for."""
        if not self.views.is_awaited(operation_id):
            await self._deferral.wait()

    def _put_later(self, queue: OperationQueue, operation_id: str, account: Hashable, delay: float) -> None:
        at = self._clock.monotonic() + max(0.0, delay)
        queue.put_later(operation_id, account, at)
        if queue.topic in self._timers:
            self._timers[queue.topic].schedule(at)

    async def _write_until_done(
        self, change: Callable[[], T], label: str, on_failure: Callable[[], None] | None = None
    ) -> T:
        """Write what must not be lost, as soon as the database takes it: the disk may be full for hours.

        Args:
            change: The write.
            label: What it is, for messages.
            on_failure: Called when it has failed.
        """
        while True:
            try:
                return await self._store.awrite(change, label=label)
            except StoreError as error:
                _log.debug("%s will be retried: %s", label, error)
            if on_failure is not None:
                on_failure()
            await asyncio.sleep(STORE_RETRY_DELAY)

    def _policy(self, record: OperationRecord) -> Durable | None:
        """Return how a method is retried; None when there is no such method."""
        method = self._dispatcher.registry.find_method(record.topic, record.method)
        if method is None:
            return None
        return method.exposure.durable or outcomes.NOT_DURABLE

    @property
    def is_writing(self) -> bool:
        """See `StepStore.is_writing`."""
        return self._store.is_writing

    def save_step(self, record: OperationRecord, position: int, name: str, result: bytes) -> bool:
        """See `StepStore.save_step`."""
        return self._store.write(
            partial(self.records.save_step, record, position, name, result), label="step of an operation"
        )

    async def asave_step(self, record: OperationRecord, position: int, name: str, result: bytes) -> bool:
        """See `StepStore.asave_step`."""
        save = partial(self.records.save_step, record, position, name, result)
        return await self._store.awrite(save, label="step of an operation")

    # ---------------------------------------------------------------- what an earlier run has left

    async def _load(self, topic: str, until_ready: Callable[[], Awaitable[None]] | None) -> None:
        await self._restored_gate.wait()
        if until_ready is not None:
            await until_ready()
        pending = await self._write_until_done(partial(self.records.pending, topic), "load operations")
        left = [row for row in pending if row.state == OperationState.RUNNING and row.id not in self._attempts]
        for first in range(0, len(left), _RECOVERY_BATCH):
            batch = left[first : first + _RECOVERY_BATCH]
            recovered = await self._write_until_done(partial(self._recover, batch), "recover operations")
            for record, steps, must_clean_up in recovered:
                self.views.announce(record)
                queue = self._queue_of(topic, record.method)
                if queue is None:  # its service was stopped meanwhile
                    return
                if must_clean_up:
                    self._clean_ups_due[record.id] = record, steps, 0
                    queue.put(record.id, record.account)
                elif record.state is OperationState.QUEUED:
                    queue.put(record.id, record.account)
        self._enqueue_pending(topic, pending)

    def _enqueue_pending(self, topic: str, pending: list[PendingOperation]) -> None:
        now = self._clock.wall()
        for row in pending:
            queue = self._queue_of(topic, row.method)
            if queue is None:
                return
            self._restored.add(row.id)
            if row.state == OperationState.QUEUED:
                queue.put(row.id, row.account)
            elif row.state == OperationState.WAITING:
                # No longer than an attempt waits at most: the wall clock may have been set back meanwhile.
                method = self._dispatcher.registry.find_method(topic, row.method)
                policy = (method.exposure.durable if method is not None else None) or outcomes.NOT_DURABLE
                self._put_later(queue, row.id, row.account, min(row.next_attempt_at - now, policy.max_backoff))
        for queue in self._queues.get(topic, {}).values():
            self._fill(queue)

    def _recover(self, rows: list[PendingOperation]) -> list[tuple[OperationRecord, dict[str, bytes], bool]]:
        """Take over operations that were running, and decide what becomes of each. Inside a write."""
        recovered = []
        for row in rows:
            record = self.records.take_over(row.id, row.owner)
            if record is None:
                continue
            decision = outcomes.decide_after_restart(record, self._policy(record))
            if decision.must_clean_up:
                recovered.append((record, self.records.steps(record), True))
                continue
            ended = self.records.end_attempt(record.id, decision.outcome, drop_steps=decision.drop_steps)
            if ended is not None:
                recovered.append((ended, {}, False))
        return recovered

    # ---------------------------------------------------------------- what an operator does

    async def cancel(self, operation_id: str, who: str) -> OperationRecord:
        """Cancel an operation: one that has not begun ends at once, one that runs is asked to stop.

        Raises:
            NotFound: There is none.
            Conflict: It has ended.
        """
        record = await self.views.find(operation_id)
        if record.id in self._clean_ups_due:
            raise Conflict(f"operation {record.id} is being undone; that cannot be cancelled", topic=record.topic)

        def change() -> OperationRecord | None:
            outcome = outcomes.cancelled(record.id, who)
            if record.owner not in ("", self.records.owner) and self.records.take_over(record.id, record.owner):
                return self.records.end_attempt(record.id, outcome)  # of a service that is not there any more
            return self.records.end_unstarted(record.id, outcome) or self.records.request_cancel(record.id, who)

        changed = await self._store.awrite(change, label="cancel operation")
        if changed is None:
            raise Conflict(f"operation {record.id} has ended: {record.state}", topic=record.topic)
        call = self._attempts.get(record.id)
        if call is not None:
            call.cancelled_by = who
            call.stop()
        self.views.announce(changed)
        return changed

    async def _cancel_quietly(self, operation_id: str, who: str) -> None:
        try:
            await self.cancel(operation_id, who)
        except OstlerError as error:
            _log.debug("operation %s was not cancelled with its call: %s", operation_id, error)

    async def retry(self, operation_id: str, who: str) -> OperationRecord:
        """Queue an operation again that has failed or was cancelled; recorded steps are not repeated.

        Raises:
            NotFound: There is none.
            Conflict: It has not failed; or there is no such service now.
        """
        record = await self.views.find(operation_id)
        queue = self._queue_of(record.topic, record.method)
        if queue is None:
            raise Conflict(f"no service {record.topic} is running here", hint="see `ostler service list`")
        changed = await self._store.awrite(
            lambda: self.records.requeue(record.id, f"retried by {who}"), label="retry operation"
        )
        if changed is None:
            raise Conflict(
                f"operation {record.id} is {record.state}; only a failed or cancelled one can be retried",
                topic=record.topic,
            )
        self.views.announce(changed)
        queue.put(changed.id, changed.account)
        self._fill(queue)
        return changed

    def _on_progress(self, call: OperationCall) -> None:
        """Record that a method has reported progress. Any thread."""
        self._fresh_progress[call.record.id] = call
        if not self._is_progress_posted:
            self._is_progress_posted = True
            self._loop_queue.post(self._report_progress)

    def _report_progress(self) -> None:
        # The flag first: what is reported from here on posts again.
        self._is_progress_posted = False
        self.views.report_progress(list(self._fresh_progress.values()))

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(_LEASE_INTERVAL)
            if not self._attempts:
                continue
            fresh, self._fresh_progress = self._fresh_progress, {}
            rows = [(key, *call.progress) for key, call in fresh.items()]
            try:
                await self._store.awrite(partial(self.records.renew_leases, rows), label="leases", urgent=True)
            except StoreError as error:  # the store reports it; what runs goes on
                _log.debug("the leases of operations were not renewed: %s", error)


def _draining_error(topic: str, operation_id: str) -> Draining:
    return Draining(
        f"{topic} is draining; operation {operation_id} is stored, and begins when {topic} runs again",
        hint=f"`ostler operation watch {operation_id}` shows it", topic=topic, request_id=operation_id,
    )  # fmt: skip
