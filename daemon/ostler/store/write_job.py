"""What waits for the writer: one function of one caller, and how that caller is notified."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ostler.aio.worker_pool import as_exception

_log = logging.getLogger(__name__)


class WriteJob(msgspec.Struct, eq=False):
    """One function that waits for the writer.

    Attributes:
        fn: The function.
        label: Its name in messages; empty for that of the function.
        urgent: Whether it goes before all others.
        since: When it began to wait, on the monotonic clock.
        context: The context variables of its caller, in which it runs.
        waiter: What its caller waits for: a locked lock on a thread, a future on a loop.
        loop: The loop on which its caller waits; None for one that waits on a thread.
        callbacks: What peewee's `after_commit` was given in it.
    """

    fn: Callable[[], Any]
    label: str
    urgent: bool
    since: float
    context: contextvars.Context
    waiter: Any
    loop: asyncio.AbstractEventLoop | None
    result: Any = None
    error: BaseException | None = None
    callbacks: list[Callable[[], object]] | None = None

    def display_name(self) -> str:
        """Return the name of the job in messages."""
        return self.label or function_name(self.fn)


def function_name(fn: Callable[..., Any]) -> str:
    """Return a name for a function, that of the one behind a `partial`."""
    fn = getattr(fn, "func", fn)
    return f"{fn.__module__}.{getattr(fn, '__qualname__', type(fn).__name__)}"


def resolve_jobs(jobs: Iterable[WriteJob]) -> None:
    """Notify the callers of jobs: those on threads from this one, those on a loop with one wake-up of that loop."""
    loop: asyncio.AbstractEventLoop | None = None
    others: dict[asyncio.AbstractEventLoop, list[WriteJob]] = {}
    mine: list[WriteJob] = []
    for job in jobs:
        if job.loop is None:
            job.waiter.release()
            continue
        if job.loop is not loop:  # most often all are of the daemon's one loop
            loop = job.loop
            mine = others.setdefault(loop, [])
        mine.append(job)
    for loop, waiting in others.items():
        try:
            loop.call_soon_threadsafe(_resolve_on_loop, waiting)
        except RuntimeError:  # the loop is closed; there is no waiter any longer
            _log.debug("%d writes finished after their event loop was closed", len(waiting))


def _resolve_on_loop(jobs: list[WriteJob]) -> None:
    for job in jobs:
        waiter = job.waiter
        if waiter.done():
            continue  # cancelled meanwhile
        if job.error is None:
            waiter.set_result(job.result)
        else:
            waiter.set_exception(as_exception(job.error))
