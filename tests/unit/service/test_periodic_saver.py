"""What is stored of periodic tasks, when, and what a database that cannot be written does to it."""

import asyncio

import pytest

from ostler.aio import TaskOwner, WorkerPool
from ostler.errors import NotFound, StoreUnavailable
from ostler.periodic_tasks import periodic
from ostler.service.periodic_saver import PeriodicSaver
from ostler.store import PeriodicRecords, Store
from ostler.testing.virtual_time import virtual_clock
from support.async_tests import loop_fixture

pytestmark = pytest.mark.virtual_time


class Records(PeriodicRecords):
    """Records that can be refused, and count how often they are written."""

    error = None

    def __init__(self, store, host):
        super().__init__(store, host)
        self.saved, self.histories = [], []

    def save(self, runs):
        self._meet()
        self.saved.append([run.task for run in runs])
        super().save(runs)

    def add_history(self, runs):
        self._meet()
        self.histories.append(len(runs))
        super().add_history(runs)

    def _meet(self):
        if self.error is not None:
            raise self.error


class Bench:
    """A saver with a scheduler in virtual time, and a real database."""

    def __init__(self, path):
        self.clock = virtual_clock()
        loop = asyncio.get_running_loop()
        self.store = Store.open(path / "ostler.db", clock=self.clock, synchronous="NORMAL")
        loop.watch(lambda: ["store"] if self.store.current_job() or self.store.stats()["queued"] else [])
        self.records = Records(self.store, "node1")
        self.owner = TaskOwner("services")
        self.saver = PeriodicSaver(self.store, self.records, self.clock, self.owner)
        self.scheduler = self.saver.scheduler
        self.pool = WorkerPool("lamp", 2)

    def add(self, manager):
        self.scheduler.add("lamp", manager, self.pool, None)

    def run(self):
        self.owner.supervise(self.saver.run, name="store periodic runs")

    async def close(self):
        await self.owner.cancel()
        self.pool.close()
        self.store.close()


@loop_fixture
async def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    await made.close()


class EachSecond:
    @periodic(spacing=1)
    async def refresh(self, ctx): ...


async def test_a_task_of_each_second_is_written_each_half_minute(bench):
    bench.add(EachSecond())
    bench.run()
    await asyncio.sleep(605)
    assert 18 <= len(bench.records.saved) <= 21
    assert bench.records.histories == [1, 1]
    found = await bench.saver.history("lamp", "refresh")
    assert found.task.runs >= 600
    assert len(found.runs) == 20
    assert found.runs[-1].started == pytest.approx(bench.clock.wall(), abs=2)


async def test_a_run_that_must_not_come_twice_is_written_within_seconds(bench, monkeypatch):
    class Manager:
        @periodic(cron="*/2 * * * * *", missed="run once")
        async def often(self, ctx): ...

    bench.add(Manager())
    bench.run()
    await asyncio.sleep(60)
    (record,) = await bench.store.aread(bench.records.list)
    assert bench.clock.wall() - record.last_due <= 6
    assert len(bench.records.saved) <= 12, "no more often than each five seconds"


async def test_a_pause_is_stored_when_it_is_acknowledged_and_holds_over_a_restart(bench):
    bench.add(EachSecond())
    status = await bench.saver.pause("lamp", "refresh", "root", "the array moves")
    assert (status.paused, status.paused_by, status.pause_reason, status.unsaved) == (
        True, "root", "the array moves", "",
    )  # fmt: skip
    (record,) = await bench.store.aread(bench.records.list)
    assert (record.paused_by, record.pause_reason) == ("root", "the array moves")
    other = PeriodicSaver(bench.store, bench.records, bench.clock, bench.owner)
    await other.restore()
    other.scheduler.add("lamp", EachSecond(), bench.pool, None)
    assert other.scheduler.status("lamp", "refresh").pause_reason == "the array moves"
    status = await bench.saver.resume("lamp", "refresh")
    assert (status.paused, status.unsaved) == (False, "")
    (record,) = await bench.store.aread(bench.records.list)
    assert record.paused_at == 0


async def test_a_pause_while_the_database_cannot_be_written_holds_and_is_stored_later(bench):
    bench.add(EachSecond())
    bench.run()
    bench.records.error = StoreUnavailable("the disk is full")
    status = await bench.saver.pause("lamp", "refresh", "root", "")
    assert status.paused
    assert "the disk is full" in status.unsaved
    await asyncio.sleep(400)
    assert bench.scheduler.status("lamp", "refresh").runs == 0
    bench.records.error = None
    await asyncio.sleep(40)
    (record,) = await bench.store.aread(bench.records.list)
    assert record.paused_by == "root"


async def test_history_that_could_not_be_written_is_written_later(bench):
    bench.add(EachSecond())
    bench.run()
    bench.records.error = StoreUnavailable("the disk is full")
    await asyncio.sleep(310)
    assert len((await bench.saver.history("lamp", "refresh")).runs) == 20
    bench.records.error = None
    await bench.saver.save()
    assert bench.records.histories == [1]
    assert len(await bench.store.aread(lambda: bench.records.history("lamp", "refresh"))) == 20


async def test_the_history_of_many_tasks_is_written_in_batches(bench):
    def noop(_self, _ctx): ...

    class Manager: ...

    for number in range(450):
        setattr(Manager, f"task{number}", periodic(spacing=10, name=f"task{number}")(lambda _self, _ctx: None))
    bench.add(Manager())
    await asyncio.sleep(15)
    await bench.saver.save()
    assert bench.records.histories == [200, 200, 50]


async def test_an_unknown_task_is_refused_by_name(bench):
    bench.add(EachSecond())
    for work in (
        bench.saver.pause("lamp", "wrong", "root", ""),
        bench.saver.resume("torch", "refresh"),
        bench.saver.history("lamp", "wrong"),
    ):
        with pytest.raises(NotFound, match="periodic task"):
            await work
