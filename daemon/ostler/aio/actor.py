"""Which task or thread runs the code that asks."""

from __future__ import annotations

import asyncio
import threading


def current_actor() -> object:
    """Return the task that runs here, or the thread where no task does; compare two of them with `==`. Any thread."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs here
        task = None
    return task if task is not None else threading.current_thread()


def actor_name(actor: object) -> str:
    """Return the name of a task or thread, for people."""
    return actor.name if isinstance(actor, threading.Thread) else str(getattr(actor, "get_name", lambda: "")())


def has_ended(actor: object) -> bool:
    """Return whether a task or thread has ended."""
    if isinstance(actor, threading.Thread):
        return not actor.is_alive()
    return bool(getattr(actor, "done", lambda: False)())
