"""Periodic tasks that a manager adds and removes while it runs."""

import asyncio
import functools
import logging
import threading
from types import SimpleNamespace

import pytest

from ostler.errors import Conflict, ContractError, InvalidInput
from ostler.periodic_tasks import periodic
from ostler.periodic_tasks.added_tasks import AddedTasks

# private: _restored_runs: what is left behind shows in nothing else

pytestmark = pytest.mark.virtual_time(stall_timeout=0.1)


class Sources:
    """A manager of configured sources, each with a task of its own."""

    def __init__(self, bench, **options):
        self.bench = bench
        self.options = SimpleNamespace(**options)
        self.seen = []
        loop = asyncio.get_running_loop()
        self.periodic = AddedTasks(
            "lamp",
            lambda: self.options,
            frozenset({"refresh"}),
            lambda: loop.call_soon_threadsafe(bench.scheduler.sync_added, "lamp"),
            limit=5,
        )

    def start(self):
        self.bench.scheduler.add("lamp", self, self.bench.pool, self.options, self.periodic)

    @periodic(spacing=1000)
    async def refresh(self, ctx): ...

    async def poll(self, source, ctx):
        self.seen.append((source, self.bench.now()))

    def read(self, ctx):
        self.seen.append((ctx.method, self.bench.now()))


def names(bench):
    return [row.task for row in bench.scheduler.statuses()]


async def test_tasks_are_added_before_and_after_the_start_from_any_thread(bench):
    manager = Sources(bench)
    manager.periodic.add("early", functools.partial(manager.poll, "a"), spacing=10)
    assert names(bench) == []
    manager.start()
    assert names(bench) == ["early", "refresh"]
    await asyncio.to_thread(manager.periodic.add, "late", manager.read, spacing=20, run_at_once=True)
    await asyncio.sleep(25)
    assert sorted(manager.seen) == [("a", 10), ("a", 20), ("late", 0), ("late", 20)]
    assert [row.added for row in bench.scheduler.statuses()] == [True, True, False]


async def test_a_task_is_removed_by_its_handle_or_its_name_and_does_not_run_again(bench):
    manager = Sources(bench)
    manager.start()
    one = manager.periodic.add("one", functools.partial(manager.poll, "a"), spacing=10)
    manager.periodic.add("two", functools.partial(manager.poll, "b"), spacing=10)
    await asyncio.sleep(15)
    assert one.remove() is True
    assert manager.periodic.remove("two") is True
    assert (one.remove(), manager.periodic.remove("two"), manager.periodic.names()) == (False, False, [])
    await asyncio.sleep(50)
    assert names(bench) == ["refresh"]
    assert len(manager.seen) == 2


async def test_a_handle_of_an_earlier_task_does_not_remove_the_one_that_replaced_it(bench):
    manager = Sources(bench)
    manager.start()
    first = manager.periodic.add("one", manager.read, spacing=10)
    first.remove()
    manager.periodic.add("one", manager.read, spacing=5)
    assert first.remove() is False
    await asyncio.sleep(11)
    assert manager.seen == [("one", 5), ("one", 10)]


async def test_a_task_that_is_added_again_goes_on_counting_and_never_runs_twice_at_once(bench):
    manager, gate = Sources(bench), threading.Event()
    seen = []

    def slow(ctx):
        seen.append(("begin", bench.now()))
        gate.wait(30)
        seen.append(("end", ctx.cancelled))

    manager.start()
    manager.periodic.add("one", slow, spacing=10)
    await asyncio.sleep(15)
    manager.periodic.remove("one")
    await asyncio.sleep(1)
    manager.periodic.add("one", slow, spacing=10)
    await asyncio.sleep(25)
    assert seen == [("begin", 10)], "the run of the removed task has not ended"
    assert bench.scheduler.running_tasks("lamp") == ["one"]
    gate.set()
    await asyncio.sleep(15)
    assert seen[1] == ("end", True), "it was cancelled by its context"
    assert [what for what, _ in seen[:4]] == ["begin", "end", "begin", "end"]
    assert bench.status("one").runs >= 1


async def test_options_that_a_task_names_are_read_again_at_a_reload(bench):
    manager = Sources(bench, pace=10)
    manager.start()
    manager.periodic.add("one", manager.read, spacing="pace")
    await asyncio.sleep(12)
    manager.options = SimpleNamespace(pace=3)
    bench.apply_options(pace=3)
    await asyncio.sleep(5)
    assert bench.status("one").spacing == "3s"
    assert [moment for _, moment in manager.seen] == [10, 13, 16]


async def test_tasks_stay_when_a_drain_is_undone_and_end_with_the_service(bench):
    manager = Sources(bench)
    manager.start()
    manager.periodic.add("one", manager.read, spacing=10)
    await asyncio.sleep(1)
    bench.scheduler.remove("lamp")
    assert names(bench) == []
    manager.start()
    assert names(bench) == ["one", "refresh"]
    manager.periodic.close()
    bench.scheduler.remove("lamp")
    with pytest.raises(Conflict, match="service lamp is being stopped: two was not added"):
        manager.periodic.add("two", manager.read)
    manager.start()
    assert names(bench) == ["refresh"]


async def test_what_cannot_run_is_refused_where_it_is_added(bench):
    manager = Sources(bench)
    manager.start()

    def gives(ctx):
        yield 1

    for name, function, settings, error, said in (
        ("", manager.read, {}, InvalidInput, "not a valid name"),
        ("a\nb", manager.read, {}, InvalidInput, "not a valid name"),
        ("x" * 300, manager.read, {}, InvalidInput, "limit"),
        ("one", manager.read, {"spacing": "pace"}, ContractError, "option 'pace', which the service does not have"),
        ("one", manager.read, {"spacing": []}, ContractError, "spacing"),
        ("one", manager.read, {"cron": "x y"}, ContractError, "not valid"),
        ("one", lambda: None, {}, ContractError, "must take one argument"),
        ("one", gives, {}, ContractError, "generator"),
        ("refresh", manager.read, {}, Conflict, "has a periodic task refresh already"),
    ):
        with pytest.raises(error, match=said):
            manager.periodic.add(name, function, **settings)
    assert manager.periodic.names() == []


async def test_the_number_of_tasks_is_bounded_and_names_that_come_and_go_leave_nothing(bench):
    manager = Sources(bench)
    manager.start()
    for number in range(5):
        manager.periodic.add(f"task{number}", manager.read)
    with pytest.raises(Conflict, match="has added 5 periodic tasks, the most there may be"):
        manager.periodic.add("one more", manager.read)
    for number in range(5):
        manager.periodic.remove(f"task{number}")
    await asyncio.sleep(1)
    manager.periodic.add("one more", manager.read)
    await asyncio.sleep(1)
    assert names(bench) == ["one more", "refresh"]
    assert len(bench.scheduler._restored_runs) <= 5


async def test_a_task_whose_option_is_gone_at_the_start_is_named_and_the_others_run(bench, caplog):
    caplog.set_level(logging.ERROR)
    manager = Sources(bench, pace=10)
    manager.periodic.add("one", manager.read, spacing="pace")
    manager.periodic.add("two", manager.read, spacing=10)
    manager.options = SimpleNamespace()
    manager.start()
    assert names(bench) == ["refresh", "two"]
    assert "the periodic task one of lamp cannot run" in caplog.text
