"""Names in the log what keeps the database from others for long, and who asked for it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from ostler.clock import Clock
from ostler.log.rate_limit import RateLimitedLog
from ostler.store.write_job import WriteJob, function_name
from ostler.time_text import format_seconds

_log = logging.getLogger(__name__)
SLOW_TRANSACTION = 1.0
"""Seconds, unless something else is said."""
NO_LIMIT = math.inf
"""The limit with which nothing is slow."""


def nobody() -> str:
    """Name no request."""
    return ""


class SlowTransactions:
    """Logs transactions that take longer than a limit: each function, and slow commits, once a minute at most.

    Any thread.

    Args:
        clock: The source of time.
        limit: Seconds that a write, a commit or a read may take; may be set at any time.
        requester: Names the request that this thread serves, with its caller; empty outside of one. A write calls it
            in the context of its caller.
    """

    def __init__(self, clock: Clock, limit: float, requester: Callable[[], str] = nobody) -> None:
        self.limit = limit
        self._requester = requester
        self._limited_log = RateLimitedLog(_log, clock)

    def on_write(self, job: WriteJob, waited: float, ran: float) -> None:
        """Log a write that ran for too long, for which all others waited.

        Args:
            job: The write.
            waited: Seconds until it began.
            ran: Seconds that it ran.
        """
        self._limited_log.warning(
            f"write {function_name(job.fn)}",  # not the label, which may have a name in it and be a new one each time
            f"the write {_full_name(job)}{self._asked_by(job.context.run(self._requester))} blocked all others for "
            f"{format_seconds(ran, 2)}, after waiting for {format_seconds(waited, 2)}; write in smaller pieces",
        )

    def on_commit(self, count: int, seconds: float) -> None:
        """Log a commit that took too long: the disk is slow, whoever asked."""
        self._limited_log.warning(
            "commit",
            f"the commit of {count} writes took {format_seconds(seconds, 2)}: "
            "check the health and the load of the disk",
        )

    def on_lock(self, seconds: float) -> None:
        """Log that another program has kept the database locked for too long."""
        self._limited_log.warning(
            "lock",
            f"all writes waited for {format_seconds(seconds, 2)} for a database that another program had locked "
            "(a backup, an sqlite3 shell)",
        )

    def on_read(self, fn: Callable[..., Any], seconds: float) -> None:
        """Log a read that took too long; on the thread of the read."""
        name = function_name(fn)
        self._limited_log.warning(
            f"read {name}",
            f"the read {name}{self._asked_by(self._requester())} took {format_seconds(seconds, 2)}, "
            "during which the write-ahead log could not be checkpointed; read in smaller pieces",
        )

    @staticmethod
    def _asked_by(requester: str) -> str:
        return f", asked for by {requester}," if requester else ""


def _full_name(job: WriteJob) -> str:
    """Return the label with the module of the function, which tells the plugin."""
    name = function_name(job.fn)
    return f"{job.label} ({name})" if job.label else name
