import asyncio

import pytest

from ostler.errors import Busy, Conflict, Draining, NotFound, ServiceError, ServiceNotFound

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


LAMP = '[services.lamp]\nmanager = "lamp"\n'
OPTIONAL = LAMP + "required = false\n"
PAIR = LAMP + '[services.door]\nmanager = "lamp"\ndepends_on = ["lamp"]\n'


async def call(b, topic="lamp"):
    return await b.client.acall(topic, "think", seconds=0)


async def test_a_service_that_was_drained_takes_calls_again_and_its_periodic_tasks_run(bench, trouble) -> None:
    async with bench(LAMP + "poll = 30\n") as b:
        await b.runtime.start()
        assert await b.runtime.service_actions.drain("lamp", 0, "drained by ann") == []
        with pytest.raises(Draining, match="drained by ann"):
            await call(b)
        assert b.runtime.periodic_scheduler.statuses() == []
        b.runtime.service_actions.resume("lamp")
        assert (b.state(), await call(b)) == ("up", "thought")
        trouble.calls.clear()
        await asyncio.sleep(61)
        assert trouble.begun.count("poll") == 2


async def test_a_drain_that_is_under_way_ends_when_the_service_is_resumed(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.acall("lamp", "think", seconds=40))
        await asyncio.sleep(1)
        draining = asyncio.ensure_future(b.runtime.service_actions.drain("lamp", 1000, "x"))
        await asyncio.sleep(1)
        b.runtime.service_actions.resume("lamp")
        assert await asyncio.wait_for(draining, 5) == ["1 requests of lamp on the event loop"]
        assert (b.state(), await working) == ("up", "thought")


async def test_a_periodic_run_that_the_drain_found_does_not_run_twice(bench, trouble) -> None:
    async with bench(LAMP + "poll = 30\n") as b:
        await b.runtime.start()
        gate = trouble.hang("poll")
        while "poll" not in trouble.begun:
            await asyncio.sleep(1)
        await b.runtime.service_actions.drain("lamp", 0.5, "x")
        b.runtime.service_actions.resume("lamp")
        await asyncio.sleep(2)
        assert b.runtime.periodic_scheduler.statuses() == []
        gate.set()
        while not b.runtime.periodic_scheduler.statuses():
            await asyncio.sleep(0.1)
        assert trouble.begun.count("poll") == 1


async def test_only_one_that_drains_is_resumed_and_one_that_is_up_stays_so(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        b.runtime.service_actions.resume("lamp")
        await b.runtime.service_actions.stop("lamp", 0, "x")
        with pytest.raises(Conflict, match="lamp is stopped; only a draining service"):
            b.runtime.service_actions.resume("lamp")
        with pytest.raises(NotFound, match="service door is not running on this host"):
            b.runtime.service_actions.resume("door")


async def test_a_service_is_stopped_and_started_beside_the_others(bench, trouble) -> None:
    async with bench(LAMP + '[services.door]\nmanager = "lamp"\n') as b:
        await b.runtime.start()
        assert await b.runtime.service_actions.stop("lamp", 0, "stopped by ann") == []
        assert (b.state(), b.why()) == ("stopped", "stopped by ann")
        with pytest.raises(Draining, match="has been stopped") as caught:
            await call(b)
        assert "ostler service start lamp" in caught.value.hint
        assert await call(b, "door") == "thought"
        trouble.calls.clear()
        await b.runtime.service_actions.start("lamp")
        assert (b.state(), await call(b)) == ("up", "thought")
        assert "init_host lamp" in trouble.begun
        assert "init_host door" not in trouble.begun
        await asyncio.sleep(1)
        assert (await b.row()).state == "up"


async def test_what_outlives_the_drain_of_a_stop_is_ended_and_its_caller_told(bench, trouble) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        trouble.hang("work")
        calls = [b.client.acall("lamp", "think", seconds=50), b.client.acall("lamp", "work")]
        working = [asyncio.ensure_future(each) for each in calls]
        await asyncio.sleep(1)
        await b.runtime.service_actions.stop("lamp", 1, "stopped by ann")
        for each in working:
            with pytest.raises(Draining, match=r"lamp was stopped before lamp\.\w+ had completed: stopped by ann"):
                await each
        trouble.let_go()


async def test_one_that_failed_is_brought_back_when_its_reason_is_gone(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = OSError("no licence")
    async with bench(OPTIONAL) as b:
        await b.runtime.start()
        with pytest.raises(ServiceNotFound, match="no licence") as refused:
            await call(b)
        assert "ostler service start lamp" in refused.value.hint
        with pytest.raises(ServiceError, match=r"lamp could not be started: .*no licence"):
            await b.runtime.service_actions.start("lamp")
        assert b.state() == "failed"
        del trouble.errors["init_host lamp"]
        await b.runtime.service_actions.start("lamp")
        assert (b.state(), await call(b)) == ("up", "thought")


async def test_a_reload_starts_again_what_has_failed_and_not_what_was_stopped(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = OSError("no licence")
    config = OPTIONAL + '[services.door]\nmanager = "lamp"\n'
    async with bench(config) as b:
        await b.runtime.start()
        await b.runtime.service_actions.stop("door", 0, "x")
        del trouble.errors["init_host lamp"]
        assert await b.reset(config) == []
        assert (b.state(), b.state("door")) == ("up", "stopped")


async def test_a_reload_starts_what_has_failed_after_what_it_needs(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = OSError("no licence")
    first = '[services.door]\nmanager = "lamp"\ndepends_on = ["lamp"]\nrequired = false\n' + OPTIONAL
    async with bench(first) as b:
        await b.runtime.start()
        assert (b.state(), b.state("door")) == ("failed", "failed")
        del trouble.errors["init_host lamp"]
        assert await b.reset(first) == []
        assert (b.state(), b.state("door")) == ("up", "up")


async def test_a_required_service_that_fails_at_a_restart_fails_alone(bench, trouble) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        trouble.errors["init_host lamp"] = OSError("no disk")
        with pytest.raises(ServiceError, match="no disk"):
            await b.runtime.service_actions.restart("lamp", 0, "x")
        assert (b.state(), b.ended) == ("failed", [])


async def test_a_stopped_service_starts_with_the_options_of_the_reload_since(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        await b.runtime.service_actions.stop("lamp", 0, "x")
        assert await b.reset(LAMP + 'bulb = "new"\n') == []
        assert (b.state(), b.service().options.bulb) == ("stopped", "old")
        await b.runtime.service_actions.start("lamp")
        assert b.service().options.bulb == "new"


async def test_what_others_need_is_not_stopped_and_what_is_needed_has_to_be_up(bench) -> None:
    async with bench(PAIR) as b:
        await b.runtime.start()
        with pytest.raises(Conflict, match="lamp is needed by door"):
            await b.runtime.service_actions.stop("lamp", 0, "x")
        await b.runtime.service_actions.stop("door", 0, "x")
        await b.runtime.service_actions.stop("lamp", 0, "x")
        with pytest.raises(Conflict, match="door needs lamp, which is not up"):
            await b.runtime.service_actions.start("door")
        await b.runtime.service_actions.start("lamp")
        await b.runtime.service_actions.start("door")
        assert b.state("door") == "up"


async def test_one_whose_last_run_hangs_is_not_started_beside_it(bench, trouble) -> None:
    async with bench(LAMP + "drain_timeout = 1\n") as b:
        await b.runtime.start()
        gate = trouble.hang("work")
        working = asyncio.ensure_future(b.client.acall("lamp", "work"))
        await asyncio.sleep(1)
        assert (await b.runtime.service_actions.stop("lamp", 1, "x"))[0].startswith("lamp.work on lamp-")
        with pytest.raises(Conflict, match=r"still running from its last run: lamp\.work on lamp-\d for"):
            await b.runtime.service_actions.start("lamp")
        gate.set()
        await asyncio.gather(working, return_exceptions=True)
        while b.service().leftover_work():
            await asyncio.sleep(0.1)
        await b.runtime.service_actions.start("lamp")
        assert b.state() == "up"


async def test_one_that_is_being_started_is_not_started_twice(bench, trouble) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        await b.runtime.service_actions.stop("lamp", 0, "x")
        gate = trouble.hang("init_host lamp")
        first = asyncio.ensure_future(b.runtime.service_actions.start("lamp"))
        await asyncio.sleep(0.1)
        with pytest.raises(Busy, match="is starting"):
            await call(b)
        second = asyncio.ensure_future(b.runtime.service_actions.start("lamp"))
        gate.set()
        await asyncio.gather(first, second)
        assert trouble.begun.count("init_host lamp") == 2


async def test_the_end_of_the_daemon_leaves_what_is_under_way(bench, trouble) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        await b.runtime.service_actions.stop("lamp", 0, "x")
        trouble.hang("init_host lamp")
        starting = asyncio.ensure_future(b.runtime.service_actions.start("lamp"))
        await asyncio.sleep(0.1)
        stopping = asyncio.ensure_future(b.runtime.stop(5))
        with pytest.raises(Draining, match="the daemon is stopping"):
            await starting
        with pytest.raises(Draining):
            await b.runtime.service_actions.start("lamp")
        trouble.let_go()
        await stopping
        assert b.state() == "stopped"


async def test_one_in_no_configuration_any_more_is_forgotten(bench) -> None:
    both = LAMP + '[services.door]\nmanager = "lamp"\n'
    async with bench(both) as b:
        await b.runtime.start()
        with pytest.raises(Conflict, match="is configured in this daemon"):
            b.runtime.service_actions.forget("door")
        assert await b.reset(LAMP) == []
        with pytest.raises(NotFound, match="door is not running on this host"):
            await b.runtime.service_actions.restart("door", 0, "x")
        b.runtime.service_actions.forget("door")  # no effect
        assert list(b.group.services) == ["lamp"]


async def test_a_service_with_a_driver_that_is_stuck_is_left_as_it_is_by_a_restart(bench, trouble) -> None:
    config = LAMP + '[services.lamp.drivers.shelf]\ndriver = "gpio"\ncall_timeout = 1\n'
    async with bench(config) as b:
        await b.runtime.start()
        gate = trouble.hang("work shelf")
        working = asyncio.ensure_future(b.service().drivers.call("shelf", "work"))
        await asyncio.gather(working, return_exceptions=True)
        with pytest.raises(Conflict, match=r"lamp was not restarted: driver shelf \(work did not return"):
            await b.runtime.service_actions.restart("lamp", 0, "x")
        assert (b.state(), await call(b)) == ("degraded", "thought")
        gate.set()
        while b.service().stuck_work():
            await asyncio.sleep(0.1)
        await b.runtime.service_actions.restart("lamp", 0, "x")
        assert b.state() == "up"
