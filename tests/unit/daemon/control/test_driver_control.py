import asyncio

import pytest

from ostler.errors import Conflict, InvalidInput, NotFound

pytestmark = pytest.mark.virtual_time(stall_timeout=0.5)

DESK = '[services.lamp]\nmanager = "lamp"\n[services.lamp.drivers.desk]\ndriver = "gpio"\ncall_timeout = 1\n'


async def act(b, method, service="lamp", name="desk"):
    return await b.call(f"driver.{method}", service=service, name=name)


async def stick(b, trouble):
    """Have a call of the driver hang; returns what lets it go."""
    gate = trouble.hang("shine")
    drivers = b.daemon.services[0].drivers
    await asyncio.gather(drivers.call("desk", "shine"), return_exceptions=True)
    assert str(drivers.status("desk").state) == "stuck"
    return gate


async def test_a_driver_is_initialised_again(bench, trouble) -> None:
    async with bench(DESK) as b:
        await b.ready()
        assert (await act(b, "restart"))["state"] == "ready"
        assert trouble.calls.count("initialise desk white") == 2


async def test_one_that_waits_for_its_next_attempt_is_tried_at_once(bench, trouble) -> None:
    trouble.errors["initialise desk white"] = OSError("no power")
    async with bench(DESK) as b:
        await b.ready()
        assert (await act(b, "restart"))["state"] == "failed"
        trouble.errors.clear()
        assert (await act(b, "restart"))["state"] == "ready"


@pytest.mark.failure_mode("Plugins", "a driver that never comes back")
async def test_a_stuck_driver_is_abandoned_and_another_instance_works(bench, trouble) -> None:
    async with bench(DESK) as b:
        await b.ready()
        gate = await stick(b, trouble)
        with pytest.raises(Conflict, match="is stuck"):
            await act(b, "restart")
        status = await act(b, "abandon")
        assert (status["state"], status["abandoned"]) == ("ready", 1)
        trouble.gates.clear()
        await b.daemon.services[0].drivers.call("desk", "shine")
        gate.set()
        await asyncio.sleep(1)
        status = b.daemon.services[0].drivers.status("desk")
        assert (str(status.state), status.abandoned) == ("ready", 0)


async def test_no_more_instances_are_abandoned_than_a_few(bench, trouble) -> None:
    async with bench(DESK) as b:
        await b.ready()
        for _ in range(4):
            await stick(b, trouble)
            await act(b, "abandon")
        await stick(b, trouble)
        with pytest.raises(Conflict, match="4 earlier instances of driver desk of lamp still hang"):
            await act(b, "abandon")


async def test_what_is_not_there_or_not_stuck_is_refused(bench) -> None:
    async with bench(DESK) as b:
        await b.ready()
        with pytest.raises(Conflict, match="is ready, only a stuck driver can be abandoned"):
            await act(b, "abandon")
        with pytest.raises(NotFound, match="service lamp has no driver hall"):
            await act(b, "restart", name="hall")
        with pytest.raises(NotFound, match="service door is not running"):
            await act(b, "restart", service="door")
        with pytest.raises(InvalidInput, match="'lamp' is not a driver"):
            await act(b, "restart", name="")
