"""One attempt of an operation: a request from within the daemon, whose end goes to the operation."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from ostler.clock import Clock
from ostler.errors import Cancelled, MessageTooLarge, OstlerError, StoreUnavailable
from ostler.messaging.interface.exposure import Durable
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.endpoint import Method
from ostler.messaging.wire.envelope import (
    LENIENT,
    MAX_MESSAGE_SIZE,
    PROGRESS,
    PROTOCOL_VERSION,
    SUBMIT,
    Request,
    encode_value,
)
from ostler.messaging.wire.request_context import Context, Progress
from ostler.store import OperationRecord, Requester
from ostler.types import LOCAL_PEER

T = TypeVar("T")
STORE_RETRY_DELAY = 1.0
"""Seconds until what the database did not take is tried again."""


class StepStore(Protocol):
    """Stores the results of steps."""

    @property
    def is_writing(self) -> bool:
        """Whether this thread is inside a write, whose commit decides what is stored."""
        ...

    def save_step(self, record: OperationRecord, position: int, name: str, result: bytes) -> bool:
        """Store one, and return whether the operation still belongs to this attempt. Blocks; on a thread."""
        ...

    async def asave_step(self, record: OperationRecord, position: int, name: str, result: bytes) -> bool:
        """Do what `save_step` does, on the loop."""
        ...


class AttemptState:
    """What a method may know of the operation that it is an attempt of; see `RunningOperation`.

    Args:
        record: The operation as it was claimed.
        requester: Who submitted it.
        steps: The recorded steps, by name.
        store: Where further ones are stored.
        clean_up: The method that is run instead of the one that was asked for, to undo an attempt that was cut off.
    """

    def __init__(
        self,
        record: OperationRecord,
        requester: Requester,
        steps: Mapping[str, bytes],
        store: StepStore,
        clean_up: Callable[..., Any] | None = None,
    ) -> None:
        self.record = record
        self.requester = requester
        self.steps = dict(steps)
        self._next_position = len(steps)
        self._store = store
        self._clean_up = clean_up
        self.is_clean_up = clean_up is not None
        """Whether this undoes an attempt that was cut off."""
        self.is_handed_over = False
        """See `RunningOperation.is_handed_over`."""

    @property
    def attempt(self) -> int:
        """See `RunningOperation.attempt`."""
        return self.record.attempts

    @property
    def is_resumed(self) -> bool:
        """See `RunningOperation.is_resumed`."""
        return self.record.interruptions > 0

    def is_recorded(self, name: str) -> bool:
        """See `RunningOperation.is_recorded`."""
        return name in self.steps

    def step(self, context: Context, name: str, function: Callable[[], T], result_type: Any) -> T:
        """See `RunningOperation.step`."""
        if name in self.steps:
            recorded: T = self._decode(name, result_type)
            return recorded
        context.check()
        result = function()
        packed = self._encode(name, result)
        if self._store.is_writing:
            # The commit may fail, and the write may be run again: it must find the step as not done. The writer's
            # thread must not wait either.
            self._check_owned(self._store.save_step(self.record, self._take_position(), name, packed))
            return result
        # It is done: it is recorded as soon as the database can be written, unless nobody wants the rest any more.
        while True:
            try:
                self._check_owned(self._store.save_step(self.record, self._take_position(), name, packed))
                break
            except StoreUnavailable:
                context.check()
                time.sleep(STORE_RETRY_DELAY)
        self.steps[name] = packed
        return result

    async def astep(self, context: Context, name: str, function: Callable[[], Awaitable[T]], result_type: Any) -> T:
        """See `RunningOperation.astep`."""
        if name in self.steps:
            recorded: T = self._decode(name, result_type)
            return recorded
        context.check()
        result = await function()
        packed = self._encode(name, result)
        while True:
            try:
                self._check_owned(await self._store.asave_step(self.record, self._take_position(), name, packed))
                break
            except StoreUnavailable:
                context.check()
                await asyncio.sleep(STORE_RETRY_DELAY)
        self.steps[name] = packed
        return result

    def _take_position(self) -> int:
        self._next_position += 1
        return self._next_position

    def set_caller(self, context: Context) -> None:
        """See `AttemptedOperation.set_caller`."""
        context.peer, context.role, context.host = self.requester.peer, self.requester.role, self.requester.host

    def method_to_run(self, method: Method) -> Method:
        """See `AttemptedOperation.method_to_run`."""
        if self._clean_up is None:
            return method
        is_async = inspect.iscoroutinefunction(self._clean_up)
        return msgspec.structs.replace(method, function=self._clean_up, is_async=is_async)

    def _encode(self, name: str, result: object) -> bytes:
        return encode_value(result, f"the result of step {name} of operation {self.record.id}")

    def _decode(self, name: str, result_type: Any) -> Any:
        """Return a recorded result; `Any`, as only the caller knows its type."""
        return msgspec.msgpack.decode(self.steps[name], type=Any if result_type is None else result_type)

    def _check_owned(self, owned: bool) -> None:
        if not owned:
            raise Cancelled(f"operation {self.record.id} continues elsewhere", request_id=self.record.id)


class OperationCall(Call):
    """One attempt of an operation. On the loop, except where noted.

    Args:
        clock: The source of time.
        number: The number of the request.
        state: The operation, its steps, and what is run.
        time_left: Seconds in which it must end; None for no limit.
        policy: How its method is retried.
        on_end: Called once, when the work has really ended.
        on_progress: Called when the method reports progress; on any thread.
    """

    operation: AttemptState

    def __init__(
        self,
        clock: Clock,
        number: int,
        state: AttemptState,
        time_left: float | None,
        policy: Durable,
        on_end: Callable[[OperationCall], None],
        on_progress: Callable[[OperationCall], None],
    ) -> None:
        record = state.record
        request = Request(
            PROTOCOL_VERSION, number, record.topic, record.method, msgspec.Raw(record.arguments), time_left, record.id,
            record.flags & LENIENT | SUBMIT | PROGRESS, trace=record.trace,
        )  # fmt: skip
        super().__init__(request, LOCAL_PEER, clock)
        self.context.operation = state
        self.record = record
        self.operation = state
        self.policy = policy
        # Who is behind it: whose share is used, and who stands in the audit log.
        self.parent = Context(record.topic, record.method, request_id=record.id, peer=state.requester.origin)
        self.result: bytes | None = None
        self.error: OstlerError | None = None
        self.progress = Progress(record.done, record.total, record.text)
        self.is_handed_over = False
        """Whether it was asked to stop because its service stops, and is to be continued by the next start."""
        self.is_clean_up = state.is_clean_up
        self.cancelled_by = record.cancelled_by
        self._is_registered = self._has_outcome = self._has_ended = False
        self._on_end = on_end
        self._on_progress = on_progress

    def hand_over(self) -> None:
        """Ask the work to stop, so that the next start continues it."""
        self.is_handed_over = self.operation.is_handed_over = True
        self.stop()

    def stop(self) -> None:
        """See `Call.stop`; an attempt that was refused has no work."""
        if self._is_registered:
            super().stop()

    def pack(self, result: object) -> bytes:
        """See `Call.pack`."""
        packed = encode_value(result, f"the result of {self.full_name}")
        if len(packed) > MAX_MESSAGE_SIZE:
            raise MessageTooLarge(
                f"the result of {self.full_name} has {len(packed)} bytes, the limit is {MAX_MESSAGE_SIZE}",
                hint="store what is large elsewhere, and return where it is", size=len(packed), limit=MAX_MESSAGE_SIZE,
            )  # fmt: skip
        return packed

    def send_reply(self, packed: bytes) -> None:
        """See `Call.send_reply`."""
        self.result = packed
        self._set_outcome()

    def send_error(self, error: OstlerError) -> None:
        """See `Call.send_error`."""
        self.error = error
        self._set_outcome()

    def send_progress(self, progress: Progress) -> None:
        """See `Call.send_progress`."""
        self.progress = progress
        self._on_progress(self)

    def on_registered(self) -> None:
        """See `Call.on_registered`."""
        self._is_registered = True

    def on_ended(self) -> None:
        """See `Call.on_ended`: with a deadline, the outcome comes before the end of a thread."""
        self._has_ended = True
        self._end_if_complete()

    @property
    def has_ended(self) -> bool:
        """Whether the work has ended; what it came to may not be stored yet."""
        return self._has_outcome and (self._has_ended or not self._is_registered)

    def _set_outcome(self) -> None:
        self._has_outcome = True
        self._end_if_complete()

    def _end_if_complete(self) -> None:
        if self.has_ended:
            self._on_end(self)
