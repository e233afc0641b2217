"""What a stop waits for and what not, and that its waits together keep to their time."""

import asyncio
import threading
import time

import pytest

from ostler import Context, Field, Manager, ManagerOptions, Seconds, exposed, periodic
from ostler.errors import DriverStuck, OstlerError

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


LAMP = '[services.lamp]\nmanager = "lamp"\n'
DRIVER = LAMP + '[services.lamp.drivers.desk]\ndriver = "gpio"\n'


class Listener(Manager):
    """Works until it is told of the stop."""

    class Options(ManagerOptions):
        poll: Seconds = Field(1, gt=0, help="Spacing")

    told: threading.Event
    begun: threading.Event

    def _until_told(self, ctx):
        self.begun.set()
        until = time.monotonic() + 20
        while not ctx.cancelled and time.monotonic() < until:
            time.sleep(0.01)
        if ctx.cancelled:
            self.told.set()
        ctx.check()

    @periodic(spacing="poll")
    def watch(self, ctx: Context) -> None:
        self._until_told(ctx)

    @exposed(role="operator")
    def work(self, ctx: Context) -> None:
        """Work until it is told."""
        self._until_told(ctx)


@pytest.fixture
def listener():
    return type("Listener", (Listener,), {"told": threading.Event(), "begun": threading.Event()})


async def stopped(b, timeout=60):
    """Stop all services; return the seconds that it took, and what hung."""
    before = asyncio.get_running_loop().time()
    hung = await b.group.stop(timeout)
    return asyncio.get_running_loop().time() - before, hung


async def reached(trouble, where):
    while where not in trouble.calls:
        await asyncio.sleep(0.1)


@pytest.mark.failure_mode("Life", "SIGTERM with a driver hung in a native call")
async def test_a_stop_with_a_driver_that_is_stuck_already(bench, trouble) -> None:
    trouble.hang("work desk")
    async with bench(DRIVER + 'call_timeout = "2s"\n') as b:
        await b.runtime.start()
        with pytest.raises(DriverStuck):
            await b.service().drivers.call("desk", "work")
        seconds, hung = await stopped(b)
        assert seconds < 3
        assert hung == ["driver desk of service lamp"]
        assert "cleanup desk" in trouble.calls


async def test_a_stop_with_an_initialise_that_has_outlived_its_time(bench, trouble) -> None:
    trouble.hang("initialise desk white")
    async with bench(DRIVER + 'init_timeout = "2s"\n') as b:
        await b.runtime.start()
        await asyncio.sleep(5)
        seconds, hung = await stopped(b)
        assert seconds < 3
        assert hung == ["driver desk of service lamp"]
        assert "cleanup desk" not in trouble.calls


@pytest.mark.failure_mode("Periodic", "one that never ends")
async def test_a_stop_with_a_periodic_task_that_hangs(bench, trouble, caplog) -> None:
    trouble.hang("poll")
    async with bench(LAMP + 'poll = "1s"\n') as b:
        await b.runtime.start()
        await reached(trouble, "poll")
        await asyncio.sleep(5)
        seconds, (hung,) = await stopped(b)
        assert seconds < 7
        assert hung.startswith("poll on lamp-")
    assert "no longer waiting for: poll on lamp-" in caplog.text


async def test_a_run_that_is_in_time_is_waited_for(bench, trouble) -> None:
    gate = trouble.hang("poll")
    async with bench(LAMP + 'poll = "1min"\n') as b:
        await b.runtime.start()
        await reached(trouble, "poll")
        stopping = asyncio.ensure_future(stopped(b))
        await asyncio.sleep(15)
        assert not stopping.done()
        gate.set()
        assert (await stopping)[1] == []


async def test_a_periodic_run_is_told_of_the_stop_and_its_end_is_no_failure(bench, listener, caplog) -> None:
    async with bench('[services.l]\nmanager = "listener"\n', listener=listener) as b:
        await b.runtime.start()
        while not listener.begun.is_set():
            await asyncio.sleep(0.1)
        assert (await stopped(b))[1] == []
        assert listener.told.is_set()
        (run,) = b.runtime.periodic_scheduler.pop_changed_runs()
        assert (run.errors, run.last_error) == (0, "")
    assert "failed" not in caplog.text


async def test_a_request_that_outlives_the_drain_is_told_of_the_stop(bench, listener) -> None:
    config = '[services.l]\nmanager = "listener"\npoll = "1h"\ndrain_timeout = "2s"\n'
    async with bench(config, listener=listener) as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.on(timeout=3600.0).acall("l", "work"))
        while not listener.begun.is_set():
            await asyncio.sleep(0.1)
        await stopped(b)
        assert listener.told.wait(10)
        with pytest.raises(OstlerError):
            await working


async def test_a_cleanup_that_hangs_takes_no_longer_than_a_drain_may(bench, trouble) -> None:
    trouble.hang("cleanup_host lamp")
    trouble.hang("cleanup desk")
    async with bench(DRIVER.replace("[services.lamp.drivers", 'drain_timeout = "10s"\n[services.lamp.drivers')) as b:
        await b.runtime.start()
        seconds, hung = await stopped(b, 300)
        assert seconds <= 11
        assert len(hung) == 2


async def test_a_reset_that_has_outlived_its_time_is_named_and_not_waited_for(bench, trouble) -> None:
    trouble.hang("reset lamp")
    async with bench(LAMP + 'start_timeout = "5s"\n') as b:
        await b.runtime.start()
        (problem,) = await b.reset(LAMP + 'start_timeout = "5s"\n')
        assert "did not return within 5s" in problem
        seconds, (hung,) = await stopped(b)
        assert seconds < 2
        assert hung.startswith("lamp.reset on lamp-reset-1")


async def test_what_is_waited_for_has_a_name_while_it_lasts(bench, trouble) -> None:
    gate = trouble.hang("cleanup_host lamp")
    async with bench(LAMP) as b:
        await b.runtime.start()
        stopping = asyncio.ensure_future(b.group.stop(60))
        await asyncio.sleep(3)
        assert b.service().step == "stopping cleanup_host"
        gate.set()
        assert await stopping == []
        assert b.service().step == ""


async def test_a_reset_is_run_again_beside_one_that_hangs_and_not_too_often(bench, trouble) -> None:
    config = LAMP + 'start_timeout = "5s"\n'
    gate = trouble.gates["reset lamp"] = threading.Event()
    async with bench(config) as b:
        await b.runtime.start()
        assert "did not return within 5s" in (await b.reset(config))[0]
        del trouble.gates["reset lamp"]
        assert await b.reset(config) == []
        trouble.gates["reset lamp"] = gate
        await b.reset(config)
        await b.reset(config)
        assert "was not started: 3 earlier ones have not returned" in (await b.reset(config))[0]
