"""Periodic tasks in a virtual time."""

import asyncio
import random
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from ostler.aio import TaskOwner, WorkerPool
from ostler.periodic_tasks import PeriodicScheduler
from ostler.testing.virtual_time import virtual_clock
from support.async_tests import loop_fixture


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
            rng=random.Random(7),
        )
        self.pool = WorkerPool("lamp", size, queue_limit=queue_limit)
        self.begun = self.loop.time()

    def add(self, manager, service="lamp", pool=None, **options):
        self.scheduler.add(service, manager, pool or self.pool, SimpleNamespace(**options))

    def apply_options(self, service="lamp", **options):
        self.scheduler.apply_options(service, SimpleNamespace(**options))

    def status(self, task, service="lamp"):
        return next(row for row in self.scheduler.statuses() if (row.service, row.task) == (service, task))

    def now(self):
        """Seconds since the bench was made."""
        return round(self.loop.time() - self.begun, 3)


@pytest.fixture
def open_bench():
    """Open a bench in virtual time: `async with open_bench(size=1) as bench`; its pool is closed at the end."""

    @asynccontextmanager
    async def opened(**options):
        bench = Bench(**options)
        try:
            yield bench
        finally:
            bench.pool.close()
            await bench.owner.cancel()

    return opened


@loop_fixture
async def bench(open_bench):
    async with open_bench() as opened:
        yield opened
