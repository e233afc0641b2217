"""An operation as callers see it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ostler.errors import StoreError, to_wire
from ostler.messaging.wire.request_context import Progress
from ostler.operations.outcomes import decode_error
from ostler.store import OperationRecord, requester_of
from ostler.types import OperationError, OperationStatus

_DAMAGED = "(damaged)"


def status_of(
    record: OperationRecord, steps: Iterable[str] = (), progress: Progress | None = None, *, show_values: bool
) -> OperationStatus:
    """Return the status of an operation.

    Args:
        record: The operation.
        steps: The names of its recorded steps.
        progress: How far it is; what was stored last by default.
        show_values: Whether the arguments, the result and the text of progress are for whoever asked.
    """
    done, total, text = progress or Progress(record.done, record.total, record.text)
    return OperationStatus(
        id=record.id,
        topic=record.topic,
        host=record.host,
        method=record.method,
        state=record.state,
        why=record.why,
        since=record.since,
        submitted_at=record.submitted_at,
        requester=_requester_name(record),
        attempts=record.attempts,
        interruptions=record.interruptions,
        done=done,
        total=total,
        text=text,
        steps=list(steps),
        next_attempt_at=record.next_attempt_at,
        expires_at=0.0 if record.time_limit is None else record.submitted_at + record.time_limit,
        is_hidden=not show_values,
        arguments=_decode(record.arguments) if show_values else None,
        result=_decode(record.result) if show_values and record.result is not None else None,
        error=None if record.error is None else _stored_error(record.error, show_values=show_values),
    )


def operation_event(record: OperationRecord) -> dict[str, Any]:
    """Return the payload of the event of a new state: what every viewer may see."""
    return {
        "id": record.id, "topic": record.topic, "method": record.method, "state": str(record.state),
        "why": record.why, "attempts": record.attempts, "requester": _requester_name(record),
    }  # fmt: skip


def _requester_name(record: OperationRecord) -> str:
    """Return who submitted an operation; a damaged record must not keep others from being shown."""
    try:
        return requester_of(record).origin.name
    except StoreError:
        return _DAMAGED


def _stored_error(packed: bytes, *, show_values: bool) -> OperationError:
    error = decode_error(packed)
    return OperationError(
        name=type(error).__name__,
        names=list(to_wire(error).names),
        message=error.message,
        hint=error.hint,
        details=error.details if show_values else {},
    )


def _decode(packed: bytes) -> Any:
    try:
        return msgspec.msgpack.decode(packed)
    except msgspec.MsgspecError:
        return _DAMAGED
