"""Waiting on a thread for time to pass, for as long as the result is wanted."""

from __future__ import annotations

import threading

from ostler.messaging.context import Context


def pause(seconds: float, context: Context | None) -> None:
    """Wait, less when the request that is being served is taken back.

    Raises:
        CallCancelled: It was.
    """
    over = threading.Event()
    forget = context.on_cancel(over.set) if context is not None else nothing
    try:
        over.wait(seconds)
    finally:
        forget()
    if context is not None:
        context.check()


def nothing() -> None:
    """Stand in for what undoes nothing, and for who need not be told."""
