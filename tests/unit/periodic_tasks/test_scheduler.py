"""Periodic tasks: when they run, what harms them not, and what is seen of them."""

import asyncio
import logging
import threading
import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from ostler.aio import WorkerPool
from ostler.errors import Busy, Conflict, ContractError, InvalidInput, NotFound
from ostler.messaging.wire.request_context import current_context
from ostler.periodic_tasks import periodic
from ostler.store import PeriodicRun

# private: _heap, _timer: what is left behind shows in nothing else
# private: _runner: a mistake of our own, which nobody can leave in the code for this

pytestmark = pytest.mark.virtual_time(stall_timeout=0.1)


class Diary:
    """A manager whose tasks write down when they ran."""

    def __init__(self, bench):
        self.bench = bench
        self.seen = []

    def note(self, what=""):
        self.seen.append(self.bench.now())


async def test_a_task_runs_each_spacing_beginning_one_spacing_after_the_start(bench):
    class Manager(Diary):
        @periodic(spacing=10)
        def refresh(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(35)
    assert manager.seen == [10, 20, 30]
    status = bench.status("refresh")
    assert (status.runs, status.errors, status.last_error, status.spacing) == (3, 0, "", "10s")
    assert status.last_run == pytest.approx(bench.clock.wall() - 5)
    assert status.next_run == pytest.approx(bench.clock.wall() + 5)
    assert [fact[:2] for fact in bench.ran] == [("lamp", "refresh")] * 3


async def test_sync_runs_in_the_pool_and_async_on_the_loop_each_with_its_context(bench):
    places = {}

    class Manager(Diary):
        @periodic(spacing=10)
        def sync(self, ctx):
            places["sync"] = (threading.current_thread().name, ctx.topic, ctx.method, current_context() is ctx)

        @periodic(spacing=10, name="renamed")
        async def other(self, ctx):
            places["async"] = (threading.current_thread() is threading.main_thread(), ctx.method)
            assert current_context() is ctx

    bench.add(Manager(bench))
    await asyncio.sleep(11)
    assert places["sync"] == ("lamp-1", "lamp", "sync", True)
    assert places["async"] == (True, "renamed")
    assert bench.status("renamed").runs == 1


async def test_run_at_once_runs_at_the_start(bench):
    class Manager(Diary):
        @periodic(spacing=10, run_at_once=True)
        async def refresh(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(25)
    assert manager.seen == [0, 10, 20]


async def test_the_spacing_may_be_the_name_of_an_option(bench):
    class Manager(Diary):
        @periodic(spacing="poll")
        async def refresh(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager, poll=7)
    await asyncio.sleep(15)
    assert manager.seen == [7, 14]


async def test_an_option_says_whether_a_task_runs_and_a_reload_changes_it(bench):
    class Manager(Diary):
        @periodic(spacing=10, enabled="polling")
        async def refresh(self, ctx):
            self.note()

        @periodic(spacing=10, enabled=False)
        async def never(self, ctx):
            raise AssertionError

    manager = Manager(bench)
    bench.add(manager, polling=False)
    await asyncio.sleep(35)
    assert manager.seen == []
    assert (bench.status("refresh").enabled, bench.status("refresh").next_run) == (False, 0)
    bench.apply_options(polling=True)
    await asyncio.sleep(20)
    assert manager.seen == [40, 50]
    bench.apply_options(polling=False)
    await asyncio.sleep(50)
    assert manager.seen == [40, 50]


@pytest.mark.failure_mode("Periodic", "a spacing changed by reload")
async def test_a_spacing_changed_by_reload(bench):
    class Manager(Diary):
        @periodic(spacing="poll")
        async def refresh(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager, poll=100)
    await asyncio.sleep(130)
    bench.apply_options(poll=50)
    await asyncio.sleep(100)
    assert manager.seen == [100, 150, 200], "one new spacing after the last run, and on from there"
    bench.apply_options(poll=5)
    await asyncio.sleep(0.001)
    assert manager.seen[3:] == [230], "that moment has passed: now"
    bench.apply_options(poll=86400)
    await asyncio.sleep(4000)
    assert len(manager.seen) == 4
    assert bench.status("refresh").spacing == "1d"


async def test_times_do_not_drift_and_missed_ones_are_skipped(bench):
    class Manager(Diary):
        @periodic(spacing=10)
        async def refresh(self, ctx):
            self.note()
            await asyncio.sleep(3 if len(self.seen) != 2 else 24)

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(75)
    assert manager.seen == [10, 20, 50, 60, 70]


async def raises(bench, caplog, kind, name):
    class Manager(Diary):
        broken = True

        @periodic(spacing=10, enabled="sync")
        def sync(self, ctx):
            self.work()

        @periodic(spacing=10, enabled="other")
        async def other(self, ctx):
            self.work()

        @periodic(spacing=10)
        async def neighbour(self, ctx):
            self.note()

        def work(self):
            if self.broken:
                raise kind("the lamp is out")

    manager = Manager(bench)
    bench.add(manager, sync=name == "sync", other=name == "other")
    with caplog.at_level(logging.INFO):
        await asyncio.sleep(105)
        status = bench.status(name)
        assert (status.runs, status.errors) == (10, 10)
        assert "the lamp is out" in status.last_error
        assert status.next_run > bench.clock.wall()
        assert len(manager.seen) == 10
        said = [record for record in caplog.records if "failed" in record.message]
        assert len(said) == 1, "once, not per run"
        assert bool(said[0].exc_info) is (kind is not InvalidInput), "an expected error needs no traceback"
        manager.broken = False
        await asyncio.sleep(10)
        assert bench.status(name).last_error == ""
        assert "works again" in caplog.text
        manager.broken = True
        await asyncio.sleep(10)
    assert len([record for record in caplog.records if "failed" in record.message]) == 2


@pytest.mark.failure_mode("Periodic", "one that raises")
@pytest.mark.parametrize("kind", [ValueError, InvalidInput])
@pytest.mark.parametrize("name", ["sync", "other"])
async def test_a_task_that_raises_harms_nobody_is_seen_and_is_logged_once(bench, caplog, kind, name):
    await raises(bench, caplog, kind, name)


@pytest.mark.failure_mode("Periodic", "one that raises `SystemExit`")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["sync", "other"])
async def test_a_task_that_raises_system_exit_harms_nobody_and_is_logged_once(bench, caplog, kind, name):
    await raises(bench, caplog, kind, name)


async def test_errors_that_differ_are_said_each_but_a_flood_of_them_ends(bench, caplog):
    class Manager(Diary):
        @periodic(spacing=1)
        async def refresh(self, ctx):
            self.note()
            raise OSError(f"error {len(self.seen)}")

    bench.add(Manager(bench))
    await asyncio.sleep(500.5)
    assert bench.status("refresh").errors == 500
    assert len(caplog.records) == 16


async def test_the_lateness_of_a_run_is_what_it_has_waited_for_a_thread(open_bench):
    gate = threading.Event()

    class Manager(Diary):
        @periodic(spacing=10)
        def hold(self, ctx):
            gate.wait(30)

        @periodic(spacing=13)
        def look(self, ctx):
            self.note()

    async with open_bench(size=1) as bench:
        bench.add(Manager(bench))
        await asyncio.sleep(16)
        assert bench.status("look").lateness == pytest.approx(3, abs=0.5), "due at 13, and still waiting"
        await asyncio.sleep(1)
        gate.set()
        await asyncio.sleep(1)
        assert bench.status("look").lateness == pytest.approx(4, abs=0.5), "due at 13, and begun at 17"
        assert bench.status("hold").lateness < 0.5
        await asyncio.sleep(13)
        assert bench.status("look").lateness < 0.5


async def test_a_run_that_an_operator_has_asked_for_is_not_late(bench):
    class Manager(Diary):
        @periodic(spacing=3600)
        def look(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(1000)
    bench.scheduler.run_now("lamp", "look")
    await asyncio.sleep(1)
    assert (bench.status("look").runs, bench.status("look").lateness) == (1, 0)


@pytest.mark.failure_mode("Periodic", "one slower than its spacing")
@pytest.mark.parametrize("name", ["sync", "other"])
async def test_a_task_slower_than_its_spacing_never_runs_twice_at_once(bench, caplog, name):
    gate = threading.Event()

    class Manager(Diary):
        inside = 0

        @periodic(spacing=10, enabled="sync")
        def sync(self, ctx):
            self.enter()
            gate.wait(30)
            self.inside -= 1

        @periodic(spacing=10, enabled="other")
        async def other(self, ctx):
            self.enter()
            await asyncio.sleep(35)
            self.inside -= 1

        def enter(self):
            self.note()
            self.inside += 1
            assert self.inside == 1

    manager = Manager(bench)
    bench.add(manager, sync=name == "sync", other=name == "other")
    await asyncio.sleep(44)
    assert manager.seen == [10]
    assert bench.status(name).running_since == pytest.approx(bench.clock.wall() - 34)
    assert caplog.text.count("slower than its spacing") == 1
    gate.set()
    await asyncio.sleep(8)
    assert manager.seen == [10, 50]
    assert bench.status(name).runs >= 1
    assert bench.status(name).errors == 0
    assert bench.status(name).skipped == 3, "at 20, 30 and 40"
    if name == "other":  # slow each time: that is said once, not with each run
        await asyncio.sleep(200)
        assert len(manager.seen) >= 4
        assert caplog.text.count("slower than its spacing") == 1


@pytest.mark.failure_mode("Periodic", "one that never ends")
async def test_a_task_that_never_ends_is_seen_and_its_neighbours_go_on(bench, caplog):
    gate = threading.Event()

    class Manager(Diary):
        @periodic(spacing=10)
        def endless(self, ctx):
            gate.wait(30)

        @periodic(spacing=10)
        def neighbour(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(905)
    assert len(manager.seen) >= 89
    status = bench.status("endless")
    assert (status.runs, status.errors) == (0, 0)
    assert status.running_since == pytest.approx(bench.clock.wall() - 895, abs=1)
    assert bench.scheduler.running_tasks("lamp") == ["endless"]
    gate.set()


@pytest.mark.failure_mode("Periodic", "one neighbour that blocks")
async def test_one_neighbour_that_blocks_does_not_hold_up_other_services(bench):
    gate = threading.Event()

    class Blocks(Diary):
        @periodic(spacing=10)
        def one(self, ctx):
            gate.wait(30)

        @periodic(spacing=10)
        def two(self, ctx):
            gate.wait(30)

    class Works(Diary):
        @periodic(spacing=10)
        def refresh(self, ctx):
            self.note()

    blocked = WorkerPool("blocked", 1)
    works = Works(bench)
    bench.add(Blocks(bench), service="blocked", pool=blocked)
    bench.add(works, service="works")
    await asyncio.sleep(100.5)
    assert len(works.seen) == 10
    assert bench.status("two", "blocked").runs == 0
    gate.set()
    await asyncio.sleep(30)
    assert bench.status("two", "blocked").runs >= 1
    blocked.close()


@pytest.mark.failure_mode("Periodic", "10,000 of them")
@pytest.mark.failure_mode("Periodic", "one neighbour that blocks")
async def test_no_more_tasks_are_in_the_pool_than_threads_so_that_requests_find_room(bench):
    gate = threading.Event()

    def make(number):
        @periodic(spacing=10, name=f"task{number}")
        def task(self, ctx):
            gate.wait(30)

        return task

    manager_class = type("Many", (), {f"task{number}": make(number) for number in range(50)})

    bench.add(manager_class())
    await asyncio.sleep(12)
    assert bench.pool.queued_count == 0
    assert len(bench.pool.in_flight_numbers()) == 4
    gate.set()
    await asyncio.sleep(5)
    assert all(row.runs == 1 for row in bench.scheduler.statuses())


async def test_quick_tasks_that_are_due_together_share_a_thread(bench):
    names = set()

    class Manager(Diary):
        pass

    def make(number):
        @periodic(spacing=10, name=f"task{number}")
        def task(self, ctx):
            names.add(threading.current_thread().name)
            self.note()

        return task

    for number in range(30):
        setattr(Manager, f"task{number}", make(number))

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(11)
    assert len(manager.seen) == 30
    names.clear()
    await asyncio.sleep(10)
    assert len(manager.seen) == 60
    assert len(names) == 1


async def test_a_quick_task_that_suddenly_blocks_does_not_hold_up_those_behind_it(bench):
    gate = threading.Event()

    class Manager(Diary):
        blocks = False

        @periodic(spacing=10)
        def a_first(self, ctx):
            if self.blocks:
                gate.wait(30)

        @periodic(spacing=10)
        def second(self, ctx):
            self.note()

        @periodic(spacing=10)
        def third(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(15)
    assert len(manager.seen) == 2
    manager.blocks = True
    await asyncio.sleep(5.1)
    assert len(manager.seen) == 4
    assert [row.label for row in bench.pool.running_jobs()] == ["a_first"]
    gate.set()


async def test_a_thread_leaves_periodic_work_for_requests_that_wait(open_bench):
    gate, order = threading.Event(), []

    class Manager(Diary):
        @periodic(spacing=10)
        def a_first(self, ctx):
            if self.bench.now() > 15:
                gate.wait(30)
            order.append("first")

        @periodic(spacing=10)
        def second(self, ctx):
            order.append("second")

    async with open_bench(size=1) as bench:
        bench.add(Manager(bench))
        await asyncio.sleep(20.01)
        order.clear()
        bench.pool.submit(lambda: order.append("request"), lambda *_: None, label="request")
        gate.set()
        await asyncio.sleep(1)
        assert order == ["first", "request", "second"]


async def test_a_pool_that_is_closed_under_a_waiting_run_is_seen(open_bench):
    gate = threading.Event()

    class Manager(Diary):
        @periodic(spacing=10)
        def refresh(self, ctx):
            self.note()

    async with open_bench(size=1) as bench:
        manager = Manager(bench)
        bench.pool.submit(lambda: gate.wait(30), lambda *_: None, label="request")
        bench.add(manager)
        await asyncio.sleep(11)
        bench.pool.close()
        await asyncio.sleep(1)
        assert "stopped before refresh had started" in bench.status("refresh").last_error
        await asyncio.sleep(10)
        assert "accepts no new work" in bench.status("refresh").last_error
        gate.set()


async def test_a_full_pool_skips_the_run_and_is_seen(caplog, open_bench):
    gate = threading.Event()

    class Manager(Diary):
        @periodic(spacing=10)
        def refresh(self, ctx):
            self.note()

    async with open_bench(size=1, queue_limit=1) as bench:
        manager = Manager(bench)
        for _ in range(2):
            bench.pool.submit(lambda: gate.wait(30), lambda *_: None, label="request")
            await asyncio.sleep(0.01)
        bench.add(manager)
        await asyncio.sleep(25)
        status = bench.status("refresh")
        assert (status.runs, status.errors) == (0, 2)
        assert status.last_error.startswith("skipped: the queue of lamp is full")
        assert caplog.text.count("skipped") == 1
        with pytest.raises(Busy):
            bench.scheduler.run_now("lamp", "refresh")
        gate.set()
        await asyncio.sleep(20)
        assert len(manager.seen) == 2


@pytest.mark.failure_mode("Periodic", "10,000 of them")
async def test_ten_thousand_tasks_all_run_on_time(bench):
    def make(number):
        @periodic(spacing=60, jitter=1.0, name=f"task{number:05}")
        async def task(self, ctx):
            self.seen.append(number)

        return task

    manager_class = type("Many", (Diary,), {f"task{number}": make(number) for number in range(10_000)})

    manager = manager_class(bench)
    bench.add(manager)
    await asyncio.sleep(60 * 4)
    assert 20_000 <= len(manager.seen) <= 30_010  # some of the last round begin a few milliseconds early
    assert set(manager.seen) == set(range(10_000))
    assert len(bench.scheduler._heap) == 10_000


@pytest.mark.failure_mode("Periodic", "10,000 of them")
async def test_ten_thousand_tasks_begin_within_twenty_milliseconds_of_their_time(bench):
    starts = {}

    def make(number):
        @periodic(spacing=60, name=f"task{number}")
        async def task(self, ctx):
            starts.setdefault(number, []).append(bench.clock.wall())

        return task

    wall = bench.clock.wall()
    ran = {number: wall - 60 * number / 10_000 for number in range(10_000)}
    bench.scheduler.restore([PeriodicRun("lamp", f"task{number}", 1, last_run=at) for number, at in ran.items()])
    bench.add(type("Many", (), {f"task{number}": make(number) for number in ran})())
    await asyncio.sleep(60 * 4.5)
    off = [abs(at - ran[number] - 60 * (turn + 1)) for number, each in starts.items() for turn, at in enumerate(each)]
    assert len(off) >= 40_000
    assert max(off) <= 0.02, "also in the fourth round"


@pytest.mark.failure_mode("Periodic", "10,000 of them")
async def test_ten_thousand_tasks_of_one_moment_all_run_in_the_pool(bench):
    class Manager(Diary):
        pass

    def make(number):
        @periodic(spacing=60, name=f"task{number:05}")
        def task(self, ctx):
            self.seen.append(number)

        return task

    for number in range(10_000):
        setattr(Manager, f"task{number}", make(number))

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(90)
    assert sorted(manager.seen) == list(range(10_000))
    assert all(row.errors == 0 for row in bench.scheduler.statuses())


async def test_jitter_spreads_runs_and_never_adds_up(bench):
    class Manager(Diary):
        @periodic(spacing=100, jitter=0.5)
        async def refresh(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(10_055)
    late = [moment - 100 * (number + 1) for number, moment in enumerate(manager.seen)]
    assert len(late) == 100
    assert all(0 <= each <= 50 for each in late)
    assert len({round(each) for each in late}) > 20


async def test_a_paused_task_waits_for_its_regular_time_after_it_is_resumed(bench):
    class Manager(Diary):
        @periodic(spacing=10)
        async def refresh(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(15)
    bench.scheduler.pause("lamp", "refresh")
    bench.scheduler.pause("lamp", "refresh")
    await asyncio.sleep(30)
    assert manager.seen == [10]
    assert (bench.status("refresh").paused, bench.status("refresh").next_run) == (True, 0)
    bench.scheduler.run_now("lamp", "refresh")
    await asyncio.sleep(1)
    assert manager.seen == [10, 45], "by hand it may run all the same"
    bench.scheduler.resume("lamp", "refresh")
    await asyncio.sleep(20)
    assert manager.seen == [10, 45, 50, 60]


async def test_run_now_leaves_the_regular_times_as_they_are(bench):
    class Manager(Diary):
        @periodic(spacing=10)
        async def refresh(self, ctx):
            self.note()
            await asyncio.sleep(1)

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(5)
    bench.scheduler.run_now("lamp", "refresh")
    with pytest.raises(Conflict, match="already running"):
        bench.scheduler.run_now("lamp", "refresh")
    await asyncio.sleep(16)
    assert manager.seen == [5, 10, 20]
    with pytest.raises(NotFound, match="periodic task polish of service lamp not found"):
        bench.scheduler.run_now("lamp", "polish")
    with pytest.raises(NotFound):
        bench.scheduler.pause("torch", "refresh")


async def test_after_remove_nothing_runs_and_nothing_is_kept(bench):
    class Manager(Diary):
        @periodic(spacing=10)
        def refresh(self, ctx):
            self.note()

        @periodic(spacing=86400)
        def daily(self, ctx): ...

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(15)
    bench.scheduler.remove("lamp")
    bench.scheduler.remove("lamp")
    await asyncio.sleep(100)
    assert manager.seen == [10]
    assert bench.scheduler.statuses() == []
    assert bench.scheduler._heap == []
    assert bench.scheduler._timer is None


async def test_a_run_that_ends_after_remove_frees_its_thread_and_is_recorded(bench):
    gate = threading.Event()

    class Manager(Diary):
        @periodic(spacing=10)
        def refresh(self, ctx):
            gate.wait(30)

    bench.add(Manager(bench))
    await asyncio.sleep(11)
    bench.scheduler.remove("lamp")
    bench.scheduler.pop_changed_runs()
    gate.set()
    await asyncio.sleep(1)
    assert [run.runs for run in bench.scheduler.pop_changed_runs()] == [1]


async def test_a_service_that_is_started_again_goes_on_counting(bench):
    class Manager(Diary):
        @periodic(spacing=10)
        async def refresh(self, ctx): ...

    bench.add(Manager(bench))
    await asyncio.sleep(25)
    bench.scheduler.remove("lamp")
    bench.add(Manager(bench))
    assert bench.status("refresh").runs == 2


async def test_records_of_runs_are_handed_out_once_and_taken_back_after_a_restart(bench):
    class Manager(Diary):
        @periodic(spacing=1000)
        async def refresh(self, ctx):
            self.note()

    manager = Manager(bench)
    before = PeriodicRun("lamp", "refresh", 5, 1, bench.clock.wall() - 990, 2.5, "")
    future = PeriodicRun("torch", "refresh", 5, 1, bench.clock.wall() + 10_000, 2.5, "")
    bench.scheduler.restore([before, future])
    bench.add(manager)
    bench.add(Manager(bench), service="torch")
    assert bench.status("refresh").runs == 5
    assert bench.status("refresh", "torch").next_run == pytest.approx(bench.clock.wall() + 1000)
    await asyncio.sleep(20)
    assert manager.seen == [10], "a spacing after the last run, which was before the restart"
    (record,) = bench.scheduler.pop_changed_runs()
    assert (record.service, record.task, record.runs, record.errors) == ("lamp", "refresh", 6, 1)
    assert bench.scheduler.pop_changed_runs() == []


async def test_cron_runs_at_its_times_in_local_time(bench, monkeypatch):
    in_zone(monkeypatch, "UTC")

    class Manager(Diary):
        @periodic(cron="*/15 * * * *")
        async def quarter(self, ctx):
            self.seen.append(self.bench.clock.wall())

    manager = Manager(bench)
    bench.clock.set_wall(1_800_000_000.0)  # 08:00:00 UTC
    bench.add(manager)
    assert bench.status("quarter").spacing == "*/15 * * * *"
    assert bench.status("quarter").next_run == 1_800_000_900.0
    await asyncio.sleep(3605)
    assert [round(moment - 1_800_000_000) for moment in manager.seen] == [900, 1800, 2700, 3600]


async def test_cron_follows_a_wall_clock_that_is_set(bench):
    class Manager(Diary):
        @periodic(cron="0 * * * *")
        async def hourly(self, ctx):
            self.seen.append(round(self.bench.clock.wall()) % 3600)

    manager = Manager(bench)
    bench.clock.set_wall(1_800_000_000.0)
    bench.add(manager)
    await asyncio.sleep(600)
    bench.clock.set_wall(1_800_000_000.0 + 3590)
    await asyncio.sleep(70)
    assert len(manager.seen) == 1, "found within a minute"
    bench.clock.set_wall(1_800_000_000.0 - 1800)
    await asyncio.sleep(1900)
    assert len(manager.seen) == 2, "set back by an hour: the hour comes again"
    bench.clock.set_wall(bench.clock.wall() - 2)
    await asyncio.sleep(60)
    assert len(manager.seen) == 2, "slewed by NTP: once is enough"


def in_zone(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()


class Nightly(Diary):
    @periodic(cron="30 2 * * *")
    async def backup(self, ctx):
        self.seen.append(round(self.bench.clock.wall()))


async def test_a_start_in_the_second_pass_of_an_hour_that_comes_twice(bench, monkeypatch):
    in_zone(monkeypatch, "Europe/Berlin")

    manager = Nightly(bench)
    second_pass = 1_792_890_620.0  # 25 October 2026, 02:10:20 CET
    bench.clock.set_wall(second_pass)
    bench.add(manager)
    assert bench.status("backup").next_run == second_pass + 86400 + 1200 - 20
    bench.scheduler.pause("lamp", "backup")
    bench.scheduler.resume("lamp", "backup")
    await asyncio.sleep(86400)
    assert manager.seen == []
    await asyncio.sleep(1300)
    assert len(manager.seen) == 1


async def test_a_nightly_task_follows_a_zone_that_changes_under_it(bench, monkeypatch):
    in_zone(monkeypatch, "UTC")

    manager = Nightly(bench)
    begin = 1_792_792_800.0  # 23 October 2026, 22:00 UTC: the next morning on Lord Howe
    bench.clock.set_wall(begin)
    bench.add(manager)
    assert bench.status("backup").next_run == begin + 4.5 * 3600
    in_zone(monkeypatch, "Australia/Lord_Howe")
    await asyncio.sleep(70)
    lord_howe = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Australia/Lord_Howe")).timestamp()
    assert bench.status("backup").next_run == lord_howe
    await asyncio.sleep(lord_howe - bench.clock.wall() + 70)
    assert manager.seen == [round(lord_howe)]


async def test_a_nightly_task_does_not_run_again_when_the_clock_is_set_back_by_an_hour(bench, monkeypatch):
    in_zone(monkeypatch, "Europe/Berlin")

    manager = Nightly(bench)
    bench.clock.set_wall(1_792_801_500.0)  # 24 October 2026, 02:25
    bench.add(manager)
    await asyncio.sleep(900)
    assert len(manager.seen) == 1
    bench.clock.set_wall(bench.clock.wall() - 3600)
    await asyncio.sleep(7200)
    assert len(manager.seen) == 1
    bench.clock.set_wall(bench.clock.wall() + 366 * 86400)
    await asyncio.sleep(120)
    assert len(manager.seen) == 2, "set ahead: once for all that was passed over"
    bench.clock.set_wall(bench.clock.wall() - 366 * 86400)
    await asyncio.sleep(86400)
    assert len(manager.seen) == 3, "and the way back"


async def test_a_task_whose_next_time_is_not_later_is_put_off_and_said_once(bench, caplog):
    class Manager(Diary):
        @periodic(spacing=1e-300)
        async def wrong(self, ctx): ...

        @periodic(spacing=1e-12)
        async def never_later(self, ctx): ...

        @periodic(spacing=10)
        async def neighbour(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(605)
    assert len(manager.seen) == 60
    for task in ("wrong", "never_later"):
        assert caplog.text.count(f"{task} of lamp") == 1
        assert 0 < bench.status(task).next_run - bench.clock.wall() <= 60


async def test_a_clock_at_the_end_of_all_calendars_stops_no_other_task(bench, caplog):
    class Manager(Nightly):
        @periodic(spacing=10)
        async def neighbour(self, ctx): ...

    manager = Manager(bench)
    bench.add(manager)
    bench.clock.set_wall(253_402_300_000.0 - 120)  # the last minutes of the year 9999
    await asyncio.sleep(305)
    assert bench.status("neighbour").runs == 30
    assert caplog.text.count("backup of lamp (30 2 * * *) is postponed") == 1
    bench.clock.set_wall(1_792_801_500.0)
    await asyncio.sleep(120)
    assert 0 < bench.status("backup").next_run - bench.clock.wall() <= 86400


@pytest.mark.parametrize(
    ("marks", "options", "said"),
    [
        ({"spacing": "poll"}, {}, "its spacing is the option 'poll', which the service does not have"),
        ({"spacing": "poll"}, {"poll": "often"}, "its spacing is 'often'"),
        ({"spacing": 0}, {}, "its spacing is 0, it must be a number of seconds above 0"),
        ({"enabled": "polling"}, {}, "its switch is the option 'polling'"),
        ({"jitter": 1.5}, {}, "its jitter is 1.5"),
        ({"cron": "* * *"}, {}, "its cron expression '* * *' is not valid"),
        ({"cron": "0 0 30 2 *"}, {}, "is not valid: Bad day-of-month"),
    ],
)
async def test_a_task_that_cannot_be_planned_is_refused_by_name(bench, marks, options, said):
    class Manager:
        @periodic(**marks)
        def refresh(self, ctx): ...

    with pytest.raises(ContractError, match="the periodic task refresh of lamp cannot run") as refused:
        bench.add(Manager(), **options)
    assert said in refused.value.message
    assert bench.scheduler.statuses() == []


async def test_two_tasks_of_one_name_are_refused(bench):
    class Manager:
        @periodic(name="same")
        def one(self, ctx): ...

        @periodic(name="same")
        def two(self, ctx): ...

    with pytest.raises(ContractError, match="two periodic tasks of lamp have the name same"):
        bench.add(Manager())


async def test_an_override_without_a_mark_of_its_own_keeps_the_mark(bench):
    class Base(Diary):
        @periodic(spacing=10)
        async def refresh(self, ctx):
            raise AssertionError

    class Manager(Base):
        async def refresh(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(15)
    assert manager.seen == [10]


async def test_a_def_that_returns_a_coroutine_is_an_error_that_says_so(bench):
    class Manager(Diary):
        @periodic(spacing=10)
        def refresh(self, ctx):
            return self.work()

        async def work(self): ...

    bench.add(Manager(bench))
    await asyncio.sleep(15)
    assert "make it `async def`" in bench.status("refresh").last_error


@pytest.mark.failure_mode("Periodic", "one that raises")
@pytest.mark.failure_mode("Periodic", "one that never ends")
async def test_a_task_that_always_fails_or_hangs_is_told_as_trouble(bench):
    gate = asyncio.Event()

    class Manager(Diary):
        @periodic(spacing=10)
        async def fails(self, ctx):
            raise OSError("no lamp")

        @periodic(spacing=10)
        async def hangs(self, ctx):
            await gate.wait()

    bench.add(Manager(bench))
    assert bench.scheduler.problems() == []
    await asyncio.sleep(35)
    failing, hanging = [problem.text for problem in bench.scheduler.problems()]
    assert "periodic task fails of " in failing
    assert "3 errors in 3 runs: OSError: no lamp" in failing
    assert "periodic task hangs of " in hanging
    assert "is slower than its spacing (10s): it has been running for 25s now" in hanging
    gate.set()


@pytest.mark.failure_mode("Machine", "no memory for a thread")
async def test_a_task_that_cannot_be_begun_does_not_stop_the_others(bench, caplog):
    class Manager(Diary):
        @periodic(spacing=10)
        async def first(self, ctx):
            raise AssertionError("it cannot be begun")

        @periodic(spacing=10)
        async def second(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    begin = bench.scheduler._runner.start_due

    def due(task, group):
        if task.name == "first":
            raise LookupError("a mistake of ours, whatever it is")
        begin(task, group)

    bench.scheduler._runner.start_due = due
    await asyncio.sleep(95)
    assert manager.seen == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert caplog.text.count("periodic task first of lamp could not be started") == 1


async def test_a_task_that_waits_for_a_thread_says_so_and_not_for_how_long_it_runs(bench):
    gate = threading.Event()

    class Manager(Diary):
        @periodic(spacing=10)
        def looks(self, ctx):
            self.note()

    busy = WorkerPool("busy", 1)
    busy.submit(lambda: gate.wait(30), lambda *_: None, label="long work")
    bench.add(Manager(bench), service="busy", pool=busy)
    await asyncio.sleep(35)
    (waiting,) = bench.scheduler.problems()
    assert waiting.text == (
        "periodic task looks of busy has been waiting for a thread of its service for longer than its spacing (10s)"
    )
    gate.set()
    busy.close()
