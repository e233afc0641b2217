"""The signs of work that a heartbeat carries: the loop, the threads, the drivers, periodic tasks and the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ostler.bounds import WHY_LIMIT, truncate
from ostler.types import BreakerState, DriverStatus, ServiceSign

if TYPE_CHECKING:
    from ostler.aio import WorkerPool
    from ostler.clock import Clock
    from ostler.driver import Drivers
    from ostler.periodic_tasks import PeriodicScheduler
    from ostler.store import Store

MAX_TASKS = 20
"""Periodic tasks of a service in one report; those with errors come first."""
MAX_DRIVERS = 50
NO_AGE = -1.0
"""Stands for no progress so far."""


class SignCollector:
    """Collects what a service and its daemon were last seen doing. On the loop; no I/O.

    Args:
        store: The database.
        scheduler: Runs the periodic tasks.
        clock: The source of time.
    """

    def __init__(self, store: Store, scheduler: PeriodicScheduler, clock: Clock) -> None:
        self._store = store
        self._scheduler = scheduler
        self._clock = clock

    def collect(self, topic: str, pool: WorkerPool, drivers: Drivers | None, lateness: float) -> list[ServiceSign]:
        """Return the signs of one service.

        Args:
            topic: The service.
            pool: Its threads.
            drivers: Its drivers; None before they were built.
            lateness: How many seconds after its due time the loop came to this report.
        """
        statuses = drivers.statuses()[:MAX_DRIVERS] if drivers is not None else []
        return [
            ServiceSign(subject="loop", age=max(0.0, lateness), text="the time by which this report was late"),
            _pool_sign(pool),
            *(self._driver_sign(each) for each in statuses),
            *self._task_signs(topic),
            self._store_sign(),
        ]

    def _driver_sign(self, driver: DriverStatus) -> ServiceSign:
        age = self._clock.wall() - driver.last_success_at if driver.last_success_at else NO_AGE
        refuses = "" if driver.breaker is BreakerState.CLOSED else f", breaker {driver.breaker}"
        text = f"{driver.state}{refuses}, {driver.calls} calls, {driver.errors} errors, {driver.failures} in a row"
        last = f"; the last: {driver.last_error}" if driver.last_error else ""
        return ServiceSign(subject=f"driver {driver.name}", age=age, text=truncate(f"{text}{last}", WHY_LIMIT))

    def _task_signs(self, topic: str) -> Iterator[ServiceSign]:
        now = self._clock.wall()
        for task in self._scheduler.last_runs(topic, MAX_TASKS):
            age = max(0.0, now - task.last_run) if task.last_run else NO_AGE
            last = f"; the last: {task.last_error}" if task.last_error else ""
            text = truncate(f"{task.runs} runs, {task.errors} errors{last}", WHY_LIMIT)
            yield ServiceSign(subject=f"periodic task {task.task}", age=age, text=text)

    def _store_sign(self) -> ServiceSign:
        age = max(0.0, self._clock.monotonic() - self._store.last_commit_time())
        outage = self._store.outage
        text = f"{self._store.stats()['queued']} writes wait"
        return ServiceSign(subject="store", age=age, text=f"{text}: {outage.why}" if outage.is_active else text)


def _pool_sign(pool: WorkerPool) -> ServiceSign:
    rows = pool.running_jobs(include_replaced=False)
    longest = f", the longest with {rows[0].label}" if rows else ""
    text = f"{len(rows)} of {pool.size} threads busy{longest}; {pool.queued_count} requests wait"
    return ServiceSign(subject="pool", age=rows[0].seconds if rows else 0.0, text=text)
