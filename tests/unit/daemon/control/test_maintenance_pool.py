"""Long work on the database, on few threads."""

import asyncio
import threading

import pytest

from ostler.daemon.control.maintenance_pool import MaintenancePool
from ostler.errors import Busy
from support.waiting import until


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ostler-maintenance")]


async def test_three_thousand_who_ask_for_the_same_at_once_share_one_run():
    maintenance, gate, runs = MaintenancePool(), threading.Event(), []

    def work():
        runs.append(threading.current_thread().name)
        assert gate.wait(10)
        return ["fine"]

    waiting = [asyncio.ensure_future(maintenance.run_shared("check", work, 4001)) for _ in range(3000)]
    await until(lambda: runs)
    assert len(threads()) == 1
    gate.set()
    assert await asyncio.gather(*waiting) == [["fine"]] * 3000
    assert len(runs) == 1
    assert await maintenance.run_shared("check", work, 4001) == ["fine"]
    assert len(runs) == 2, "who asks when it has ended gets another"
    await until(lambda: not threads())


async def test_separate_work_has_few_threads_and_a_bounded_queue_with_room_for_others():
    maintenance, gate = MaintenancePool(), threading.Event()
    waiting = [
        asyncio.ensure_future(maintenance.run(f"copy {number}", lambda: gate.wait(10), 4001)) for number in range(100)
    ]
    await until(lambda: sum(each.done() for each in waiting) >= 80)
    assert len(threads()) == 2
    other = asyncio.ensure_future(maintenance.run("copy", lambda: gate.wait(10), 4002))
    await asyncio.sleep(0)
    assert not other.done()
    gate.set()
    found = await asyncio.gather(other, *waiting, return_exceptions=True)
    assert found[0] is True
    assert {type(each) for each in found} == {bool, Busy}


async def test_the_run_goes_on_without_who_asked_first_and_its_error_is_everybodys():
    maintenance, gate = MaintenancePool(), threading.Event()

    def work():
        assert gate.wait(10)
        raise ValueError("broken")

    first = asyncio.ensure_future(maintenance.run_shared("check", work, 4001))
    await until(threads)
    second = asyncio.ensure_future(maintenance.run_shared("check", work, 4002))
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(ValueError, match="broken"):
        await second
    assert first.cancelled()
