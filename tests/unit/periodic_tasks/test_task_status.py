"""What is seen of tasks that fail, are slow or hang, and their history."""

import asyncio
import threading

import pytest

from ostler.errors import Busy
from ostler.periodic_tasks import periodic
from ostler.store.records.periodic_records import KEPT_FAILURES, KEPT_RUNS

pytestmark = pytest.mark.virtual_time(stall_timeout=0.1)


@pytest.mark.failure_mode("Periodic", "one that raises")
async def test_a_task_whose_last_three_runs_failed_is_failing_until_it_works_again(bench):
    answers = [OSError("no lamp")] * 4 + [None] * 9

    class Manager:
        @periodic(spacing=10)
        async def refresh(self, ctx):
            if (answer := answers.pop(0)) is not None:
                raise answer

    bench.add(Manager())
    await asyncio.sleep(25)
    assert bench.scheduler.unhealthy_tasks("lamp") == {}, "two failures are none of the service"
    assert len(bench.scheduler.problems()) == 1
    await asyncio.sleep(10)
    first = bench.scheduler.unhealthy_tasks("lamp")["refresh"]
    assert first.kind == "failing"
    assert "periodic task refresh of lamp failed 3 times in a row or more often: OSError: no lamp" in first.text
    await asyncio.sleep(10)
    assert bench.scheduler.unhealthy_tasks("lamp")["refresh"] == first, "the same sentence, which is no news"
    assert (bench.status("refresh").health, bench.status("refresh").failures) == ("failing", 4)
    await asyncio.sleep(10)
    assert bench.scheduler.unhealthy_tasks("lamp") == {}
    assert (bench.status("refresh").health, bench.status("refresh").failures) == ("", 0)


@pytest.mark.failure_mode("Periodic", "one slower than its spacing")
async def test_a_slow_task_is_seen_while_it_runs_and_after_it_until_it_is_in_time(bench):
    seconds = [15, 15, 1, 1, 1]

    class Manager:
        @periodic(spacing=10)
        async def copy(self, ctx):
            await asyncio.sleep(seconds.pop(0))

    bench.add(Manager())
    await asyncio.sleep(22)
    health = bench.scheduler.unhealthy_tasks("lamp")["copy"]
    assert health == ("slow", "periodic task copy of lamp is slower than its spacing (10s)")
    assert bench.scheduler.problems()[0].text == f"{health.text}: it has been running for 12s now"
    await asyncio.sleep(5)
    assert bench.scheduler.unhealthy_tasks("lamp")["copy"] == health, "the same sentence, which is no news"
    assert bench.scheduler.problems()[0].text == f"{health.text}: its last run took 15s"
    await asyncio.sleep(30)
    assert bench.scheduler.unhealthy_tasks("lamp") == {}


async def test_a_task_that_fails_and_was_late_once_is_failing_and_no_longer_slow(bench):
    seconds = [25, 1, 1, 1, 1, 1]

    class Manager:
        @periodic(spacing=10)
        async def copy(self, ctx):
            await asyncio.sleep(seconds.pop(0))
            raise OSError("no lamp")

    bench.add(Manager())
    await asyncio.sleep(38)
    assert bench.scheduler.unhealthy_tasks("lamp")["copy"].kind == "slow"
    await asyncio.sleep(4)
    assert bench.scheduler.unhealthy_tasks("lamp") == {}, "a run was in time, and two failed"
    await asyncio.sleep(10)
    assert bench.scheduler.unhealthy_tasks("lamp")["copy"].kind == "failing"


@pytest.mark.failure_mode("Periodic", "one that never ends")
@pytest.mark.parametrize("kind", ["thread", "loop"])
async def test_a_task_beyond_its_time_limit_is_hung_and_its_context_has_that_deadline(bench, kind):
    gate, left, quick = threading.Event(), [], []

    class OnLoop:
        @periodic(spacing=1000, run_at_once=True, time_limit="limit")
        async def copy(self, ctx):
            left.append(ctx.remaining())
            await asyncio.sleep(1 if quick else 500)

    class InThread:
        @periodic(spacing=1000, run_at_once=True, time_limit="limit")
        def copy(self, ctx):
            left.append(ctx.remaining())
            gate.wait(30)

    bench.add(OnLoop() if kind == "loop" else InThread(), limit=60)
    await asyncio.sleep(50)
    assert left == [pytest.approx(60)]
    assert bench.scheduler.unhealthy_tasks("lamp") == {}
    await asyncio.sleep(20)
    health = bench.scheduler.unhealthy_tasks("lamp")["copy"]
    assert health == ("hung", "periodic task copy of lamp exceeds its limit (1min)")
    assert bench.status("copy").health == "hung"
    gate.set()
    await asyncio.sleep(500)
    after = bench.scheduler.unhealthy_tasks("lamp")["copy"]
    assert after == ("slow", health.text), "until a run is in time"
    quick.append(True)
    await asyncio.sleep(500)
    assert bench.scheduler.unhealthy_tasks("lamp") == {}


async def test_a_paused_or_disabled_task_is_no_problem_of_its_service(bench):
    class Manager:
        @periodic(spacing=10)
        async def refresh(self, ctx):
            raise OSError("no lamp")

    bench.add(Manager())
    await asyncio.sleep(45)
    assert bench.scheduler.unhealthy_tasks("lamp")
    bench.scheduler.pause("lamp", "refresh")
    assert bench.scheduler.unhealthy_tasks("lamp") == {}
    assert bench.scheduler.problems() == []
    assert bench.scheduler.unhealthy_tasks("torch") == {}


async def test_the_history_is_handed_out_once_and_can_be_put_back(bench):
    class Manager:
        count = 0

        @periodic(spacing=10)
        async def refresh(self, ctx):
            self.count += 1
            if self.count % 2:
                raise OSError("no lamp" * 100)

    bench.add(Manager())
    await asyncio.sleep(25)
    shown = bench.scheduler.unsaved_history("lamp", "refresh")
    assert [(round(run.seconds), bool(run.error)) for run in shown] == [(0, True), (0, False)]
    assert len(shown[0].error) < 400
    runs = bench.scheduler.pop_history()
    assert list(runs) == [("lamp", "refresh")]
    assert bench.scheduler.pop_history() == {}
    await asyncio.sleep(10)
    bench.scheduler.put_back_history(runs)
    again = bench.scheduler.pop_history()["lamp", "refresh"]
    assert again[:2] == runs["lamp", "refresh"]
    assert len(again) == 3


async def test_the_history_in_memory_is_bounded(bench):
    class Manager:
        @periodic(spacing=1)
        async def refresh(self, ctx):
            raise OSError("no lamp")

    bench.add(Manager())
    await asyncio.sleep(1000)
    assert len(bench.scheduler.unsaved_history("lamp", "refresh")) <= 2 * (KEPT_RUNS + KEPT_FAILURES)


async def test_a_run_that_was_skipped_is_in_the_history(open_bench):
    async with open_bench(size=1) as bench:

        class Manager:
            @periodic(spacing=10)
            def refresh(self, ctx): ...

        def refuse(*_args, **_options):
            raise Busy("the queue is full")

        bench.pool.submit = refuse
        bench.add(Manager())
        await asyncio.sleep(15)
        (run,) = bench.scheduler.unsaved_history("lamp", "refresh")
        assert run.error.startswith("skipped: ")
        assert run.started > 0


async def test_records_that_could_not_be_stored_come_again_unless_there_are_newer_ones(bench):
    class Manager:
        @periodic(spacing=10)
        async def refresh(self, ctx): ...

        @periodic(spacing=1000)
        async def rarely(self, ctx): ...

    bench.add(Manager())
    await asyncio.sleep(15)
    bench.scheduler.pause("lamp", "rarely")
    runs = bench.scheduler.pop_changed_runs()
    assert sorted(run.task for run in runs) == ["rarely", "refresh"]
    await asyncio.sleep(10)
    bench.scheduler.put_back_runs(runs)
    again = {run.task: run for run in bench.scheduler.pop_changed_runs()}
    assert again["refresh"].runs == 2
    assert again["rarely"].paused_at > 0
    assert bench.scheduler.pop_changed_runs() == []
