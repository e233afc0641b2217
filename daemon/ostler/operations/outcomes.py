"""Decides what becomes of an operation: after an attempt has ended, and after the daemon has."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ostler.bounds import WHY_LIMIT, truncate
from ostler.errors import (
    Busy,
    Cancelled,
    ConnectionLost,
    DaemonNotRunning,
    Draining,
    DriverCrashed,
    DriverNotReady,
    OperationInterrupted,
    OstlerError,
    StoreError,
    StoreUnavailable,
    WireError,
    error_line,
    from_wire,
    is_a,
    to_wire,
)
from ostler.messaging.interface.exposure import Durable
from ostler.store import OperationOutcome
from ostler.types import OperationState

if TYPE_CHECKING:
    from ostler.operations.operation_call import OperationCall
    from ostler.store import OperationRecord

NOT_DURABLE = Durable()
"""How an operation on a method that is not declared durable is run: once."""
MAX_INTERRUPTIONS = 5
"""How often the daemon may end in the midst of an operation until that is considered the cause."""
_RETRIED_ERRORS: tuple[type[OstlerError], ...] = (
    Busy,
    ConnectionLost,
    DaemonNotRunning,
    Draining,
    DriverNotReady,
    StoreUnavailable,
)
_REPEATED_ERRORS: tuple[type[OstlerError], ...] = (*_RETRIED_ERRORS, DriverCrashed)
"""Errors after which work is run again that may be: whether what crashed took effect is unknown."""
_NOT_READY_ERRORS: tuple[type[OstlerError], ...] = (Busy, Draining, DriverNotReady, StoreUnavailable)
"""Errors that a service may have for a while after its start."""
_ATTEMPTS_AFTER_RESTART = 10
"""Attempts that an operation of an earlier run has at least while its service is not ready yet."""
_BUSY_DELAY = 1.0
"""Seconds after which an operation is begun again for which its service had no thread."""
_JITTER = 0.1
_encode = msgspec.msgpack.Encoder().encode
_StoredError = tuple[tuple[str, ...], str, str, dict[str, Any]]
_decode_error = msgspec.msgpack.Decoder(_StoredError).decode


class Decision(NamedTuple):
    """What becomes of an operation: its new state, whether its steps go, and whether `clean_up` is to be run first."""

    outcome: OperationOutcome
    drop_steps: bool = False
    must_clean_up: bool = False


def encode_error(error: OstlerError) -> bytes:
    """Return an error as it is stored."""
    return _encode(to_wire(error))


def decode_error(packed: bytes) -> OstlerError:
    """Return a stored error; of a damaged record, an error that says so."""
    try:
        return from_wire(WireError(*_decode_error(packed)))
    except msgspec.MsgspecError as damage:
        return StoreError(f"the stored error of the operation is damaged: {damage}", hint="see `ostler db check`")


def failed(error: OstlerError) -> OperationOutcome:
    """Return the end of an operation with an error."""
    return OperationOutcome(OperationState.FAILED, error_line(error), error=encode_error(error))


def cancelled(operation_id: str, who: str) -> OperationOutcome:
    """Return the end of an operation that somebody cancelled."""
    error = Cancelled(f"operation {operation_id} was cancelled by {who}", request_id=operation_id)
    return OperationOutcome(OperationState.CANCELLED, f"cancelled by {who}", error=encode_error(error))


def decide_after_attempt(
    call: OperationCall, *, is_stopping: bool, now: float, is_restored: bool = False
) -> Decision | None:
    """Return what becomes of an operation whose attempt has ended.

    Args:
        call: The attempt.
        is_stopping: Whether its service stops.
        now: Wall time in seconds.
        is_restored: Whether an earlier run of the daemon had accepted it.

    Returns:
        The decision; None to leave the record as it is, so that the next start decides.
    """
    record, error, policy = call.record, call.error, call.policy
    if call.is_clean_up:
        cut_off = is_stopping and is_a(error, (Cancelled, Draining))
        return None if cut_off else Decision(failed(interrupted_error(record, _clean_up_text(error))))
    if error is None:
        return Decision(OperationOutcome(OperationState.SUCCEEDED, result=call.result))
    if call.cancelled_by:
        return Decision(cancelled(record.id, call.cancelled_by))
    if not call.is_started and is_a(error, (Draining, Busy)):  # its service began to drain, or has no thread for it
        waits = OperationState.WAITING if is_a(error, Busy) else OperationState.QUEUED
        return Decision(OperationOutcome(waits, error.message, next_attempt_at=now + _BUSY_DELAY))
    if (is_stopping or call.is_handed_over) and is_a(error, (Cancelled, Draining)):
        return decide_after_stop(record, policy)
    return Decision(_retry_later(record, policy, error, now, is_restored=is_restored) or failed(error))


def clean_up_delay(call: OperationCall, tried: int) -> float | None:
    """Return the seconds until a clean-up that has failed is tried again; None when its end is final.

    Args:
        call: The clean-up.
        tried: How often it has been tried.
    """
    if tried >= _ATTEMPTS_AFTER_RESTART or not is_a(call.error, _REPEATED_ERRORS):
        return None
    return min(call.policy.max_backoff, call.policy.backoff * 2.0 ** (tried - 1))


def _retry_later(
    record: OperationRecord, policy: Durable, error: OstlerError, now: float, *, is_restored: bool
) -> OperationOutcome | None:
    """Return when an operation is begun again; None when its error, or the number of its attempts, is final."""
    is_repeatable = policy.on_restart in ("resume", "retry")
    limit, kinds = policy.attempts, _REPEATED_ERRORS if is_repeatable else _RETRIED_ERRORS
    is_continued = bool(record.interruptions) or is_restored
    if is_continued and limit < _ATTEMPTS_AFTER_RESTART and (is_repeatable or not record.interruptions):
        limit, kinds = _ATTEMPTS_AFTER_RESTART, _NOT_READY_ERRORS if policy.attempts == 1 else kinds
    used = record.attempts - record.interruptions
    if used < limit and is_a(error, kinds):
        delay = min(policy.max_backoff, policy.backoff * 2.0 ** min(used - 1, 30))
        delay *= 1 + random.uniform(-_JITTER, _JITTER)  # noqa: S311 - no secret: so that many do not come back at once
        why = truncate(f"attempt {used} of {limit} failed: {error_line(error)}", WHY_LIMIT)
        return OperationOutcome(OperationState.WAITING, why, next_attempt_at=now + delay)
    return None


def decide_after_restart(record: OperationRecord, policy: Durable | None) -> Decision:
    """Return what becomes of an operation that was running when the daemon ended.

    Args:
        record: The operation, which has been taken over.
        policy: How its method is retried; None when there is no such method any more.
    """
    if policy is None:
        return Decision(failed(interrupted_error(record, f"{record.topic} has no method {record.method} now")))
    if record.cancelled_by and not policy.clean_up:
        return Decision(cancelled(record.id, record.cancelled_by))
    if record.interruptions >= MAX_INTERRUPTIONS:
        text = f"the daemon ended {record.interruptions} times in the midst of it, so it is not tried again"
        return Decision(failed(interrupted_error(record, text)))
    decision = _decide_interrupted(record, policy, "the daemon ended while it ran")
    return decision or Decision(failed(interrupted_error(record, "")), must_clean_up=True)


def decide_after_stop(record: OperationRecord, policy: Durable) -> Decision | None:
    """Return what becomes of an operation that was cut off by the stop of its service; None: the next start decides."""
    return _decide_interrupted(record, policy, "its service stopped while it ran")


def _decide_interrupted(record: OperationRecord, policy: Durable, why: str) -> Decision | None:
    if policy.on_restart == "clean up":
        return None
    if policy.on_restart == "fail":
        return Decision(failed(interrupted_error(record, "")))
    return Decision(OperationOutcome(OperationState.QUEUED, why), drop_steps=policy.on_restart == "retry")


def interrupted_error(record: OperationRecord, what: str) -> OperationInterrupted:
    """Return the error of an operation that is not continued.

    Args:
        record: The operation.
        what: What was done about it, or why it is not continued.
    """
    more = f": {what}" if what else ""
    return OperationInterrupted(
        f"the daemon ended while operation {record.id} ({record.topic}.{record.method}) ran{more}",
        hint=f"look whether it was done; `ostler operation retry {record.id}` runs it again",
        topic=record.topic, method=record.method, request_id=record.id,
    )  # fmt: skip


def _clean_up_text(error: OstlerError | None) -> str:
    return "what it had begun was undone" if error is None else f"undoing it failed: {error_line(error)}"
