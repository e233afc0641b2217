"""Coroutines with a name and an owner."""

import asyncio

import pytest

from ostler.aio import TaskOwner


async def test_a_task_runs_under_its_owners_name_and_is_let_go_when_it_has_ended():
    owner = TaskOwner("lamp")

    async def work():
        return owner.running_names()

    assert await owner.spawn(work(), name="look") == ["lamp: look"]
    await asyncio.sleep(0)
    assert owner.running_names() == []


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
async def test_a_task_that_raises_is_logged_with_its_name_and_stops_nobody(caplog, kind):
    owner = TaskOwner("lamp")

    async def work():
        raise kind("no")

    assert await owner.spawn(work(), name="look") is None
    assert "task look of lamp failed" in caplog.text


async def ends():
    pass


async def fails():
    raise SystemExit("enough")


async def cancels_itself():
    raise asyncio.CancelledError


@pytest.mark.failure_mode("Life", "an eternal task that ends")
@pytest.mark.parametrize(
    ("work", "reason"), [(ends, "ended unexpectedly"), (fails, "SystemExit: enough"), (cancels_itself, "cancelled")]
)
async def test_an_eternal_task_that_ends_is_reported_with_its_reason(work, reason):
    reasons = []
    owner = TaskOwner("daemon", reasons.append)
    task = owner.spawn(work(), name="beat", forever=True)
    await asyncio.wait([task])
    assert len(reasons) == 1
    assert "beat" in reasons[0]
    assert reason in reasons[0]


async def test_an_eternal_task_that_somebody_else_cancels_is_reported():
    reasons = []
    owner = TaskOwner("daemon", reasons.append)
    task = owner.spawn(asyncio.Event().wait(), name="beat", forever=True)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert len(reasons) == 1


async def test_an_eternal_task_that_its_owner_cancels_is_not_reported():
    reasons = []
    owner = TaskOwner("daemon", reasons.append)
    owner.spawn(asyncio.Event().wait(), name="beat", forever=True)
    await asyncio.sleep(0)
    assert await owner.cancel() == []
    assert reasons == []


async def test_a_task_that_is_cancelled_before_its_first_step_leaves_no_coroutine_behind():
    owner = TaskOwner("lamp")
    owner.spawn(asyncio.Event().wait(), name="never begun")
    assert await owner.cancel() == []
    # a coroutine that was never awaited would be a warning, and warnings are errors here


async def test_cancel_names_the_tasks_that_do_not_end():
    owner, release = TaskOwner("lamp"), asyncio.Event()

    async def stubborn():
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    owner.spawn(stubborn(), name="stubborn")
    owner.spawn(release.wait(), name="obedient")
    await asyncio.sleep(0)
    assert await owner.cancel(timeout=0.01) == ["lamp: stubborn"]
    release.set()
    assert await owner.wait(5) == []


async def test_a_task_that_cancels_its_owners_tasks_goes_on_itself():
    owner, log = TaskOwner("lamp"), []

    async def tidy():
        log.append(await owner.cancel())
        await asyncio.sleep(0)
        log.append("went on")

    owner.spawn(asyncio.Event().wait(), name="other")
    await owner.spawn(tidy(), name="tidy")
    assert log == [[], "went on"]


async def test_wait_returns_at_its_timeout_with_what_is_left():
    owner = TaskOwner("lamp")
    owner.spawn(asyncio.Event().wait(), name="long")
    assert await owner.wait(0.01) == ["lamp: long"]
    await owner.cancel()


@pytest.mark.failure_mode("Life", "an eternal task that ends")
@pytest.mark.virtual_time(stall_timeout=0.15)
async def test_an_eternal_task_survives_failing_rounds_and_says_a_failure_once(caplog):
    ends_for_good, rounds = [], []
    owner = TaskOwner("daemon", ends_for_good.append)

    async def work():
        rounds.append(1)
        raise SystemExit("enough")

    owner.supervise(work, name="beat")
    await asyncio.sleep(200)
    assert not ends_for_good
    assert 8 < len(rounds) < 20
    [line] = owner.problems()
    assert f"task beat of daemon failed {len(rounds)} times since" in line
    assert "SystemExit: enough" in line
    await owner.cancel()
    assert caplog.text.count("task beat of daemon failed") == 1
    assert caplog.text.count("Traceback") == 1


@pytest.mark.virtual_time(stall_timeout=0.15)
async def test_a_failure_long_ago_is_no_trouble_any_more():
    owner, rounds = TaskOwner("daemon"), []

    async def work():
        rounds.append(1)
        if len(rounds) == 1:
            raise ValueError("once")
        await asyncio.sleep(1000)

    owner.supervise(work, name="beat")
    await asyncio.sleep(1)
    assert len(owner.problems()) == 1
    await asyncio.sleep(200)
    assert owner.problems() == []
    await owner.cancel()


@pytest.mark.failure_mode("Plugins", "one that cancels all tasks, stops the loop or exits")
@pytest.mark.virtual_time(stall_timeout=0.15)
async def test_what_a_round_waited_for_was_cancelled_and_the_eternal_task_goes_on():
    ends_for_good, rounds = [], []
    owner = TaskOwner("daemon", ends_for_good.append)

    async def work():
        rounds.append(1)
        lost = asyncio.get_running_loop().create_future()
        lost.cancel()
        await lost

    owner.supervise(work, name="beat")
    await asyncio.sleep(10)
    assert len(rounds) > 3
    assert not ends_for_good
    assert "CancelledError" in owner.problems()[0]
    await owner.cancel()
    assert owner.running_names() == []


@pytest.mark.failure_mode("Plugins", "one that cancels all tasks, stops the loop or exits")
@pytest.mark.virtual_time(stall_timeout=0.15)
async def test_an_eternal_task_goes_on_when_a_plugin_cancels_all_tasks():
    ends_for_good, rounds = [], []
    owner = TaskOwner("daemon", ends_for_good.append)

    async def work():
        rounds.append(1)
        await asyncio.sleep(3600)

    task = owner.supervise(work, name="beat")
    other = owner.supervise(work, name="tick")
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(1)
    assert len(rounds) == 3
    assert not ends_for_good
    owner.cancel_task(other)
    await asyncio.sleep(1)
    assert owner.running_names() == ["daemon: beat"]
    assert await owner.cancel() == []
