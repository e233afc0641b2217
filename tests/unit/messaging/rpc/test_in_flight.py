import asyncio

from ostler.clock import SystemClock
from ostler.messaging.rpc.in_flight import DeadlineTimer


async def test_it_sweeps_when_the_earliest_is_due_and_again_as_it_asks():
    clock, times, done = SystemClock(), [], asyncio.Event()
    begun = clock.monotonic()

    def sweep(now):
        times.append(now - begun)
        if len(times) < 3:
            return now + 0.02
        done.set()
        return None

    sweeper = DeadlineTimer(clock, sweep)
    sweeper.schedule(begun + 60)
    sweeper.schedule(begun + 0.01)
    sweeper.schedule(begun + 30)
    await asyncio.wait_for(done.wait(), 5)
    assert times[0] >= 0.01
    assert times[1] - times[0] >= 0.019
    sweeper.schedule(clock.monotonic())
    sweeper.cancel()
    await asyncio.sleep(0.01)
    assert len(times) == 3


async def test_sweeps_keep_a_distance():
    clock, times, done = SystemClock(), [], asyncio.Event()

    def sweep(now):
        times.append(now)
        if len(times) == 4:
            done.set()
            return None
        return now

    DeadlineTimer(clock, sweep).schedule(clock.monotonic())
    await asyncio.wait_for(done.wait(), 5)
    assert times[-1] - times[0] >= 0.014


async def test_a_sweep_that_fails_is_not_the_last_one():
    clock, times, done, failures = SystemClock(), [], asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def sweep(now):
        times.append(now)
        if len(times) < 3:
            raise ValueError("odd")
        done.set()

    DeadlineTimer(clock, sweep, failure_delay=0.01).schedule(clock.monotonic())
    await asyncio.wait_for(done.wait(), 5)
    assert len(failures) == 2
