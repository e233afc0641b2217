import asyncio

import pytest

from ostler.errors import Busy, Draining, ServiceNotFound
from ostler.messaging.clients.retry import Retry
from ostler.service import StartFailed

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


HOUR = 3600.0
LAMP = '[services.lamp]\nmanager = "lamp"\n'
DRIVER = LAMP + '[services.lamp.drivers.desk]\ndriver = "gpio"\n'
OPTIONAL = LAMP + "required = false\n"
STEPS = [
    "build lamp",
    "init_host lamp",
    "driver_ready desk",
    "pre_start_hook",
    "init_host_with_rpc",
    "post_start_hook",
]


def failing(error):
    return pytest.raises(StartFailed, match=error)


async def test_the_hooks_run_in_the_order_of_the_design(bench, trouble) -> None:
    async with bench(DRIVER) as b:
        await b.runtime.start()
        assert b.state() == "up"
        hooks = [call for call in trouble.begun if call in STEPS]
        assert hooks == STEPS
        assert b.dispatcher.registry.topics() == ["lamp"]
    assert trouble.begun[-2:] == ["cleanup_host lamp", "cleanup desk"]
    assert b.state() == "stopped"


# `init_host_with_rpc` runs on the loop here, where a gate would hold up everything.
@pytest.mark.parametrize("step", [step for step in STEPS if step != "init_host_with_rpc"])
async def test_a_stop_at_any_step_of_the_start_undoes_what_was_done(bench, trouble, step) -> None:
    """A start that is cut off while its hook runs in a thread: the hook ends first, then all is taken down."""

    gate = trouble.hang(step)
    async with bench(DRIVER) as b:
        starting = asyncio.ensure_future(b.runtime.start())
        asyncio.get_running_loop().call_later(1, starting.cancel)
        asyncio.get_running_loop().call_later(3, gate.set)
        await asyncio.wait([starting])
        assert starting.cancelled()
        assert await b.runtime.stop(30) == []
        assert b.state() == "stopped"
        assert b.dispatcher.registry.topics() == []
        calls = list(trouble.calls)
        if "cleanup_host lamp" in calls:
            assert calls.index(f"end of {step}") < calls.index("cleanup_host lamp")
        assert ("cleanup_host lamp" in calls) is (step != "build lamp")
        assert (await b.row()).state == "stopped"


@pytest.mark.parametrize("step", [step for step in STEPS if step != "driver_ready desk"])
@pytest.mark.parametrize("error", [OSError("on fire"), SystemExit(3), KeyboardInterrupt("stop")])
async def test_a_hook_that_raises_fails_the_start_and_names_itself(bench, trouble, step, error) -> None:
    trouble.errors[step] = error
    async with bench(DRIVER.replace("[services.lamp.", "required = true\n[services.lamp.")) as b:
        with failing(str(error) or type(error).__name__):
            await b.runtime.start()
        assert b.state() == "failed"
        assert str(error) in b.why()
        assert b.dispatcher.registry.topics() == []
        assert ("cleanup_host lamp" in trouble.calls) is (step != "build lamp")
        await b.runtime.heartbeat_reporter.write(b.group)
        row = await b.row()
        assert (row.state, row.up) == ("failed", False)


async def test_a_hook_that_hangs_fails_the_start_and_nothing_is_cleaned_up_beside_it(bench, trouble) -> None:
    trouble.hang("init_host lamp")
    async with bench(OPTIONAL + 'start_timeout = "40s"\n') as b:
        await b.runtime.start()
        assert b.state() == "failed"
        assert "did not return within 40s" in b.why()
        assert "cleanup_host lamp" not in trouble.calls
        hung = await b.runtime.stop(10)
        assert len(hung) == 1
        assert hung[0].startswith("lamp.init_host on lamp-")


async def test_a_timeout_error_of_a_hook_is_no_hook_that_hangs(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = TimeoutError("the device did not answer")
    async with bench(OPTIONAL) as b:
        await b.runtime.start()
        assert "init_host of service lamp failed: " in b.why()
        assert "the device did not answer" in b.why()


async def test_stop_before_start_and_stop_twice_are_harmless(bench, trouble) -> None:
    async with bench(LAMP) as b:
        assert await b.service().stop(1) == []
        assert (b.state(), b.why()) == ("stopped", "never started")
        assert await b.service().stop(1) == []
    assert trouble.calls == []


async def test_who_waits_for_a_stop_may_be_cancelled_the_stop_goes_on(bench, trouble) -> None:
    gate = trouble.hang("cleanup_host lamp")
    async with bench(LAMP) as b:
        await b.runtime.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await b.service().stop(60)
        gate.set()
        assert await b.service().stop(60) == []
        assert trouble.calls.count("cleanup_host lamp") == 1
        assert b.state() == "stopped"


async def test_cleanup_host_that_hangs_is_named_and_leaves_time_for_the_drivers(bench, trouble) -> None:
    trouble.hang("cleanup_host lamp")
    async with bench(DRIVER) as b:
        await b.runtime.start()
        loop = asyncio.get_running_loop()
        before = loop.time()
        hung = await b.service().stop(20)
        assert loop.time() - before <= 21
        assert hung == ["cleanup_host of service lamp did not return within 10s"]
        assert "cleanup desk" in trouble.calls


async def test_cleanup_host_that_raises_keeps_nothing_from_being_taken_down(bench, trouble) -> None:
    trouble.errors["cleanup_host lamp"] = SystemExit(1)
    async with bench(DRIVER) as b:
        await b.runtime.start()
        assert await b.service().stop(20) == []
        assert "cleanup desk" in trouble.calls
        assert b.state() == "stopped"


async def test_a_draining_service_refuses_new_work_and_waits_for_what_is_in_flight(bench, trouble) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        thinking = asyncio.ensure_future(b.client.acall("lamp", "think", seconds=5))
        await asyncio.sleep(1)
        draining = asyncio.ensure_future(b.service().drain(60, "maintenance"))
        await asyncio.sleep(1)
        assert b.service().in_progress() == ["1 requests of lamp on the event loop"]
        with pytest.raises(Draining, match="maintenance"):
            await b.client.acall("lamp", "think", seconds=1)
        assert await thinking == "thought"
        assert await draining == []
        assert b.state() == "draining"
        assert b.runtime.periodic_scheduler.statuses() == []


async def test_a_drain_ends_at_its_time_and_says_what_still_runs(bench, trouble) -> None:
    gate = trouble.hang("work")
    async with bench(LAMP) as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.acall("lamp", "work"))
        await asyncio.sleep(1)
        left = await b.service().drain(5, "maintenance")
        assert len(left) == 1
        assert left[0].startswith("lamp.work on lamp-")
        gate.set()
        assert await working == "done"


async def test_who_is_in_a_hurry_waits_for_nothing(bench, trouble) -> None:
    gate = trouble.hang("work")
    async with bench(LAMP) as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.acall("lamp", "work"))
        await asyncio.sleep(1)
        draining = asyncio.ensure_future(b.service().drain(HOUR, "maintenance"))
        await asyncio.sleep(1)
        b.group.skip_drain()
        before = asyncio.get_running_loop().time()
        assert len(await draining) == 1
        assert asyncio.get_running_loop().time() - before < 1
        gate.set()
        await working


async def test_a_service_that_failed_is_not_drained_into_another_state(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = OSError("no disk")
    async with bench(OPTIONAL) as b:
        await b.runtime.start()
        assert await b.service().drain(5, "maintenance") == []
        assert b.state() == "failed"
        with pytest.raises(ServiceNotFound, match=r"lamp on .* could not be started: .*no disk"):
            await b.client.acall("lamp", "work")


async def test_a_service_that_is_starting_has_its_callers_come_again(bench, trouble) -> None:
    gate = trouble.hang("init_host lamp")
    async with bench(LAMP) as b:
        with pytest.raises(Busy, match=r"lamp on .* is starting"):
            await b.client.acall("lamp", "think", seconds=1)
        starting = asyncio.ensure_future(b.runtime.start())
        asking = asyncio.ensure_future(b.client.on(retry=Retry(attempts=1000)).acall("lamp", "think", seconds=1))
        await asyncio.sleep(3)
        assert not asking.done()
        gate.set()
        await starting
        assert await asking == "thought"
        await b.runtime.stop(30)
        with pytest.raises(Draining, match=r"lamp on .* has been stopped"):
            await b.client.acall("lamp", "think", seconds=1)


@pytest.mark.parametrize("error", [OSError("no light"), KeyboardInterrupt()])
async def test_health_is_asked_with_each_report_and_a_complaint_degrades(bench, trouble, error) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        trouble.errors["is_working"] = error
        await asyncio.sleep(15)
        assert b.state() == "degraded"
        assert "is_working of service lamp failed" in b.why()
        del trouble.errors["is_working"]
        trouble.answers["is_working"] = False
        await asyncio.sleep(15)
        assert b.why() == "is_working returned False"
        trouble.answers.clear()
        await asyncio.sleep(15)
        assert b.state() == "up"


async def test_a_check_that_hangs_is_no_progress_and_is_not_asked_again(bench, trouble) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        await asyncio.sleep(15)
        gate, before = trouble.hang("is_working"), trouble.calls.count("is_working")
        await asyncio.sleep(300)
        assert trouble.calls.count("is_working") == before + 1
        assert "has not returned" in b.why()
        assert asyncio.get_running_loop().time() - b.service().last_progress > 200
        gate.set()
        await asyncio.sleep(30)
        assert b.state() == "up"
        assert asyncio.get_running_loop().time() - b.service().last_progress <= 20


async def test_long_work_in_all_threads_holds_up_no_check_and_is_said_when_requests_wait(bench, trouble) -> None:
    gate = trouble.hang("work")
    async with bench(LAMP + "workers = 1\n") as b:
        await b.runtime.start()
        calls = [asyncio.ensure_future(b.client.on(timeout=HOUR).acall("lamp", "work")) for _ in range(2)]
        await asyncio.sleep(30)
        assert b.state() == "up"
        assert asyncio.get_running_loop().time() - b.service().last_progress <= 20
        gate.set()
        await asyncio.gather(*calls)


async def test_options_that_need_a_restart_get_it_with_the_reload(bench, trouble) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        before = b.service().manager
        assert await b.reset(LAMP + 'bulb = "new"\nworkers = 3\npoll = 5\n') == []
        options = b.service().manager.options
        assert (options.bulb, options.workers, options.poll) == ("new", 3, 5)
        assert (b.service().status().workers, b.service().manager is before) == (3, False)


async def test_a_reset_that_raises_takes_its_options_back(bench, trouble) -> None:
    trouble.errors["reset lamp"] = SystemExit(1)
    async with bench(LAMP) as b:
        await b.runtime.start()
        before = b.service().options.poll
        failure, not_undone = await b.reset(LAMP + "poll = 5\n")
        assert "reset of service lamp failed" in failure
        assert "could not be undone" in not_undone  # it raises with the old options as well
        assert b.service().options.poll == before
        assert b.state() == "up"


async def test_a_reload_does_not_hold_against_a_service_that_it_failed_before(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = OSError("no disk")
    async with bench(LAMP) as b:
        await b.runtime.start()
        assert b.state() == "failed"
        assert await b.reset(LAMP + "workers = 5\n") == []
        assert "reset" not in trouble.calls
        assert (b.state(), "no disk" in b.why()) == ("failed", True)
