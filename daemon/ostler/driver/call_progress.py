"""Progress of the call that a driver's thread serves; for `Driver.progress`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from ostler.messaging.wire.request_context import current_context

_restart_budget: ContextVar[Callable[[], None] | None] = ContextVar("ostler_driver_call", default=None)


def set_current_call(restart_budget: Callable[[], None]) -> None:
    """Set what starts the time budget of this thread's call again; for work that has its own context variables."""
    _restart_budget.set(restart_budget)


def report_progress(done: float, total: float, text: str) -> None:
    """Report progress to the caller, if a request is served, and start the time budget again; see `Driver.progress`."""
    if (restart := _restart_budget.get()) is not None:
        restart()
    if (context := current_context()) is not None:
        context.check()
        context.progress(done, total, text)
