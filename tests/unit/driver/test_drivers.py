"""The drivers of one service: states, time budgets, proxies, teardown."""

import asyncio
import threading

import pytest
from msgspec.structs import replace

from ostler.aio import WorkerPool
from ostler.driver import Driver
from ostler.errors import (
    Busy,
    ContractError,
    DriverError,
    DriverNotFound,
    DriverNotReady,
    DriverStuck,
    FeatureNotSupported,
    NotFound,
)
from ostler.messaging.wire.request_context import Context, serving
from ostler.testing.virtual_time import virtual_clock
from ostler.types import DriverState

pytestmark = pytest.mark.virtual_time(stall_timeout=0.1)


@pytest.fixture
def pool():
    """The threads of the service that calls the drivers."""
    made = WorkerPool("light", 8)
    yield made
    made.close()
    made.join(5)


async def call(pool, work):
    return await pool.run(work, label="call")


def names_of_threads():
    return [thread.name for thread in threading.enumerate()]


async def test_a_driver_becomes_ready_off_the_start_path(bench, lamp):
    lamp.init_gate.clear()
    b = bench(lamp)
    await b.drivers.start()
    assert b.drivers.status("hall").state is DriverState.INITIALISING
    assert b.drivers.ready() == []
    lamp.init_gate.set()
    assert await b.drivers.wait(5) == []
    assert b.drivers.ready() == ["hall"]
    await asyncio.sleep(0)
    assert b.readies == ["hall"]
    assert b.changes[-1] == ("hall", "ready")
    await b.drivers.stop(5)


async def test_wait_returns_the_names_of_those_that_are_not_ready_in_time(bench, lamp):
    b = bench(lamp)
    lamp.init_gate.clear()
    await b.drivers.start()
    begun = asyncio.get_running_loop().time()
    assert await b.drivers.wait(5) == ["hall"]
    assert asyncio.get_running_loop().time() - begun == pytest.approx(5)
    lamp.init_gate.set()
    await b.drivers.stop(5)


async def test_a_call_runs_in_a_named_thread_of_the_driver_and_returns_its_result(bench, lamp, pool):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    assert await call(pool, lambda: b.drivers["hall"].switch("l1", on=True)) == "l1 on"
    assert await b.drivers.call("hall", "switch", "l2", False) == "l2 off"
    assert lamp.log_of[1].startswith("switch l1 light.hall-")
    assert b.drivers.status("hall").calls == 2
    await b.drivers.stop(5)


async def test_a_call_on_the_loop_is_refused_with_the_way_to_do_it(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    with pytest.raises(DriverError, match=r"await drivers.call\(\"hall\", \"switch\""):
        b.drivers["hall"].switch("l1", on=True)
    await b.drivers.stop(5)


async def test_before_it_is_ready_calls_are_refused_at_once_with_the_reason(bench, lamp, pool):
    b = bench(lamp)
    lamp.fail_first = 1
    lamp.init_gate.clear()
    await b.drivers.start()
    with pytest.raises(DriverNotReady, match="driver hall of light is still initialising"):
        await call(pool, lambda: b.drivers["hall"].switch("l", True))
    lamp.init_gate.set()
    await b.until("hall", DriverState.FAILED)
    with pytest.raises(DriverNotReady, match=r"is not ready, next attempt in [45]s: OSError: no device, try 1"):
        await b.drivers.call("hall", "switch", "l", True)
    await b.drivers.stop(5)
    with pytest.raises(DriverNotReady, match="has been stopped"):
        await b.drivers.call("hall", "switch", "l", True)


@pytest.mark.failure_mode("Plugins", "one that fails three times and then works")
async def test_a_driver_that_fails_three_times_and_then_works(bench, lamp):
    loop, clock = asyncio.get_running_loop(), virtual_clock()
    lamp.fail_first = 3
    b = bench((lamp, "hall", {"retry_interval": 10, "max_retry_interval": 15}))
    begun = loop.time()
    await b.drivers.start()
    failed = await b.until("hall", DriverState.FAILED)
    assert failed.tries == 1
    assert 7.4 <= failed.retry_at - clock.wall() <= 10
    assert "no device, try 1" in failed.why
    assert await b.drivers.wait(100) == []
    # 10, then 15 and 15 at the cap, each shortened by a quarter at most
    assert 40 * 0.75 - 0.1 <= loop.time() - begun <= 40.1
    assert lamp.tries == 4
    assert len(lamp.made) == 1, "one instance, tried again"
    assert (b.drivers.status("hall").tries, b.drivers.status("hall").retry_at) == (0, 0.0)
    async with asyncio.timeout(10):
        while not b.readies:  # what is told of a change comes after the change
            await asyncio.sleep(0.01)
    assert [state for _, state in b.changes] == [*["initialising", "failed"] * 3, "initialising", "ready"]
    assert b.readies == ["hall"]
    await b.drivers.stop(5)


async def test_a_start_waits_for_first_tries_only(bench, lamp):
    loop = asyncio.get_running_loop()
    lamp.fail_first = 3
    b = bench((lamp, "hall", {"retry_interval": 10}))
    begun = loop.time()
    await b.drivers.start()
    assert await b.drivers.wait(100, retries=False) == ["hall"]
    assert loop.time() - begun < 1
    await b.drivers.stop(5)


@pytest.mark.failure_mode("Plugins", "a driver that never comes back")
async def test_a_driver_that_never_comes_back_is_stuck_while_the_others_work(bench, lamp, pool):
    class Other(lamp):
        init_gate = threading.Event()

    Other.init_gate.set()

    lamp.init_gate.clear()
    b = bench((lamp, "hall", {"init_timeout": 30}), (Other, "kitchen", {}))
    await b.drivers.start()
    stuck = await b.until("hall", DriverState.STUCK)
    assert stuck.why == "initialise did not return within its 30s"
    assert b.drivers.ready() == ["kitchen"]
    assert await b.drivers.call("kitchen", "switch", "l", True) == "l on"
    with pytest.raises(DriverStuck, match="initialise did not return"):
        await call(pool, lambda: b.drivers["hall"].switch("l", True))
    assert await b.drivers.stop(5) == ["hall"]
    assert b.drivers.status("hall").state is DriverState.STUCK
    assert b.drivers.status("kitchen").state is DriverState.STOPPED


async def test_an_initialise_that_comes_back_late_makes_the_driver_ready(bench, lamp):
    lamp.init_gate.clear()
    b = bench((lamp, "hall", {"init_timeout": 30}))
    await b.drivers.start()
    await b.until("hall", DriverState.STUCK)
    lamp.init_gate.set()
    await b.until("hall", DriverState.READY)
    assert await b.drivers.stop(5) == []


async def test_an_initialise_that_comes_back_late_and_raises_is_tried_again(bench, lamp):
    lamp.init_gate.clear()
    lamp.fail_first = 1
    b = bench((lamp, "hall", {"init_timeout": 30}))
    await b.drivers.start()
    await b.until("hall", DriverState.STUCK)
    lamp.init_gate.set()
    assert "no device" in (await b.until("hall", DriverState.FAILED)).why
    await b.until("hall", DriverState.READY)
    await b.drivers.stop(5)


@pytest.mark.failure_mode("Plugins", "a driver that never comes back")
async def test_a_call_beyond_its_budget_frees_its_caller_and_makes_the_driver_stuck(bench, lamp, pool):
    loop = asyncio.get_running_loop()
    b = bench((lamp, "hall", {"call_timeout": 60}))
    await b.drivers.start()
    await b.drivers.wait(5)
    begun = loop.time()
    with pytest.raises(DriverStuck, match="hall of light is stuck: hang has not returned for 1min") as caught:
        await call(pool, b.drivers["hall"].hang)
    assert loop.time() - begun == pytest.approx(60, abs=0.5)
    assert caught.value.details["method"] == "hang"
    assert b.drivers.status("hall").state is DriverState.STUCK
    begun = loop.time()
    with pytest.raises(DriverStuck, match="hang did not return within its 1min, since 2027-"):
        await call(pool, lambda: b.drivers["hall"].switch("l", True))
    assert loop.time() == begun, "refused at once"
    lamp.gate.set()
    await b.until("hall", DriverState.READY)
    assert await b.drivers.call("hall", "switch", "l", True) == "l on"
    assert b.readies == ["hall", "hall"], "told again: what hung may have left things behind"
    assert await b.drivers.stop(5) == []


async def test_two_calls_over_their_budget_both_have_to_come_back(bench, lamp, pool):
    second_gate = threading.Event()

    class Two(lamp):
        def second(self):
            second_gate.wait(30)

    b = bench(Two)
    await b.drivers.start()
    await b.drivers.wait(5)
    results = await asyncio.gather(
        b.drivers.call("hall", "hang"), b.drivers.call("hall", "second"), return_exceptions=True
    )
    assert [type(result) for result in results] == [DriverStuck, DriverStuck]
    lamp.gate.set()
    await asyncio.sleep(1)
    assert b.drivers.status("hall").state is DriverState.STUCK
    second_gate.set()
    await b.until("hall", DriverState.READY)
    await b.drivers.stop(5)


@pytest.mark.parametrize(("method", "budget"), [("patient", 600), ("brief", 1.5)])
async def test_a_method_may_have_a_budget_of_its_own(bench, lamp, method, budget):
    loop = asyncio.get_running_loop()
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    begun = loop.time()
    with pytest.raises(DriverStuck):
        await b.drivers.call("hall", method)
    assert loop.time() - begun == pytest.approx(budget, abs=0.1)
    lamp.gate.set()
    await b.until("hall", DriverState.READY)
    await b.drivers.stop(5)


async def test_a_method_without_a_budget_may_take_for_ever(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = asyncio.ensure_future(b.drivers.call("hall", "endless"))
    await asyncio.sleep(86400)
    assert b.drivers.status("hall").state is DriverState.READY
    lamp.gate.set()
    assert await waiting == "came back"
    await b.drivers.stop(5)


@pytest.mark.parametrize("sync", [True, False])
async def test_progress_of_the_request_starts_the_budget_anew(bench, lamp, pool, sync):
    loop = asyncio.get_running_loop()
    b = bench((lamp, "hall", {"call_timeout": 60}))
    await b.drivers.start()
    await b.drivers.wait(5)
    context = Context("light", "copy", clock=virtual_clock())
    begun = loop.time()
    with serving(context):
        work = call(pool, b.drivers["hall"].hang) if sync else b.drivers.call("hall", "hang")
        waiting = asyncio.ensure_future(work)
    for step in range(10):
        await asyncio.sleep(50)
        context.progress(step, 10)
    assert b.drivers.status("hall").state is DriverState.READY
    with pytest.raises(DriverStuck):
        await waiting
    assert loop.time() - begun == pytest.approx(560, abs=1)
    lamp.gate.set()
    await b.until("hall", DriverState.READY)
    await b.drivers.stop(5)


async def test_a_crowded_driver_is_busy_and_not_stuck(bench, lamp):
    b = bench((lamp, "hall", {"workers": 1, "call_timeout": 60}))
    await b.drivers.start()
    await b.drivers.wait(5)
    first = asyncio.ensure_future(b.drivers.call("hall", "patient"))
    await asyncio.sleep(1)
    with pytest.raises(Busy, match="switch of driver hall of light got no free thread within 1min"):
        await b.drivers.call("hall", "switch", "late", True)
    assert b.drivers.status("hall").state is DriverState.READY
    lamp.gate.set()
    assert await first == "came back"
    assert await b.drivers.call("hall", "switch", "next", True) == "next on"
    assert not [line for line in lamp.log_of if "late" in line], "what nobody waits for is not begun"
    await b.drivers.stop(5)


async def test_a_caller_that_waits_behind_a_stuck_call_is_told_that_it_is_stuck(bench, lamp):
    b = bench((lamp, "hall", {"workers": 1, "call_timeout": 60}))
    await b.drivers.start()
    await b.drivers.wait(5)
    first = asyncio.ensure_future(b.drivers.call("hall", "hang"))
    await asyncio.sleep(1)
    with pytest.raises(DriverStuck, match="hang has not returned for 1min"):
        await b.drivers.call("hall", "switch", "l", True)
    with pytest.raises(DriverStuck):
        await first
    lamp.gate.set()
    await b.until("hall", DriverState.READY)
    await b.drivers.stop(5)


async def test_a_cancelled_wait_is_watched_on(bench, lamp):
    b = bench((lamp, "hall", {"call_timeout": 60}))
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = asyncio.ensure_future(b.drivers.call("hall", "hang"))
    await asyncio.sleep(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await b.until("hall", DriverState.STUCK)
    lamp.gate.set()
    await b.until("hall", DriverState.READY)
    await b.drivers.stop(5)


@pytest.mark.failure_mode("Plugins", "one that cancels all tasks, stops the loop or exits")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_driver_that_raises_system_exit_harms_only_its_caller(bench, lamp, pool, kind):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    for work in (call(pool, lambda: b.drivers["hall"].fail(kind)), b.drivers.call("hall", "fail", kind)):
        with pytest.raises(DriverError, match=f"fail of driver hall of light raised {kind.__name__}: no"):
            await work
    assert b.drivers.status("hall").state is DriverState.READY
    await b.drivers.stop(5)


async def test_an_initialise_that_raises_system_exit_is_a_failed_try(bench, lamp):
    class Exits(lamp):
        def initialise(self):
            raise SystemExit(3)

    b = bench(Exits)
    await b.drivers.start()
    assert "raised SystemExit: 3" in (await b.until("hall", DriverState.FAILED)).why
    await b.drivers.stop(5)


async def test_an_ordinary_error_reaches_the_caller_as_it_is(bench, lamp, pool):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    with pytest.raises(FileNotFoundError, match="no"):
        await call(pool, lambda: b.drivers["hall"].fail(FileNotFoundError))
    with pytest.raises(TypeError, match="switch"):
        await b.drivers.call("hall", "switch")
    await b.drivers.stop(5)


@pytest.mark.parametrize("method", ["generate", "coroutine"])
async def test_a_method_that_does_its_work_later_is_refused(bench, lamp, method):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    with pytest.raises(DriverError, match="instead of a result"):
        await b.drivers.call("hall", method)
    await b.drivers.stop(5)


async def test_plain_data_passes_and_the_rest_stays_with_the_driver(bench, lamp, pool):
    b = bench(lamp)
    proxy = b.drivers["hall"]
    await b.drivers.start()
    await b.drivers.wait(5)
    assert (proxy.name, proxy.features, proxy.serial, proxy.kinds) == ("hall", frozenset(), "L-1", ("led", "bulb"))
    assert proxy.options.workers == 4
    assert await call(pool, proxy.unit) == "lux"
    for hidden in ("wires", "shelf", "brightness", "_secret", "nothing", "Options"):
        with pytest.raises(AttributeError, match=hidden):
            getattr(proxy, hidden)
    with pytest.raises(AttributeError):
        proxy.serial = "mine"
    assert repr(proxy) == "<driver hall of light: ready>"
    await b.drivers.stop(5)


async def test_it_is_a_mapping_of_names(bench, lamp):
    b = bench((lamp, "hall", {}), (lamp, "attic", {}))
    assert list(b.drivers) == ["hall", "attic"]
    assert len(b.drivers) == 2
    assert "hall" in b.drivers
    assert b.drivers.get("cellar") is None
    for look in (b.drivers.__getitem__, b.drivers.status, b.drivers.options):
        with pytest.raises(DriverNotFound, match=r"driver cellar not found; available: hall, attic"):
            look("cellar")
    with pytest.raises(KeyError):
        b.drivers["cellar"]
    with pytest.raises(DriverNotFound):
        await b.drivers.call("cellar", "switch", "a", True)
    assert [status.driver for status in b.drivers.statuses()] == ["lamp", "lamp"]


async def test_stop_before_start_is_safe_and_so_is_a_second_stop(bench, lamp):
    b = bench(lamp)
    assert await b.drivers.stop(5) == []
    assert await b.drivers.stop(5) == []
    await b.drivers.start()
    await asyncio.sleep(1)
    assert b.drivers.status("hall").state is DriverState.STOPPED
    assert lamp.made == []


async def test_cleanup_runs_once_also_after_an_initialise_that_failed(bench, lamp):
    lamp.fail_first = 100
    b = bench(lamp)
    await b.drivers.start()
    await b.until("hall", DriverState.FAILED)
    assert await b.drivers.stop(5) == []
    await b.drivers.stop(5)
    assert lamp.log_of.count("cleanup") == 1
    tries = lamp.tries
    await asyncio.sleep(10_000)
    assert lamp.tries == tries, "no further try after the stop"


async def test_a_cleanup_that_hangs_is_named_and_the_stop_keeps_its_deadline(bench, lamp):
    loop = asyncio.get_running_loop()
    lamp.cleanup_gate.clear()
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    begun = loop.time()
    assert await b.drivers.stop(10) == ["hall"]
    assert loop.time() - begun == pytest.approx(10, abs=0.1)
    assert b.drivers.status("hall").why == "cleanup hung"


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
async def test_a_cleanup_that_raises_is_said_and_the_driver_is_stopped(bench, lamp, kind):
    class Fails(lamp):
        def cleanup(self):
            raise kind("no")

    b = bench(Fails)
    await b.drivers.start()
    await b.drivers.wait(5)
    assert await b.drivers.stop(5) == []
    status = b.drivers.status("hall")
    assert status.state is DriverState.STOPPED
    assert status.why.startswith("cleanup failed: ")


@pytest.mark.failure_mode("Life", "SIGTERM with a driver hung in a native call")
async def test_a_stop_with_a_hung_call_still_cleans_up_and_frees_the_caller(bench, lamp, pool):
    b = bench((lamp, "hall", {"call_timeout": 1000}))
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = asyncio.ensure_future(call(pool, b.drivers["hall"].hang))
    await asyncio.to_thread(lamp.hanging.wait, 10)
    assert await b.drivers.stop(10) == ["hall"]
    with pytest.raises(DriverStuck):
        await waiting
    assert "cleanup" in lamp.log_of
    assert "hang (for" in b.drivers.status("hall").why


async def test_a_stop_waits_for_a_call_that_ends_in_time(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = asyncio.ensure_future(b.drivers.call("hall", "hang"))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(2, lamp.gate.set)
    assert await b.drivers.stop(60) == []
    assert await waiting == "came back"


@pytest.mark.failure_mode("Life", "a backend that is removed while it works")
async def test_a_driver_that_is_removed_ends_its_calls_first_and_takes_no_others(bench, lamp):
    b = bench(lamp, (lamp, "desk", {}))
    await b.drivers.start()
    await b.drivers.wait(5)
    working = asyncio.ensure_future(b.drivers.call("hall", "hang"))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(50, lamp.gate.set)
    removal = asyncio.ensure_future(b.drivers.remove("hall", 60, 5))
    await asyncio.sleep(1)
    with pytest.raises(DriverNotReady, match="has been stopped"):
        await b.drivers.call("hall", "switch", "l1", True)
    assert await b.drivers.call("desk", "switch", "l1", True) == "l1 on"
    assert "cleanup" not in lamp.log_of
    assert await removal is False
    assert await working == "came back"
    assert lamp.log_of.count("cleanup") == 1
    assert list(b.drivers) == ["desk"]
    with pytest.raises(DriverNotFound):
        await b.drivers.call("hall", "switch", "l1", True)
    await b.drivers.stop(5)


@pytest.mark.failure_mode("Life", "a backend that is removed while it works")
async def test_a_driver_that_is_removed_is_not_waited_for_longer_than_its_drain(bench, lamp):
    b = bench(lamp, (lamp, "desk", {}))
    await b.drivers.start()
    await b.drivers.wait(5)
    working = asyncio.ensure_future(b.drivers.call("hall", "endless"))
    await asyncio.sleep(0)
    begun = asyncio.get_running_loop().time()
    assert await b.drivers.remove("hall", 60, 5) is True
    assert asyncio.get_running_loop().time() - begun == pytest.approx(60, abs=1)
    with pytest.raises(DriverError):
        await working
    assert list(b.drivers) == ["desk"]
    lamp.gate.set()
    await b.drivers.stop(5)


async def test_no_cleanup_beside_an_initialise_that_hangs(bench, lamp):
    lamp.init_gate.clear()
    b = bench(lamp)
    await b.drivers.start()
    await asyncio.sleep(1)
    assert await b.drivers.stop(4) == ["hall"]
    assert "cleanup" not in lamp.log_of
    assert "initialise" in b.drivers.status("hall").why


async def test_after_the_stop_the_threads_end(bench, lamp):
    b = bench((lamp, "gone", {}))
    await b.drivers.start()
    await b.drivers.wait(5)
    await b.drivers.stop(5)
    for thread in threading.enumerate():
        if thread.name.startswith("light.gone"):
            thread.join(5)
    assert not [name for name in names_of_threads() if name.startswith("light.gone")]


async def test_new_options_are_taken_by_a_new_instance_and_calls_meanwhile_wait(bench, lamp, pool):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    lamp.init_gate.clear()
    renewing = asyncio.ensure_future(b.drivers.reinitialise("hall", lamp.Options(driver="lamp", patience=5)))
    await asyncio.sleep(1)
    held = [
        asyncio.ensure_future(call(pool, lambda: b.drivers["hall"].switch("held", True))),
        asyncio.ensure_future(b.drivers.call("hall", "switch", "held", True)),
    ]
    await asyncio.sleep(1)
    assert not any(task.done() for task in held)
    lamp.init_gate.set()
    assert (await renewing).state is DriverState.READY
    assert await asyncio.gather(*held) == ["held on", "held on"]
    assert b.drivers["hall"].options.patience == 5
    assert len(lamp.made) == 2
    assert lamp.made[1].options.patience == 5
    assert lamp.log_of.count("cleanup") == 1
    await b.drivers.stop(5)
    assert lamp.log_of.count("cleanup") == 2


async def test_failures_of_a_driver_are_counted_over_a_change_of_its_threads(bench, lamp):
    b = bench((lamp, "hall", {"workers": 1}))
    await b.drivers.start()
    await b.drivers.wait(5)
    for workers in (3, 5):
        with pytest.raises(OSError, match="no"):
            await b.drivers.call("hall", "fail", OSError)
        await b.drivers.reinitialise("hall", lamp.Options(driver="lamp", workers=workers))
    assert b.drivers.statuses()[0].errors == 2
    await b.drivers.stop(5)


async def test_new_options_wait_for_calls_under_way(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = asyncio.ensure_future(b.drivers.call("hall", "hang"))
    await asyncio.sleep(1)
    asyncio.get_running_loop().call_later(3, lamp.gate.set)
    assert (await b.drivers.reinitialise("hall")).state is DriverState.READY
    assert await waiting == "came back"
    await b.drivers.stop(5)


async def test_new_options_wait_for_a_call_that_was_stuck_and_came_back(bench, lamp, pool):
    b = bench((lamp, "hall", {"call_timeout": 10}))
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = asyncio.ensure_future(b.drivers.call("hall", "hang"))
    await asyncio.sleep(1)
    renewing = asyncio.ensure_future(b.drivers.reinitialise("hall", timeout=60))
    with pytest.raises(DriverStuck):
        await waiting
    asyncio.get_running_loop().call_later(3, lamp.gate.set)
    assert (await renewing).state is DriverState.READY
    assert len(lamp.made) == 2
    assert await b.drivers.call("hall", "switch", "l", True) == "l on"
    await b.drivers.stop(5)


async def test_a_stop_in_the_middle_of_new_options_ends_both(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    lamp.init_gate.clear()
    renewing = asyncio.ensure_future(b.drivers.reinitialise("hall"))
    await asyncio.sleep(1)
    asyncio.get_running_loop().call_later(2, lamp.init_gate.set)
    assert await b.drivers.stop(60) == []
    await renewing
    assert b.drivers.status("hall").state is DriverState.STOPPED
    assert lamp.log_of.count("cleanup") == 2


async def test_new_options_after_the_stop_are_refused(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.stop(5)
    with pytest.raises(DriverNotReady, match="cannot apply new options, it is stopped"):
        await b.drivers.reinitialise("hall")


async def test_new_options_wait_beside_for_long_work_and_hold_up_nobody(bench, lamp):
    loop = asyncio.get_running_loop()
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = asyncio.ensure_future(b.drivers.call("hall", "patient"))
    await asyncio.sleep(1)
    begun = loop.time()
    renewing = asyncio.ensure_future(b.drivers.reinitialise("hall", lamp.Options(driver="lamp", patience=5)))
    await asyncio.sleep(0.1)
    assert await b.drivers.call("hall", "switch", "l", True) == "l on"
    assert loop.time() - begun < 0.2, "not held: what is under way may last for hours"
    status = await renewing
    assert loop.time() - begun == pytest.approx(10, abs=0.2)
    assert status.state is DriverState.READY
    assert status.pending == "applies new options as soon as no call is in progress: patient (for 11s)"
    assert b.drivers["hall"].options.patience == 600
    begun = loop.time()
    assert await b.drivers.call("hall", "switch", "l", True) == "l on"
    assert loop.time() - begun < 0.1, "not held any more"
    lamp.gate.set()
    assert await waiting == "came back"
    while b.drivers.status("hall").pending or len(lamp.made) < 2:
        await asyncio.sleep(0.1)
    await b.until("hall", DriverState.READY)
    assert b.drivers["hall"].options.patience == 5
    await b.drivers.stop(5)


async def test_new_options_hold_calls_for_a_moment_while_what_is_under_way_has_just_begun(bench, lamp):
    loop = asyncio.get_running_loop()
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = asyncio.ensure_future(b.drivers.call("hall", "patient"))
    await asyncio.sleep(0.5)
    begun = loop.time()
    renewing = asyncio.ensure_future(b.drivers.reinitialise("hall", lamp.Options(driver="lamp", patience=5)))
    await asyncio.sleep(0.1)
    assert await b.drivers.call("hall", "switch", "l", True) == "l on"
    assert loop.time() - begun == pytest.approx(1, abs=0.2)
    assert (await renewing).pending
    lamp.gate.set()
    await waiting
    await b.drivers.stop(5)


async def test_calls_that_overlap_all_the_time_do_not_put_new_options_off_for_ever(bench, lamp, pool):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    done = asyncio.Event()

    async def work(offset):
        await asyncio.sleep(offset)
        while not done.is_set():
            await call(pool, lambda: b.drivers["hall"].nap(0.02))

    work = [asyncio.ensure_future(work(number / 20)) for number in range(3)]
    status = await b.drivers.reinitialise("hall", lamp.Options(driver="lamp", patience=5), timeout=60)
    assert (status.state, status.pending) == (DriverState.READY, "")
    assert b.drivers["hall"].options.patience == 5
    done.set()
    await asyncio.gather(*work)
    await b.drivers.stop(5)


async def test_of_new_options_that_wait_the_last_ones_count_and_they_can_be_withdrawn(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = asyncio.ensure_future(b.drivers.call("hall", "patient"))
    await asyncio.sleep(1)
    for patience in (5, 6):
        new = lamp.Options(driver="lamp", patience=patience)
        assert (await b.drivers.reinitialise("hall", new, timeout=0.1)).pending
    lamp.gate.set()
    await waiting
    while b.drivers["hall"].options.patience != 6:
        await asyncio.sleep(0.1)
    await b.until("hall", DriverState.READY)
    assert len(lamp.made) == 2
    lamp.gate.clear()
    waiting = asyncio.ensure_future(b.drivers.call("hall", "hang"))
    await asyncio.sleep(1)
    assert (await b.drivers.reinitialise("hall", lamp.Options(driver="lamp", patience=7), timeout=0.1)).pending
    b.drivers.discard_pending_options("hall")
    assert b.drivers.status("hall").pending == ""
    lamp.gate.set()
    await waiting
    await asyncio.sleep(10)
    assert b.drivers["hall"].options.patience == 6
    assert len(lamp.made) == 2
    await b.drivers.stop(5)


async def test_new_options_that_do_not_work_are_retried_and_the_held_are_told(bench, lamp, pool):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    lamp.fail_first = lamp.tries + 1
    renewing = asyncio.ensure_future(b.drivers.reinitialise("hall"))
    await asyncio.sleep(0)
    held = asyncio.ensure_future(call(pool, lambda: b.drivers["hall"].switch("l", True)))
    status = await renewing
    assert status.state is DriverState.FAILED
    with pytest.raises(DriverNotReady, match="no device"):
        await held
    await b.until("hall", DriverState.READY)
    await b.drivers.stop(5)


async def test_a_failed_driver_can_be_given_other_options_at_once(bench, lamp):
    lamp.fail_first = 1
    b = bench((lamp, "hall", {"retry_interval": 1000, "max_retry_interval": 1000}))
    await b.drivers.start()
    await b.until("hall", DriverState.FAILED)
    assert (await b.drivers.reinitialise("hall")).state is DriverState.READY
    await asyncio.sleep(5000)
    assert lamp.tries == 2, "the old retry is gone"
    await b.drivers.stop(5)


async def test_a_stuck_driver_takes_other_options_when_it_has_come_back(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    with pytest.raises(DriverStuck):
        await b.drivers.call("hall", "hang")
    status = await b.drivers.reinitialise("hall", lamp.Options(driver="lamp", patience=5))
    assert status.state is DriverState.STUCK
    assert "new options as soon as no call is in progress: hang (for 1min 10s)" in status.pending
    with pytest.raises(DriverStuck):  # refused at once, and not held
        await asyncio.wait_for(b.drivers.call("hall", "switch", "l", True), 0.1)
    lamp.gate.set()
    while b.drivers["hall"].options.patience != 5:
        await asyncio.sleep(0.1)
    await b.until("hall", DriverState.READY)
    assert len(lamp.made) == 2
    await b.drivers.stop(5)


async def test_a_factory_makes_the_driver_and_its_product_is_held_against_the_contract(bench_of_specs, lamp):
    class Odd(Driver):
        pass

    bench, spec_of = bench_of_specs
    contract = lamp.__mro__[2]
    good = replace(spec_of(lamp, "good"), cls=None, build=lamp, contract=contract)
    odd = replace(spec_of(lamp, "odd"), cls=None, build=Odd, contract=contract)
    b = bench(good, odd)
    await b.drivers.start()
    assert await b.drivers.wait(1000) == ["odd"]
    status = b.drivers.status("odd")
    assert status.state is DriverState.FAILED
    assert status.retry_at == 0, "no further try can help"
    assert "does not fulfil LampDriver: it does not derive from LampDriver" in status.why
    assert asyncio.get_running_loop().time() < 1100
    await b.drivers.stop(5)


async def test_neither_class_nor_factory_is_an_error_of_the_driver(bench_of_specs, lamp):
    bench, spec_of = bench_of_specs
    b = bench(replace(spec_of(lamp), cls=None))
    await b.drivers.start()
    assert "neither a class nor a factory" in (await b.until("hall", DriverState.FAILED)).why
    await b.drivers.stop(5)


def test_a_loop_that_hangs_does_not_hold_up_a_time_budget(bench, lamp, pool):
    """The waiting caller looks at the clock itself; here nobody runs the loop at all while it waits."""
    from ostler.clock import SystemClock
    from ostler.driver import Drivers
    from ostler.testing.virtual_time import VirtualTimeLoop

    loop = VirtualTimeLoop()

    async def begin():
        import logging

        from ostler.driver import DriverEnvironment, DriverSpec

        options = lamp.Options(driver="lamp", call_timeout=0.1)
        environment = DriverEnvironment(
            name="hall", topic="light", host="n", options=options, clock=SystemClock(),
            log=logging.LoggerAdapter(logging.getLogger("t"), {}), kv=None,
        )  # fmt: skip
        drivers = Drivers(
            {"hall": DriverSpec(name="hall", cls=lamp, options=options, environment=environment)}, loop, SystemClock()
        )
        await drivers.start()
        await drivers.wait(5)
        return drivers

    drivers = loop.run_until_complete(begin())
    answers = []
    ended = threading.Event()
    pool.submit(drivers["hall"].hang, lambda result, error: (answers.append(error), ended.set()), label="hang")
    assert ended.wait(10)
    assert isinstance(answers[0], DriverStuck)
    lamp.gate.set()
    loop.run_until_complete(drivers.stop(5))
    loop.close()


def test_contract_errors_name_the_driver():
    from ostler.driver import require_contract

    with pytest.raises(ContractError, match="driver hall of light"):
        require_contract(object, Driver, what="driver hall of light")


@pytest.mark.failure_mode("Plugins", "a driver whose calls all fail")
async def test_a_driver_whose_calls_all_fail_is_told_until_one_works(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    for _ in range(4):
        with pytest.raises(OSError, match="no"):
            await b.drivers.call("hall", "fail", OSError)
    await b.drivers.call("hall", "is_working")
    line = b.drivers.problems()["hall"]
    assert line.startswith("driver hall of light: 3 calls in a row or more have failed, since ")
    assert "the last error: fail: OSError: no" in line
    await b.drivers.call("hall", "switch", "a", True)
    assert b.drivers.problems() == {}
    await b.drivers.stop(5)


@pytest.mark.failure_mode("Plugins", "a driver whose calls all fail")
async def test_refusals_between_failures_do_not_hide_that_a_driver_fails(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    for kind in (OSError, NotFound) * 3:
        with pytest.raises(kind):
            await b.drivers.call("hall", "fail", kind)
    assert b.drivers.problems()["hall"].startswith("driver hall of light: 3 calls in a row or more have failed, since ")
    status = b.drivers.status("hall")
    assert (status.failures, status.errors, status.last_error) == (3, 3, "fail: OSError: no")
    assert status.last_error_at > 0
    assert status.last_success_at == 0
    assert status.seconds >= 0
    await b.drivers.stop(5)


async def test_what_a_driver_refuses_is_no_failure(bench, lamp):
    b = bench(lamp)
    await b.drivers.start()
    await b.drivers.wait(5)
    for _ in range(4):
        with pytest.raises(NotFound):
            await b.drivers.call("hall", "fail", NotFound)
    assert b.drivers.problems() == {}
    await b.drivers.stop(5)


@pytest.mark.failure_mode("Plugins", "eight callers of a backend that hangs, and somebody who wants another one")
async def test_a_driver_that_is_found_stuck_answers_all_that_wait_for_it_at_once(bench, lamp, pool):
    loop = asyncio.get_running_loop()
    b = bench((lamp, "hall", {"workers": 8, "call_timeout": 60, "patience": 300}))
    await b.drivers.start()
    await b.drivers.wait(5)
    begun = loop.time()
    waiting = [asyncio.ensure_future(b.drivers.call("hall", "patient")) for _ in range(3)]
    waiting += [asyncio.ensure_future(call(pool, b.drivers["hall"].endless)) for _ in range(3)]
    waiting += [asyncio.ensure_future(b.drivers.call("hall", "hang"))]
    await b.until("hall", DriverState.STUCK)
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert loop.time() - begun == pytest.approx(60, abs=1.5)
    assert {type(error) for error in errors} == {DriverStuck}
    assert all("has not returned for 1min, since 2027-" in str(error) for error in errors)
    assert errors[0].details["since"] == pytest.approx(1_800_000_000, abs=2)
    lamp.gate.set()
    await b.until("hall", DriverState.READY)
    await b.drivers.stop(5)


async def test_what_moves_may_end_beside_a_hung_call_and_is_given_up_when_it_stops(bench, lamp):
    loop = asyncio.get_running_loop()
    b = bench((lamp, "hall", {"call_timeout": 60, "patience": 300}))
    await b.drivers.start()
    await b.drivers.wait(5)
    context = Context("light", "copy", clock=virtual_clock())
    with serving(context):
        moving = asyncio.ensure_future(b.drivers.call("hall", "patient"))
    await asyncio.sleep(1)
    hung = asyncio.ensure_future(b.drivers.call("hall", "hang"))
    for step in range(20):
        await asyncio.sleep(5)
        context.progress(step, 100)
    assert (hung.done(), moving.done()) == (True, False)
    assert b.drivers.status("hall").state is DriverState.STUCK
    stopped = loop.time()
    with pytest.raises(DriverStuck):
        await moving
    assert loop.time() - stopped == pytest.approx(10, abs=1.5)
    with pytest.raises(DriverStuck):
        await hung
    lamp.gate.set()
    await b.until("hall", DriverState.READY)
    await b.drivers.stop(5)


async def test_long_calls_leave_a_thread_of_the_driver_to_short_ones(bench, lamp):
    b = bench((lamp, "hall", {"workers": 3}))
    await b.drivers.start()
    await b.drivers.wait(5)
    long = [asyncio.ensure_future(b.drivers.call("hall", "patient")) for _ in range(5)]
    await asyncio.sleep(1)
    assert await asyncio.wait_for(b.drivers.call("hall", "switch", "l", True), 1) == "l on"
    assert await asyncio.wait_for(b.drivers.call("hall", "off"), 1) == "off"
    lamp.gate.set()
    assert await asyncio.gather(*long) == ["came back"] * 5
    await b.drivers.stop(5)


@pytest.mark.failure_mode("Plugins", "eight callers of a backend that hangs, and somebody who wants another one")
async def test_callers_of_a_driver_that_hangs_take_no_thread_of_their_service(bench, lamp, pool):
    b = bench((lamp, "hall", {"workers": 2}), (lamp, "porch", {}))
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = [asyncio.ensure_future(call(pool, b.drivers["hall"].patient)) for _ in range(20)]
    await asyncio.to_thread(lamp.hanging.wait, 10)
    assert await asyncio.wait_for(call(pool, lambda: b.drivers["porch"].switch("l", True)), 5) == "l on"
    assert len(waiting) == 20
    lamp.gate.set()
    assert await asyncio.gather(*waiting) == ["came back"] * 20
    await b.drivers.stop(5)


async def test_a_driver_in_which_nothing_ends_takes_so_many_calls_and_no_more(bench, lamp):
    b = bench((lamp, "hall", {"workers": 2}))
    await b.drivers.start()
    await b.drivers.wait(5)
    waiting = [asyncio.ensure_future(b.drivers.call("hall", "patient")) for _ in range(102)]
    await asyncio.sleep(2)
    with pytest.raises(Busy, match="patient of driver hall of light was refused: 102 calls wait"):
        await b.drivers.call("hall", "patient")
    assert await b.drivers.call("hall", "switch", "short", True) == "short on"
    lamp.gate.set()
    assert await asyncio.gather(*waiting) == ["came back"] * 102
    assert await b.drivers.call("hall", "switch", "l", True) == "l on"


async def test_a_feature_that_a_driver_does_not_offer_is_refused_by_name(bench, lamp, pool):
    b = bench((lamp, "hall", {}))
    await b.drivers.start()
    await b.drivers.wait(5)
    refused = r"driver hall of light does not support dim"
    with pytest.raises(FeatureNotSupported, match=refused):
        await pool.run(lambda: b.drivers["hall"].dim("a", 3), label="dim")
    with pytest.raises(FeatureNotSupported, match=refused):
        await b.drivers.call("hall", "undim", "a")
    assert b.drivers.status("hall").calls == 0
    await b.drivers.stop(5)
