"""Waits on a thread, for as long as the result is needed."""

from __future__ import annotations

import threading

from ostler.messaging.wire.request_context import Context


def interruptible_sleep(seconds: float, context: Context | None) -> None:
    """Wait, less when the request that is being served is cancelled.

    Raises:
        Cancelled: It was.
    """
    over = threading.Event()
    forget = context.on_cancel(over.set) if context is not None else noop
    try:
        over.wait(seconds)
    finally:
        forget()
    if context is not None:
        context.check()


def noop() -> None:
    """Do nothing; the default of a callback."""
