"""The steps of operations on volumes: what is recorded in the transaction that changes a record, and found again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ostler import Context

T = TypeVar("T")
BEGUN = "begun"
"""The step that changes a record to a state of work in progress; its result is the record."""
DONE = "done"
"""The step that records the result."""


class RunChange(Protocol):
    """Runs a change of records inside a write, and may record in the same transaction that it was made."""

    def __call__(self, change: Callable[[], T], /) -> T:
        """Run it, and return its result."""
        ...


def run_directly(change: Callable[[], T], /) -> T:
    """Run a change, and record nothing of it."""
    return change()


def as_step(ctx: Context, name: str, kind: Any) -> RunChange:
    """Return what runs a change as a step of an operation.

    Args:
        ctx: The request.
        name: The name of the step.
        kind: The type of the result of the change.
    """

    def run(change: Callable[[], T], /) -> T:
        return ctx.step(name, change, type=kind)

    return run


def recorded(ctx: Context, name: str, kind: type[T]) -> T | None:
    """Return the result of a step of an earlier attempt, None if it was not done."""
    if not ctx.is_recorded(name):
        return None
    found: T = ctx.step(name, _unreachable, type=kind)
    return found


def _unreachable() -> Any:
    raise AssertionError("the step is recorded")
