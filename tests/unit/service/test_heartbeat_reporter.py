import asyncio
import logging
import sqlite3

import pytest

from ostler.errors import StoreUnavailable
from ostler.service.store_outage import StoreOutage

# private: _selector: of asyncio: how often the loop wakes up

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


LAMP = '[services.lamp]\nmanager = "lamp"\n'


class Lock:
    """Holds the database locked, as another program would."""

    def __init__(self, store) -> None:
        self._connection = sqlite3.connect(store.path, isolation_level=None)
        self._connection.execute("BEGIN EXCLUSIVE")

    def release(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


async def test_heartbeats_come_at_the_interval_and_not_later(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        await asyncio.sleep(1)
        before = (await b.row()).beat
        await asyncio.sleep(100)
        assert (await b.row()).beat - before in (9, 10)


async def test_a_change_of_state_is_reported_at_once(bench) -> None:
    async with bench(LAMP + 'report_interval = "1h"\ndown_time = "3h"\n') as b:
        await b.runtime.start()
        await asyncio.sleep(0.2)
        assert (await b.row()).state == "up"
        b.service().state_tracker.set_problem("bulb", "it flickers")
        await asyncio.sleep(0.2)
        row = await b.row()
        assert (row.state, row.why) == ("degraded", "it flickers")


async def test_heartbeats_never_wait_for_a_check_that_hangs(bench, trouble) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        trouble.hang("is_working")
        before = (await b.row()).beat
        await asyncio.sleep(60)
        assert (await b.row()).beat - before >= 5


async def test_heartbeats_go_on_as_draining_until_the_end(bench, trouble) -> None:
    async with bench(LAMP + 'drain_timeout = "5min"\n') as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.on(timeout=1000).acall("lamp", "think", seconds=100))
        await asyncio.sleep(1)
        stopping = asyncio.ensure_future(b.runtime.stop(300))
        await asyncio.sleep(1)
        first = await b.row()
        await asyncio.sleep(60)
        later = await b.row()
        assert (first.state, later.state, later.up) == ("draining", "draining", True)
        assert later.beat - first.beat >= 5
        await working
        await stopping
        assert (await b.row()).state == "stopped"


async def test_a_failed_service_goes_on_saying_so_and_an_unregistered_one_says_nothing(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = OSError("no disk")
    config = LAMP + 'required = false\n[services.late]\nmanager = "lamp"\ndepends_on = ["lamp"]\nrequired = false\n'
    async with bench(config) as b:
        await b.runtime.start()
        await asyncio.sleep(1)
        before = (await b.row()).beat
        await asyncio.sleep(60)
        row = await b.row()
        assert row.beat - before >= 5
        assert (row.state, row.up) == ("failed", False)
        assert "no disk" in row.why
        rows = await b.runtime.rows()
        assert [(r.topic, str(r.state)) for r in rows] == [("lamp", "failed"), ("late", "failed")]
        assert [r.topic for r in await b.store.aread(b.runtime.service_records.list)] == ["lamp"]


async def test_a_record_deleted_under_a_live_service_comes_back_as_it_was(bench, caplog) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        await asyncio.sleep(1)
        await b.store.awrite(lambda: b.runtime.service_records.delete("lamp", "node1"))
        await asyncio.sleep(11)
        row = await b.row()
        assert (row.manager, row.rpc_version, str(row.state), row.up) == ("lamp", "1.0", "up", True)
    assert caplog.text.count("has been recreated") == 1


@pytest.mark.failure_mode("State", "database locked for a minute")
async def test_database_locked_for_a_minute(bench, caplog) -> None:
    async with bench(LAMP + 'capability_interval = "5s"\n[services.lamp.drivers.desk]\ndriver = "gpio"\n') as b:
        await b.runtime.start()
        await asyncio.sleep(1)
        caplog.clear()
        lock = Lock(b.store)
        await asyncio.sleep(60)
        assert b.state() == "up"
        assert await b.client.acall("lamp", "think", seconds=1) == "thought"
        lock.release()
        await asyncio.sleep(30)
        assert (await b.row()).up
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2
    assert "failed; further failures are not logged" in said[0]
    assert "works again" in said[1]


async def test_a_stop_is_not_held_up_by_a_locked_database(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        lock = Lock(b.store)
        loop = asyncio.get_running_loop()
        before = loop.time()
        await b.runtime.stop(10)
        assert loop.time() - before < 10
        lock.release()


async def test_what_the_store_has_said_is_not_said_again_for_each_table(bench, caplog) -> None:
    async with bench(LAMP) as b:
        outage = StoreOutage(b.store, "a table", None)
        b.store.outage.failed(StoreUnavailable("the disk is gone"))
        caplog.clear()
        outage.failed(StoreUnavailable("the disk is gone"))
        b.store.outage.worked()
        outage.worked()
        assert "a table" not in caplog.text


async def test_a_new_interval_holds_at_once(bench) -> None:
    async with bench(LAMP + 'report_interval = "1h"\ndown_time = "3h"\n') as b:
        await b.runtime.start()
        await asyncio.sleep(1)
        assert await b.reset(LAMP + 'report_interval = "1s"\n') == []
        before = (await b.row()).beat
        await asyncio.sleep(30)
        assert (await b.row()).beat - before >= 28


async def test_a_service_that_is_not_up_keeps_the_reporters_asleep(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = OSError("no disk")
    async with bench(LAMP + "required = false\n") as b:
        await b.runtime.start()
        b.runtime.capability_reporter.trigger("lamp")
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        wakes = 0
        select = loop._selector.select

        def counting(timeout=None):
            nonlocal wakes
            wakes += 1
            return select(timeout)

        loop._selector.select = counting
        await asyncio.sleep(60)
        loop._selector.select = select
        assert wakes < 100
