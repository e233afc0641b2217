import asyncio

import pytest

from ostler.availability import unavailable_reason
from ostler.errors import Conflict, InvalidInput

# private: _context: the clock of the bench, on which it all happens

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


DRIVER = '[services.lamp]\nmanager = "lamp"\n[services.lamp.drivers.desk]\ndriver = "gpio"\n'


async def test_a_driver_that_fails_degrades_the_service_with_why_and_back(bench, trouble) -> None:
    trouble.errors["initialise desk white"] = OSError("no such device")
    async with bench(DRIVER) as b:
        await b.runtime.start()
        assert b.state() == "degraded"
        assert "driver desk is failed" in b.why()
        assert "no such device" in b.why()
        assert "driver_ready desk" not in trouble.calls
        trouble.errors.clear()
        await asyncio.sleep(60)
        assert b.state() == "up"
        assert trouble.calls.count("driver_ready desk") == 1


async def test_drivers_that_hang_delay_the_start_no_longer_than_driver_wait(bench, trouble) -> None:
    trouble.hang("initialise desk white")
    async with bench(DRIVER + 'init_timeout = "1h"\n') as b:
        before = asyncio.get_running_loop().time()
        await b.runtime.start()
        assert 4.9 < asyncio.get_running_loop().time() - before < 7
        assert b.state() == "degraded"
        trouble.let_go()
        await asyncio.sleep(1)
        assert b.state() == "up"


async def test_a_stuck_driver_degrades_the_service_until_it_comes_back(bench, trouble) -> None:
    gate = trouble.hang("work desk")
    async with bench(DRIVER + 'call_timeout = "20s"\n') as b:
        await b.runtime.start()
        call = asyncio.ensure_future(b.service().drivers.call("desk", "work"))
        await asyncio.wait([call])
        assert "stuck" in str(call.exception())
        await asyncio.sleep(1)
        assert "driver desk is stuck" in b.why()
        gate.set()
        await asyncio.sleep(1)
        assert b.state() == "up"


async def fail(b, trouble, error, times=1) -> None:
    trouble.errors["work desk"] = error
    for _ in range(times):
        with pytest.raises(type(error)):
            await b.service().drivers.call("desk", "work")
    await asyncio.sleep(0.1)


@pytest.mark.failure_mode("Plugins", "a driver whose calls all fail")
async def test_a_driver_whose_calls_all_fail_degrades_the_service_until_one_works(bench, trouble) -> None:
    async with bench(DRIVER + "failure_limit = 4\n") as b:
        await b.runtime.start()
        await fail(b, trouble, InvalidInput("no such lamp"), times=9)
        await fail(b, trouble, OSError("no light"), times=3)
        await fail(b, trouble, Conflict("it is lit"))
        assert b.state() == "up"
        await fail(b, trouble, OSError("no light"))
        assert b.state() == "degraded"
        assert b.why().startswith("driver desk of lamp: 4 calls in a row or more have failed, since ")
        assert "work: OSError: no light" in b.why()
        assert list(b.service().state_tracker.problems) == ["failing desk"]
        # It stays on offer: else nothing would be asked of it, and it could not show that it works again.
        assert unavailable_reason(b.service().status(), "desk") == ""
        await fail(b, trouble, OSError("no power"))
        changes = len(b.changes)
        await asyncio.sleep(15)
        assert "no power" in b.why()
        assert len(b.changes) == changes + 1
        trouble.errors.clear()
        await b.service().drivers.call("desk", "work")
        await asyncio.sleep(0.1)
        assert (b.state(), b.why()) == ("up", "")


async def test_failures_of_long_ago_are_not_held_against_a_driver_that_nobody_calls(bench, trouble) -> None:
    async with bench(DRIVER) as b:
        await b.runtime.start()
        await fail(b, trouble, OSError("no light"), times=3)
        await asyncio.sleep(800)
        assert b.state() == "degraded"
        await asyncio.sleep(200)
        assert b.state() == "up"
        await fail(b, trouble, OSError("no light"))
        assert b.state() == "degraded"


async def test_a_driver_that_is_created_again_begins_without_failures(bench, trouble) -> None:
    async with bench(DRIVER) as b:
        await b.runtime.start()
        await fail(b, trouble, OSError("no light"), times=3)
        assert await b.reset(DRIVER + 'colour = "red"\n') == []
        await asyncio.sleep(0.1)
        assert b.state() == "up"


async def test_what_a_check_said_is_forgotten_when_the_driver_itself_is_out_of_order(bench, trouble) -> None:
    async with bench(DRIVER) as b:
        await b.runtime.start()
        trouble.answers["is_working of desk"] = False
        await asyncio.sleep(15)
        assert b.why() == "driver desk: is_working returned False"
        trouble.answers.clear()
        trouble.errors["initialise desk red"] = OSError("no red bulb")
        said = await b.reset(DRIVER + 'colour = "red"\n')
        why = "driver desk of service lamp has failed: OSError: no red bulb"
        assert said == [f"initialise driver lamp/desk: {why}"]
        await asyncio.sleep(0.1)
        assert (b.state(), b.service().drivers.options("desk").colour) == ("up", "white")


async def test_a_driver_that_could_not_be_taken_over_is_offered_again(bench, trouble) -> None:
    trouble.errors["driver_ready desk"] = OSError("the table is locked")
    async with bench(DRIVER) as b:
        await b.runtime.start()
        assert b.state() == "degraded"
        assert "the table is locked" in b.why()
        del trouble.errors["driver_ready desk"]
        await asyncio.sleep(15)
        assert b.state() == "up"


async def test_a_reset_renews_drivers_and_the_manager_takes_them_over_again(bench, trouble) -> None:
    async with bench(DRIVER) as b:
        await b.runtime.start()
        assert await b.reset(DRIVER + 'colour = "red"\n') == []
        await asyncio.sleep(0.1)
        assert trouble.calls.count("driver_ready desk") == 2
        assert "reset lamp" in trouble.calls
        assert "initialise desk red" in trouble.calls
        assert b.service().drivers.options("desk").colour == "red"


async def test_a_live_option_of_a_driver_is_taken_over_without_building_it_anew(bench, trouble) -> None:
    async with bench(DRIVER) as b:
        await b.runtime.start()
        assert await b.reset(DRIVER + 'tone = "cold"\n') == []
        assert b.service().drivers["desk"].options.tone == "cold"
        assert "cleanup desk" not in trouble.calls


async def test_new_options_of_a_driver_at_work_come_by_themselves_and_the_reload_says_so(bench, trouble) -> None:
    gate = trouble.hang("work desk")
    async with bench(DRIVER + 'call_timeout = "1h"\n') as b:
        await b.runtime.start()
        call = asyncio.ensure_future(b.service().drivers.call("desk", "work"))
        await asyncio.sleep(1)
        red = DRIVER + 'call_timeout = "1h"\ncolour = "red"\n'
        assert await b.reset(red) == []
        (pending,) = b.runtime.pending_options()
        assert "driver desk of lamp applies new options as soon as no call is in progress: work" in pending
        gate.set()
        await call
        while b.service().drivers.options("desk").colour != "red":
            await asyncio.sleep(0.1)
        assert b.runtime.pending_options() == []


async def test_options_that_are_undone_before_they_came_never_come(bench, trouble) -> None:
    gate = trouble.hang("work desk")
    hour = 'call_timeout = "1h"\n'
    async with bench(DRIVER + hour) as b:
        await b.runtime.start()
        call = asyncio.ensure_future(b.service().drivers.call("desk", "work"))
        await asyncio.sleep(1)
        await b.reset(DRIVER + hour + 'colour = "red"\n')
        assert await b.reset(DRIVER + hour) == []
        assert b.runtime.pending_options() == []
        gate.set()
        await call
        await asyncio.sleep(10)
        assert "initialise desk red" not in trouble.calls


FOUR = '[services.lamp]\nmanager = "lamp"\n' + "".join(
    f'[services.lamp.drivers.{name}]\ndriver = "gpio"\n' for name in ("desk", "hall", "porch", "attic")
)


@pytest.mark.failure_mode("Plugins", "four backends that hang at the start or at a reload")
async def test_four_backends_that_hang_while_they_are_taken_over_take_as_long_as_one(bench, trouble) -> None:
    for name in ("desk", "hall", "porch", "attic"):
        trouble.hang(f"driver_ready {name}")
    async with bench(FOUR.replace('"lamp"\n', '"lamp"\nstart_timeout = "20s"\n', 1)) as b:
        before = asyncio.get_running_loop().time()
        await b.runtime.start()
        assert asyncio.get_running_loop().time() - before < 25
        assert b.state() == "degraded"


@pytest.mark.failure_mode("Plugins", "four backends that hang at the start or at a reload")
async def test_a_reload_waits_for_drivers_side_by_side(bench, trouble) -> None:
    hour = 'call_timeout = "1h"\n'
    async with bench(FOUR.replace('"gpio"\n', '"gpio"\n' + hour)) as b:
        gates = [trouble.hang(f"work {name}") for name in ("desk", "hall", "porch")]
        await b.runtime.start()
        drivers = b.service().drivers
        calls = [asyncio.ensure_future(drivers.call(name, "work")) for name in ("desk", "hall", "porch")]
        await asyncio.sleep(1)
        before = asyncio.get_running_loop().time()
        assert await b.reset(FOUR.replace('"gpio"\n', '"gpio"\n' + hour + 'colour = "red"\n')) == []
        assert asyncio.get_running_loop().time() - before < 12
        assert len(b.runtime.pending_options()) == 3
        assert b.service().drivers.options("attic").colour == "red"
        for gate in gates:
            gate.set()
        await asyncio.gather(*calls)
        while b.runtime.pending_options() or len(b.service().drivers.ready()) < 4:
            await asyncio.sleep(0.1)
        assert b.service().drivers.options("desk").colour == "red"


async def test_a_check_of_a_driver_that_hangs_keeps_no_check_of_the_manager_from_coming(bench, trouble) -> None:
    trouble.hang("is_working of desk")
    async with bench(FOUR.replace('"gpio"\n', '"gpio"\ncall_timeout = "1h"\n')) as b:
        await b.runtime.start()
        await asyncio.sleep(200)
        clock = b.service()._context.host.clock
        assert clock.monotonic() - b.service().last_progress <= 70
        assert trouble.begun.count("is_working of desk") == 1
        assert trouble.begun.count("is_working of attic") >= 2
