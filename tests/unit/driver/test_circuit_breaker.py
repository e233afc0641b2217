"""The circuit breaker of a driver: when it opens, what it lets through, and how it closes."""

import asyncio
import random

import pytest

from ostler.driver.circuit_breaker import CircuitBreaker
from ostler.errors import DriverCircuitOpen, DriverNotReady, NotFound
from ostler.testing.virtual_time import virtual_clock
from ostler.types import BreakerState, DriverState

pytestmark = pytest.mark.virtual_time(stall_timeout=0.1)


async def ready(bench, lamp, **options):
    b = bench((lamp, "hall", {"breaker_limit": 3, "retry_interval": 8, "max_retry_interval": 20, **options}))
    await b.drivers.start()
    await b.drivers.wait(5)
    return b


async def fail(b, times, kind=OSError):
    for _ in range(times):
        with pytest.raises(kind):
            await b.drivers.call("hall", "fail", kind)


def breaker(b):
    return b.drivers.status("hall").breaker


async def until_trial(b):
    async with asyncio.timeout(1000):
        while breaker(b) is not BreakerState.HALF_OPEN:
            await asyncio.sleep(0.5)


@pytest.mark.failure_mode("Plugins", "a driver whose calls are refused after many failures")
async def test_after_so_many_failures_in_a_row_calls_are_refused_at_once(bench, lamp):
    b = await ready(bench, lamp)
    await fail(b, 2)
    await b.drivers.call("hall", "switch", "a", True)
    await fail(b, 3)
    calls = b.drivers.status("hall").calls
    with pytest.raises(DriverCircuitOpen) as caught:
        await b.drivers.call("hall", "switch", "a", True)
    error = caught.value
    assert isinstance(error, DriverNotReady)
    assert "driver hall of light refuses calls since" in error.message
    assert "the last error: fail: OSError: no; next trial in " in error.message
    assert "ostler driver reset light/hall" in error.hint
    assert 6 <= error.retry_after <= 8
    assert error.details["why"] == "fail: OSError: no"
    status = b.drivers.status("hall")
    assert (status.state, status.breaker, status.calls) == (DriverState.READY, BreakerState.OPEN, calls)
    assert status.breaker_trial_at > status.breaker_since > 0
    assert "refuses calls" in b.drivers.problems()["hall"]
    await b.drivers.stop(5)


async def test_without_a_limit_no_call_is_refused(bench, lamp):
    b = await ready(bench, lamp, breaker_limit=0)
    await fail(b, 50)
    assert await b.drivers.call("hall", "switch", "a", True) == "a on"
    await b.drivers.stop(5)


async def test_checks_pass_an_open_breaker_and_do_not_close_it(bench, lamp):
    b = await ready(bench, lamp)
    await fail(b, 3)
    assert await b.drivers.call("hall", "is_working") is True
    assert await b.drivers.call("hall", "capabilities") == {}
    assert breaker(b) is BreakerState.OPEN
    await b.drivers.stop(5)


@pytest.mark.failure_mode("Plugins", "a driver whose calls are refused after many failures")
async def test_a_trial_that_works_lets_all_calls_through(bench, lamp):
    b = await ready(bench, lamp)
    await fail(b, 3)
    await until_trial(b)
    assert await b.drivers.call("hall", "switch", "a", True) == "a on"
    assert breaker(b) is BreakerState.CLOSED
    assert b.drivers.problems() == {}
    await b.drivers.stop(5)


@pytest.mark.failure_mode("Plugins", "a driver whose calls are refused after many failures")
async def test_a_trial_that_fails_doubles_the_wait_up_to_the_longest(bench, lamp):
    b = await ready(bench, lamp)
    await fail(b, 3)
    since, waits = b.drivers.status("hall").breaker_since, []
    for _ in range(3):
        await until_trial(b)
        await fail(b, 1)
        status = b.drivers.status("hall")
        assert status.breaker is BreakerState.OPEN
        assert status.breaker_since == since
        waits.append(status.breaker_trial_at - status.last_error_at)
    assert 12 <= waits[0] <= 16
    assert all(15 <= wait <= 20 for wait in waits[1:])
    await b.drivers.stop(5)


async def test_beside_a_trial_other_calls_are_refused(bench, lamp):
    b = await ready(bench, lamp)
    await fail(b, 3)
    await until_trial(b)
    trial = asyncio.ensure_future(b.drivers.call("hall", "hang"))
    await asyncio.sleep(0.1)
    with pytest.raises(DriverCircuitOpen, match="a trial is in progress"):
        await b.drivers.call("hall", "switch", "a", True)
    lamp.gate.set()
    assert await trial == "came back"
    assert await b.drivers.call("hall", "switch", "a", True) == "a on"
    await b.drivers.stop(5)


async def test_a_trial_that_is_a_refusal_says_nothing_and_the_next_call_is_the_trial(bench, lamp):
    b = await ready(bench, lamp)
    await fail(b, 3)
    await until_trial(b)
    await fail(b, 2, NotFound)
    assert breaker(b) is BreakerState.HALF_OPEN
    await fail(b, 1)
    assert breaker(b) is BreakerState.OPEN
    await b.drivers.stop(5)


async def test_a_trial_that_hangs_makes_the_driver_stuck_and_counts_when_it_is_back(bench, lamp):
    b = await ready(bench, lamp)
    await fail(b, 3)
    await until_trial(b)
    with pytest.raises(Exception, match="is stuck"):
        await b.drivers.call("hall", "brief")
    assert b.drivers.status("hall").state is DriverState.STUCK
    lamp.gate.set()
    await b.until("hall", DriverState.READY)
    assert breaker(b) is BreakerState.CLOSED
    await b.drivers.stop(5)


async def test_a_call_from_before_that_succeeds_closes_it(bench, lamp):
    b = await ready(bench, lamp)
    earlier = asyncio.ensure_future(b.drivers.call("hall", "hang"))
    await asyncio.sleep(0.1)
    await fail(b, 3)
    assert breaker(b) is BreakerState.OPEN
    lamp.gate.set()
    await earlier
    assert breaker(b) is BreakerState.CLOSED
    await b.drivers.stop(5)


async def test_a_reset_by_hand_lets_calls_through_and_forgets_the_failures(bench, lamp):
    b = await ready(bench, lamp)
    await fail(b, 3)
    assert b.drivers.reset_breaker("hall") is True
    assert b.drivers.reset_breaker("hall") is False
    await fail(b, 2)
    assert breaker(b) is BreakerState.CLOSED
    await b.drivers.stop(5)


async def test_a_driver_that_is_created_again_begins_with_a_closed_breaker(bench, lamp):
    b = await ready(bench, lamp)
    await fail(b, 3)
    await b.drivers.reinitialise("hall")
    assert await b.drivers.call("hall", "switch", "a", True) == "a on"
    await b.drivers.stop(5)


async def test_each_change_is_told_with_its_log_line(bench, lamp, caplog):
    b = await ready(bench, lamp)
    caplog.set_level("INFO")
    await fail(b, 3)
    await until_trial(b)
    await b.drivers.call("hall", "switch", "a", True)
    lines = [record.message for record in caplog.records if "circuit breaker" in record.message]
    assert [line.partition("circuit breaker is ")[2].split(",")[0] for line in lines] == ["open", "half open", "closed"]
    await b.drivers.stop(5)


async def test_the_wait_of_an_earlier_opening_lets_nothing_through():
    waits, states = [], []
    made = CircuitBreaker(
        virtual_clock(), random.Random(1), lambda _wait, number: waits.append(number), lambda: states.append(made.state)
    )
    made.on_failure(1, 1, 5, 60)
    made.close()
    made.on_failure(1, 1, 5, 60)
    made.end_wait(waits[0])
    assert made.state is BreakerState.OPEN
    made.end_wait(waits[1])
    assert states == [BreakerState.OPEN, BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN]


async def test_an_unexpected_error_of_a_method_is_logged_once_with_its_traceback(bench, lamp, caplog):
    b = await ready(bench, lamp, breaker_limit=0)
    await fail(b, 3)
    await fail(b, 1, NotFound)
    shown = [record for record in caplog.records if record.exc_info]
    assert [record.message for record in shown] == ["fail of driver hall of light raised OSError: no"]
    await b.drivers.stop(5)
