"""How operations are shown: a table, one in full, and one that is being watched."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ostler.cli import kit
from ostler.cli.progress_bar import format_amount
from ostler.errors import OstlerError
from ostler.messaging.wire.request_context import Progress
from ostler.types import OperationState, OperationStatus

if TYPE_CHECKING:
    from ostler.messaging.clients.operation import Operation


_MAX_COUNT = 1000
"""Totals below this are counts of steps; of others the share says more."""


def format_progress(status: OperationStatus) -> str:
    """Return how far an operation is: `3 of 8`, `37 % of 10GiB`, or its text; empty when it has not reported."""
    if not status.total:
        return status.text or format_amount(status.done, 0)
    amount = format_amount(status.done, status.total)
    total = amount.rpartition(" of ")[2]
    share = amount
    if status.total >= _MAX_COUNT:
        share = f"{100 * status.done / status.total:.0f} %" + ("" if total.isdecimal() else f" of {total}")
    return f"{share}, {status.text}" if status.text else share


COLUMNS = [
    kit.Column("id", priority=0, min_width=9),
    kit.Column("service", "topic", priority=1),
    kit.Column("method", priority=0, min_width=12),
    kit.Column("state", priority=0, min_width=10),
    kit.Column("for", lambda status: kit.human_elapsed(status.since), priority=1, min_width=11),
    kit.Column("by", "requester", priority=2),
    kit.Column("attempts", right=True, priority=3),
    kit.Column("progress", format_progress, priority=0, min_width=10),
    kit.Column("why", priority=1),
]

_FIELDS: list[str | kit.Column] = [
    "id", "topic", "host", "method",
    kit.Column("arguments", lambda status: "(hidden)" if status.is_hidden else kit.to_json(status.arguments, indent=0)),
    "state", "why",
    kit.Column("since", lambda status: kit.human_time(status.since)),
    kit.Column("submitted", lambda status: kit.human_time(status.submitted_at)),
    kit.Column("by", "requester"),
    "attempts", "interruptions",
    kit.Column("progress", format_progress),
    kit.Column("steps", lambda status: ", ".join(status.steps)),
    kit.Column("next attempt", lambda status: kit.human_time(status.next_attempt_at)),
    kit.Column("expires", lambda status: kit.human_time(status.expires_at)),
]  # fmt: skip


def show_operation(status: OperationStatus) -> None:
    """Show one operation in full, with its result or error."""
    if kit.json_wanted():
        kit.emit(status)
        return
    kit.show_fields(status, names=_FIELDS)
    if status.error is not None:
        kit.say(f"error: {status.error.message}")
        if status.error.hint:
            kit.say(f"hint: {status.error.hint}")
    elif status.state is OperationState.SUCCEEDED and not status.is_hidden:
        kit.say("result:")
        kit.emit(status.result)


def wait_for_end(operation: Operation, timeout: float | None = None) -> Any:
    """Watch an operation to its end, with a progress bar on a terminal, and return its result.

    Ctrl-C asks on a terminal whether the operation is to be cancelled; elsewhere it goes on.

    Raises:
        KeyboardInterrupt: Ctrl-C; the operation goes on, or was cancelled.
        DeadlineExceeded: It has not ended in time.
        OstlerError: What it ended with.
    """
    try:
        return _watch_to_end(operation, f"{operation.status.topic}.{operation.status.method}", timeout)
    except KeyboardInterrupt:
        _ask_to_cancel(operation)
        raise


def wait_or_cancel(operation: Operation, label: str) -> Any:
    """Watch an operation to its end, with a progress bar on a terminal, and return its result; Ctrl-C cancels it.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        OstlerError: What it ended with.
    """
    try:
        return _watch_to_end(operation, label, None)
    except KeyboardInterrupt:
        try:
            operation.cancel()
        except OstlerError as error:
            kit.warn(kit.printable(f"ostler: operation {operation.id} was not cancelled: {error.message}"))
        raise


def _watch_to_end(operation: Operation, label: str, timeout: float | None) -> Any:
    with kit.progress(label) as on_progress:
        for status in operation.watch(timeout):
            on_progress(Progress(status.done, status.total, status.text or f"{label}: {status.state}"))
    return operation.result(timeout)


def _ask_to_cancel(operation: Operation) -> None:
    if kit.on_terminal(sys.stderr):
        kit.warn("")  # the question goes below the `^C` of the terminal
    if kit.ask(f"cancel operation {operation.id} too"):
        operation.cancel()
        return
    kit.warn(f"operation {operation.id} goes on; `ostler operation watch {operation.id}` shows it")
