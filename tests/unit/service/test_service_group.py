import asyncio
import logging

import msgspec
import pytest

from ostler.errors import Draining, SchemaTooNew, StoreUnavailable
from ostler.service import StartFailed

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


CHAIN = """
[services.top]
manager = "lamp"
depends_on = ["middle"]
[services.middle]
manager = "lamp"
depends_on = ["bottom"]
[services.bottom]
manager = "lamp"
"""
SIDE_BY_SIDE = """
[services.left]
manager = "lamp"
required = false
[services.right]
manager = "lamp"
required = true
"""


def order(trouble, hook):
    return [call.split()[1] for call in trouble.begun if call.startswith(hook)]


async def test_services_start_after_what_they_need_and_stop_before_it(bench, trouble) -> None:
    async with bench(CHAIN) as b:
        await b.runtime.start()
        assert order(trouble, "init_host ") == ["bottom", "middle", "top"]
        await b.runtime.stop(30)
        assert order(trouble, "cleanup_host") == ["top", "middle", "bottom"]
        assert [b.state(topic) for topic in ("top", "middle", "bottom")] == ["stopped"] * 3


async def test_a_service_takes_work_until_those_that_need_it_are_drained(bench, trouble) -> None:
    async with bench(CHAIN) as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.acall("top", "think", seconds=5))
        await asyncio.sleep(1)
        stopping = asyncio.ensure_future(b.runtime.stop(60))
        await asyncio.sleep(1)
        assert (b.state("top"), b.state("bottom")) == ("draining", "up")
        assert await b.client.acall("bottom", "think", seconds=0) == "thought"
        with pytest.raises(Draining):
            await b.client.acall("top", "think", seconds=0)
        assert await working == "thought"
        assert await stopping == []


async def test_services_that_do_not_need_each_other_start_side_by_side(bench, trouble) -> None:
    gate = trouble.hang("init_host left")
    async with bench(SIDE_BY_SIDE) as b:
        starting = asyncio.ensure_future(b.runtime.start())
        while b.state("right") != "up":
            await asyncio.sleep(0.1)
        assert b.group.start_waits_for() == ["left: init_host"]
        b.service("left").manager.environment.report_progress("3 of 10 lamps lit")
        assert b.group.start_waits_for() == ["left: init_host, 3 of 10 lamps lit"]
        assert b.service("left").status().why == "init_host, 3 of 10 lamps lit"
        gate.set()
        await starting
        assert b.service("left").status().why == ""
        assert b.group.start_waits_for() == []


async def test_a_service_that_may_fail_fails_alone_and_a_service_that_needs_it_says_so(bench, trouble) -> None:
    trouble.errors["init_host left"] = OSError("no disk")
    async with bench(SIDE_BY_SIDE + '[services.top]\nmanager = "lamp"\ndepends_on = ["left"]\nrequired = false\n') as b:
        await b.runtime.start()
        assert (b.state("left"), b.state("right"), b.state("top")) == ("failed", "up", "failed")
        assert b.why("top") == "service top needs left, which failed to start"


async def test_a_required_service_that_fails_fails_the_start_and_others_are_taken_down(bench, trouble) -> None:
    trouble.hang("init_host left")
    trouble.errors["init_host right"] = OSError("no disk")
    async with bench(SIDE_BY_SIDE) as b:
        with pytest.raises(StartFailed, match=r"required service right could not be started: .*no disk"):
            await b.runtime.start()
        trouble.let_go()
        assert await b.runtime.stop(30) == []
        assert (b.state("left"), b.state("right")) == ("stopped", "failed")


async def test_a_defect_in_a_service_is_that_services_failure(bench, trouble, caplog) -> None:
    trouble.errors["build left"] = ZeroDivisionError("a defect")
    async with bench(SIDE_BY_SIDE) as b:
        await b.runtime.start()
        assert (b.state("left"), b.state("right")) == ("failed", "up")
        assert "a defect" in b.why("left")
    assert any(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)


async def test_a_hook_cancelled_from_within_is_a_failed_start_and_no_cancelled_one(bench, manager) -> None:
    class Cancelled(manager):
        async def init_host(self, service_id, added_to_cluster):
            raise asyncio.CancelledError

    async with bench('[services.odd]\nmanager = "odd"\nrequired = true\n', odd=Cancelled) as b:
        with pytest.raises(StartFailed, match="it waited for something that was cancelled"):
            await b.runtime.start()


async def test_one_that_hangs_takes_no_time_from_the_others(bench, trouble) -> None:
    trouble.hang("cleanup_host right")
    async with bench(SIDE_BY_SIDE) as b:
        await b.runtime.start()
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert await b.group.stop(20) == ["cleanup_host of service right did not return within 10s"]
        assert loop.time() - before < 21
        assert "end of cleanup_host left" in trouble.calls


async def test_work_that_outlives_the_stop_leaves_time_for_cleanup(bench, trouble, caplog) -> None:
    trouble.hang("work")
    async with bench(SIDE_BY_SIDE.replace("required = false", 'drain_timeout = "10min"')) as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.on(timeout=3600.0).acall("left", "work"))
        await asyncio.sleep(1)
        (hung,) = await b.group.stop(20)
        assert hung.startswith("left.work on left-")
        assert "end of cleanup_host left" in trouble.calls
        trouble.let_go()
        await asyncio.wait([working])
    assert "no longer waiting for: left.work" in caplog.text


async def test_a_service_that_an_operator_is_draining_is_waited_for_by_the_stop(bench, trouble) -> None:
    async with bench(SIDE_BY_SIDE) as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.acall("left", "think", seconds=10))
        await asyncio.sleep(1)
        draining = asyncio.ensure_future(b.service("left").drain(60, "maintenance"))
        await asyncio.sleep(1)
        assert await b.runtime.stop(60) == []
        assert await working == "thought"
        assert await draining == []


async def test_nothing_that_never_started_is_said_to_drain(bench) -> None:
    async with bench(CHAIN) as b:
        assert await b.runtime.stop(10) == []
        assert b.changes == ["top stopped", "middle stopped", "bottom stopped"]


@pytest.mark.failure_mode("State", "database read-only")
async def test_a_required_service_without_tables_fails_with_those_that_need_it(bench) -> None:
    config = SIDE_BY_SIDE + '[services.above]\nmanager = "lamp"\ndepends_on = ["right"]\n'

    async with bench(config) as b:
        b.store.failed_migrations["lamp"] = SchemaTooNew("the tables of lamp are newer")
        right = b.service("right")
        right.spec = msgspec.structs.replace(right.spec, namespaces=["lamp"])
        await b.runtime.start()
        assert [b.state(topic) for topic in ("left", "right", "above")] == ["up", "failed", "failed"]
        assert "the tables of lamp are newer" in b.why("right")
        assert "needs right" in b.why("above")


@pytest.mark.failure_mode("State", "database read-only")
async def test_a_service_without_tables_starts_while_the_database_cannot_be_written(bench, monkeypatch) -> None:
    async with bench(SIDE_BY_SIDE) as b:
        right = b.service("right")
        right.spec = msgspec.structs.replace(right.spec, namespaces=["lamp"])
        written = b.store.awrite
        full = StoreUnavailable("no space left")

        async def refuse(fn, **more):
            raise full

        monkeypatch.setattr(b.store, "awrite", refuse)
        start = asyncio.ensure_future(b.runtime.start())
        async with asyncio.timeout(60):
            while b.state("left") != "up":
                await asyncio.sleep(0.1)
        assert "waiting for the database" in b.why("right")
        monkeypatch.setattr(b.store, "awrite", written)
        await start
        assert b.state("right") == "up"
