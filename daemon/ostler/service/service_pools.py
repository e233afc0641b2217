"""The threads of one service: pools for requests, checks, capabilities, resets and the clean-up."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ostler.aio import RunningJob, WorkerPool
from ostler.manager import ManagerOptions
from ostler.time_text import format_duration

MAX_CONCURRENT_RESETS = 3
"""The most runs of `reset` at once, of which all but one hang."""


class ServicePools:
    """Holds the pools of one service. On the loop.

    Args:
        topic: The topic of the service; the threads are named after it.
        options: The options of the service.
        backend_count: How many drivers it has.
    """

    def __init__(self, topic: str, options: ManagerOptions, backend_count: int) -> None:
        self._topic = topic
        self.requests = WorkerPool(topic, options.workers, options.queue_limit)
        self.short = WorkerPool(f"{topic}-short", options.workers, options.queue_limit)
        # Checks have threads of their own: they must not queue behind long work.
        self.health = WorkerPool(f"{topic}-checks", 2)
        # A thread for each backend, so that none waits for another.
        self.capabilities = WorkerPool(f"{topic}-capabilities", max(1, backend_count))
        # Not in the pool of the checks: calls that hang here would use up its threads.
        self.reset = WorkerPool(f"{topic}-reset", MAX_CONCURRENT_RESETS)
        self.cleanup: WorkerPool | None = None
        """That of `cleanup_host`; None before it is called."""

    def all_pools(self) -> dict[str, WorkerPool]:
        """Return the pools by what they are for."""
        pools = {
            "requests": self.requests, "short requests": self.short, "checks": self.health,
            "capabilities": self.capabilities, "reset": self.reset,
        }  # fmt: skip
        return pools if self.cleanup is None else {**pools, "cleanup": self.cleanup}

    def open_cleanup(self) -> WorkerPool:
        """Create the pool of `cleanup_host`: a thread of its own, as those of the service may all hang."""
        self.cleanup = WorkerPool(f"{self._topic}-cleanup", 1)
        return self.cleanup

    def set_backend_count(self, count: int) -> None:
        """Give every backend a thread for its capabilities, after some were added or removed."""
        # Not another pool: jobs may be waiting in this one.
        self.capabilities.size = max(1, count)

    def close(self) -> None:
        """Refuse further jobs; idle threads end. The pool of `cleanup_host` is closed by who opened it."""
        for pool in (self.requests, self.short, self.health, self.capabilities, self.reset):
            pool.close()

    def request_rows(self) -> list[RunningJob]:
        """Return the running jobs of requests and hooks, longest first."""
        return sorted([*self.requests.running_jobs(), *self.short.running_jobs()], key=lambda row: -row.seconds)

    def queued_count(self) -> int:
        """Return how many requests wait for a thread."""
        return self.requests.queued_count + self.short.queued_count

    def exhaustion(self, limit: float) -> str:
        """Return a complaint when requests wait and no thread has become free for `limit` seconds."""
        for pool in (self.requests, self.short):
            rows, queued = pool.running_jobs(include_replaced=False), pool.queued_count
            if queued and len(rows) >= pool.size and rows[-1].seconds >= limit:
                return f"{queued} requests are waiting and all {len(rows)} threads are busy, one with {rows[0].label}"
        return ""

    def hook_rows(self) -> list[RunningJob]:
        """Return the running jobs in which hooks of the manager may hang."""
        return [*self.requests.running_jobs(), *self.health.running_jobs(), *self.reset.running_jobs()]

    def running_work(
        self, overdue_hooks: Collection[str] = (), abandoned: Collection[tuple[str, str]] = ()
    ) -> list[str]:
        """Return what still runs, a line each.

        Args:
            overdue_hooks: Labels of hooks that did not return in time, and are not named.
            abandoned: Threads and labels of work that is no longer waited for, and is not named.
        """
        rows = [
            *self.request_rows(),
            *self.health.running_jobs(),
            *self.capabilities.running_jobs(),
            *self.reset.running_jobs(),
        ]
        return [
            line(row) for row in rows if row.label not in overdue_hooks and (row.thread, row.label) not in abandoned
        ]

    def cleanup_lines(self) -> Iterator[str]:
        """Yield a line when `cleanup_host` has not returned."""
        for row in self.cleanup.running_jobs() if self.cleanup is not None else ():
            yield f"{row.label} for {format_duration(row.seconds)}"


def line(row: RunningJob) -> str:
    """Return a running job as a line."""
    return f"{row.label} on {row.thread} for {format_duration(row.seconds)}"
