import asyncio

DRIVER = '[services.lamp]\nmanager = "lamp"\n[services.lamp.drivers.desk]\ndriver = "gpio"\n'


def test_a_driver_that_fails_degrades_the_service_with_why_and_back(bench, trouble, virtually) -> None:
    async def main():
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

    virtually(main)


def test_drivers_that_hang_delay_the_start_no_longer_than_driver_wait(bench, trouble, virtually) -> None:
    async def main():
        trouble.hang("initialise desk white")
        async with bench(DRIVER + 'init_timeout = "1h"\n') as b:
            before = asyncio.get_running_loop().time()
            await b.runtime.start()
            assert 4.9 < asyncio.get_running_loop().time() - before < 7
            assert b.state() == "degraded"
            trouble.let_go()
            await asyncio.sleep(1)
            assert b.state() == "up"

    virtually(main)


def test_a_stuck_driver_degrades_the_service_until_it_comes_back(bench, trouble, virtually) -> None:
    async def main():
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

    virtually(main)


def test_what_a_check_said_is_forgotten_when_the_driver_itself_is_out_of_order(bench, trouble, virtually) -> None:
    async def main():
        async with bench(DRIVER) as b:
            await b.runtime.start()
            trouble.answers["is_working of desk"] = False
            await asyncio.sleep(15)
            assert b.why() == "driver desk: is_working says no"
            trouble.answers.clear()
            trouble.errors["initialise desk red"] = OSError("no red bulb")
            # A driver that does not start with its new options is no good news of a reload.
            said = await b.reset(DRIVER + 'colour = "red"\n')
            assert said == ["driver desk of service lamp is failed: OSError: no red bulb"]
            await asyncio.sleep(0.1)
            assert "is_working" not in b.why()
            assert "no red bulb" in b.why()

    virtually(main)


def test_a_driver_that_could_not_be_taken_over_is_offered_again(bench, trouble, virtually) -> None:
    async def main():
        trouble.errors["driver_ready desk"] = OSError("the table is locked")
        async with bench(DRIVER) as b:
            await b.runtime.start()
            assert b.state() == "degraded"
            assert "the table is locked" in b.why()
            del trouble.errors["driver_ready desk"]
            await asyncio.sleep(15)
            assert b.state() == "up"

    virtually(main)


def test_a_reset_renews_drivers_and_the_manager_takes_them_over_again(bench, trouble, virtually) -> None:
    async def main():
        async with bench(DRIVER) as b:
            await b.runtime.start()
            assert await b.reset(DRIVER + 'colour = "red"\n') == []
            await asyncio.sleep(0.1)
            assert trouble.calls.count("driver_ready desk") == 2
            assert "reset lamp" in trouble.calls
            assert "initialise desk red" in trouble.calls
            assert b.service().drivers.options("desk").colour == "red"

    virtually(main)


def test_a_live_option_of_a_driver_is_taken_over_without_building_it_anew(bench, trouble, virtually) -> None:
    async def main():
        async with bench(DRIVER) as b:
            await b.runtime.start()
            assert await b.reset(DRIVER + 'tone = "cold"\n') == []
            assert b.service().drivers["desk"].options.tone == "cold"
            assert "cleanup desk" not in trouble.calls

    virtually(main)


def test_a_driver_that_kept_its_options_is_tried_again_at_the_next_reload(bench, trouble, virtually) -> None:
    async def main():
        gate = trouble.hang("work desk")
        async with bench(DRIVER + 'call_timeout = "1h"\ninit_timeout = "10s"\n') as b:
            await b.runtime.start()
            call = asyncio.ensure_future(b.service().drivers.call("desk", "work"))
            await asyncio.sleep(1)
            red = DRIVER + 'call_timeout = "1h"\ninit_timeout = "10s"\ncolour = "red"\n'
            (problem,) = await b.reset(red)
            assert "keeps its options" in problem
            gate.set()
            await call
            assert await b.reset(red) == []
            assert b.service().drivers.options("desk").colour == "red"

    virtually(main)
