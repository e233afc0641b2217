"""The dump can be had at every point of the daemon's life."""

import asyncio

import pytest

from ostler.daemon.control import daemon_dump

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


async def test_before_anything_exists_there_are_threads_tasks_and_the_configuration(bench) -> None:
    async with bench() as b:
        dump = b.make().dump()
        assert (dump["daemon"]["host"], dump["daemon"]["state"]) == ("node1", "starting")
        assert (dump["services"], dump["messages"], dump["store"], dump["audit"]) == ({}, {}, {}, {})
        assert dump["threads"]
        assert dump["configuration"]["daemon.host"].startswith("'node1'")


async def test_of_a_daemon_at_work_every_part_is_in_it(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        gate = trouble.hang("work")
        working = asyncio.ensure_future(b.call("work", topic="lamp"))
        await asyncio.sleep(1)
        dump = b.daemon.dump()
        assert dump["services"]["lamp"]["working"][0].startswith("lamp.work on lamp-")
        assert dump["messages"]["topics"]["lamp"]["in_flight"] == 1
        assert dump["store"]["commits"] > 0
        assert dump["audit"]
        gate.set()
        await working


async def test_requests_pools_timers_connections_and_versions_are_in_it(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        gate = trouble.hang("work")
        working = asyncio.ensure_future(b.call("work", topic="lamp"))
        await asyncio.sleep(1)
        dump = await b.call("dump")
        gate.set()
        await working
    (request,) = [row for row in dump["requests"] if row["method"] == "lamp.work"]
    assert (request["state"], request["role"]) == ("running", "admin")
    assert dump["pools"]["lamp"]["requests"]["running"][0].startswith("lamp.work on lamp-1 for ")
    assert dump["timers"]["count"] >= len(dump["timers"]["next"]) > 0
    assert dump["connections"]["calls at memory"] == "(not listed)"
    assert dump["operations"] == {"running": [], "problems": []}
    assert dump["versions"]["packages"]["msgspec"]
    assert dump["process"]["descriptors"]["open"] > 0


async def test_a_section_that_fails_does_not_cost_the_others(bench) -> None:
    async with bench() as b:
        daemon = (await b.ready()).daemon

        def fail() -> None:
            raise ValueError("broken")

        daemon.parts.audit_service.log.stats = fail
        dump = daemon.dump()
        assert dump["audit"] == "(could not be gathered: ValueError: broken)"
        assert dump["store"]["commits"] > 0


def test_a_table_is_cut_and_says_by_how_much() -> None:
    rows = daemon_dump.limited_rows(range(1000))
    assert len(rows) == daemon_dump.MAX_ROWS + 1
    assert rows[-1] == "800 more"
