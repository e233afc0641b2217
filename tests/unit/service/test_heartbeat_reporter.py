import asyncio
import logging
import sqlite3

import pytest

from ostler.errors import StoreUnavailable
from ostler.service.store_outage import StoreOutage
from ostler.store.session import current_session

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


@pytest.mark.failure_mode("State", "record deleted under a live service")
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
        written = b.runtime.heartbeat_reporter.written_count
        lock.release()
        await asyncio.sleep(30)
        assert (await b.row()).up
        assert b.runtime.heartbeat_reporter.failed_count >= 1
        assert b.runtime.heartbeat_reporter.written_count > written
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    # A commit or write that took long is that of a slow disk or processor below this test, whose time is real.
    said = [line for line in said if not line.startswith("the commit of ") and "blocked all others" not in line]
    assert len(said) == 3
    assert "failed; further failures are not logged" in said[0]
    assert "waited" in said[1]
    assert "works again" in said[2]


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


@pytest.mark.failure_mode("State", "heartbeats on time during 50,000 writes")
async def test_a_report_of_all_services_overtakes_50000_writes_that_wait(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        await b.store.awrite(lambda: current_session().database.execute_sql("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
        done = [0]

        def one() -> None:
            current_session().database.execute_sql("INSERT INTO t VALUES (NULL)")
            done[0] += 1

        async def writes() -> None:
            for _ in range(5):
                await asyncio.gather(*(b.store.awrite(one) for _ in range(10_000)))

        writing, waited_for = asyncio.ensure_future(writes()), []
        while not writing.done():
            before, queued = done[0], b.store.stats()["queued"]
            await b.runtime.heartbeat_reporter.write(b.group)
            if queued > 5000:
                waited_for.append((done[0] - before) / queued)
            await asyncio.sleep(0)
        await writing
        assert done[0] == 50_000
        # At most what one group may do in its time slice, which is more on a fast machine; in the queue of the others
        # it would be all that wait.
        assert sorted(waited_for)[len(waited_for) // 2] < 0.7, waited_for


async def test_a_report_carries_signs_of_work_and_they_are_in_the_record(bench, trouble) -> None:
    async with bench(LAMP + 'poll = 5\n[services.lamp.drivers.desk]\ndriver = "gpio"\n') as b:
        await b.runtime.start()
        trouble.errors["poll"] = OSError("no lamp")
        await b.service().drivers.call("desk", "work")
        trouble.errors["work desk"] = OSError("no light")
        with pytest.raises(OSError, match="no light"):
            await b.service().drivers.call("desk", "work")
        working = asyncio.ensure_future(b.client.acall("lamp", "think", seconds=50))
        await asyncio.sleep(30)
        signs = {sign.subject: sign for sign in (await b.row()).signs}
        assert list(signs) == ["loop", "pool", "driver desk", "periodic task poll", "store"]
        assert 0 <= signs["loop"].age < 1
        assert signs["pool"].text == "0 of 8 threads busy; 0 requests wait"
        assert 10 < signs["driver desk"].age < 40
        assert "1 errors, 1 in a row; the last: work: OSError: no light" in signs["driver desk"].text
        assert "errors; the last: OSError: no lamp" in signs["periodic task poll"].text
        assert 0 <= signs["store"].age <= 30
        assert (await b.runtime.rows())[0].signs == (await b.row()).signs
        await working


@pytest.mark.failure_mode("State", "long drain while a successor starts")
async def test_a_long_drain_is_reported_until_its_end_and_the_next_start_is_up(bench) -> None:
    async with bench(LAMP + 'drain_timeout = "1h"\n') as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.on(timeout=3000).acall("lamp", "think", seconds=1000))
        await asyncio.sleep(1)
        actions = b.runtime.service_actions
        restarting = asyncio.ensure_future(actions.restart("lamp", 0, "restarted by ann"))
        for _ in range(15):
            await asyncio.sleep(60)
            row = await b.row()
            assert (str(row.state), row.why, row.up, row.age <= 10) == ("draining", "restarted by ann", True, True)
        assert await working == "thought"
        await restarting
        await asyncio.sleep(1)
        row = await b.row()
        assert (str(row.state), row.why, row.up) == ("up", "", True)
