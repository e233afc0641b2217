"""The dump can be had at every point of the daemon's life."""

import asyncio

import pytest

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
