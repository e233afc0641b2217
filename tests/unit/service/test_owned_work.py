"""What managers run on their own behalf, in real services: seen in their state, and ended with them."""

import asyncio
import threading

import pytest

from ostler import Manager, periodic
from ostler.errors import Conflict

pytestmark = pytest.mark.virtual_time

CONFIG = '[services.owner]\nmanager = "owner"\nreport_interval = 10\n'


class Owner(Manager):
    """A manager with work of its own."""

    made: "list[Owner]" = []

    def __init__(self, environment):
        super().__init__(environment)
        self.failing = True
        self.seen = []
        self.made.append(self)
        self.tasks.spawn("early", self.watch)

    def init_host(self, service_id, added_to_cluster):
        self.periodic.add("of a source", self.poll, spacing=5)
        self.tasks.spawn("read", self.read)

    def poll(self, ctx):
        self.seen.append(ctx.method)
        if self.failing:
            raise OSError("no source")

    async def watch(self):
        try:
            await asyncio.sleep(10**6)
        finally:
            self.seen.append("watch ended")

    def read(self, stop):
        stop.wait(60)
        self.seen.append("read ended")

    @periodic(spacing=1000)
    async def regular(self, ctx): ...

    def cleanup_host(self):
        self.seen.append("cleanup_host")
        for start in (
            lambda: self.tasks.spawn("late", self.watch),
            lambda: self.periodic.add("late", self.poll),
        ):
            with pytest.raises(Conflict, match="is being stopped"):
                start()


@pytest.fixture
def owned(bench):
    Owner.made = []
    return lambda: bench(CONFIG, owner=Owner)


async def test_a_task_that_fails_again_and_again_makes_its_service_degraded_by_name(owned):
    async with owned() as b:
        await b.runtime.start()
        await asyncio.sleep(30)
        assert b.state("owner") == "degraded"
        text = "periodic task of a source of owner failed 3 times in a row or more often: OSError: no source"
        status = b.service("owner").status()
        assert status.evidence == {"periodic task of a source": text}
        assert [line for line in b.runtime.problems() if "of a source" in line] == [], "said once, by the service"
        Owner.made[0].failing = False
        await asyncio.sleep(20)
        assert b.state("owner") == "up"
        assert b.service("owner").status().evidence == {}


async def test_a_background_task_that_fails_makes_its_service_degraded_at_once(owned):
    async with owned() as b:
        await b.runtime.start()
        manager = Owner.made[0]
        manager.failing = False

        async def fails():
            raise OSError("no lamp")

        manager.tasks.spawn("breaks", fails)
        await asyncio.sleep(0.1)
        assert b.state("owner") == "degraded"
        assert "background task breaks of owner failed: OSError: no lamp" in b.why("owner")
        rows = {row.name: row.state for row in b.service("owner").status().tasks}
        assert rows == {"breaks": "failed", "early": "running", "read": "running"}


async def test_all_of_it_ends_with_the_service_before_its_cleanup(owned):
    async with owned() as b:
        await b.runtime.start()
        first = Owner.made[0]
        await asyncio.sleep(6)
        assert {row.task for row in b.runtime.periodic_scheduler.statuses()} == {"of a source", "regular"}
        assert await b.service("owner").stop(10) == []
        assert sorted(first.seen[1:3]) == ["read ended", "watch ended"]
        assert first.seen[3:] == ["cleanup_host"]
        assert b.runtime.periodic_scheduler.statuses() == []
        await b.runtime.service_actions.begin_start("owner")
        await asyncio.sleep(20)
        assert len(Owner.made) == 2
        assert {row.name for row in b.service("owner").status().tasks} == {"early", "read"}
        assert "of a source" in {row.task for row in b.runtime.periodic_scheduler.statuses()}


async def test_a_drain_that_is_undone_keeps_the_added_tasks(owned):
    async with owned() as b:
        await b.runtime.start()
        service = b.service("owner")
        await service.drain(1)
        assert b.runtime.periodic_scheduler.statuses() == []
        assert {row.name for row in service.status().tasks} == {"early", "read"}, "they may serve what is under way"
        service.resume()
        await asyncio.sleep(1)
        assert {row.task for row in b.runtime.periodic_scheduler.statuses()} == {"of a source", "regular"}


async def test_a_thread_that_does_not_end_is_named_by_the_stop_and_holds_up_nobody(owned):
    gate = threading.Event()
    async with owned() as b:
        await b.runtime.start()
        Owner.made[0].tasks.spawn("deaf", lambda _stop: gate.wait(60))
        hung = await b.service("owner").stop(2)
        assert "background task deaf of owner" in hung
        assert "cleanup_host" in Owner.made[0].seen
        assert "background task deaf of owner" in b.service("owner").leftover_work()
        gate.set()
