"""Periodic tasks in a virtual time."""

import asyncio
import random
from types import SimpleNamespace

import pytest

from ostler.aio import TaskOwner, WorkerPool
from ostler.periodic import PeriodicScheduler
from ostler.testing.virtual_time import VirtualTimeLoop, virtual_clock


class Bench:
    """A scheduler on the running virtual loop, with a pool and options."""

    def __init__(self, size=4, queue_limit=1000):
        self.loop = asyncio.get_running_loop()
        self.clock = virtual_clock()
        self.owner = TaskOwner("services")
        self.ran = []
        self.scheduler = PeriodicScheduler(
            clock=self.clock,
            owner=self.owner,
            on_run=lambda *facts: self.ran.append(facts),
            chance=random.Random(7),
        )
        self.pool = WorkerPool("lamp", size, queue_limit=queue_limit)
        self.begun = self.loop.time()

    def add(self, manager, service="lamp", pool=None, **options):
        self.scheduler.add(service, manager, pool or self.pool, SimpleNamespace(**options))

    def respace(self, service="lamp", **options):
        self.scheduler.respace(service, SimpleNamespace(**options))

    def status(self, task, service="lamp"):
        return next(row for row in self.scheduler.statuses() if (row.service, row.task) == (service, task))

    def now(self):
        """Seconds since the bench was made."""
        return round(self.loop.time() - self.begun, 3)


@pytest.fixture
def run():
    """Run an async test on a virtual loop, with a bench for it; its pool is closed at the end."""

    def run_it(work, **options):
        async def main():
            bench = Bench(**options)
            try:
                await work(bench)
            finally:
                bench.pool.close()
                await bench.owner.cancel()

        with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience=0.1)) as runner:
            runner.run(main())

    return run_it
