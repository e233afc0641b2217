"""A loop on which a day passes in a moment."""

import asyncio
import threading
import time

import pytest

from ostler.aio import WorkerPool
from ostler.testing.virtual_time import VirtualTimeLoop, run_virtual, virtual_clock


@pytest.fixture
def pool():
    made = WorkerPool("virtual", 2)
    yield made
    made.close()
    made.join(5)


def test_a_day_passes_in_a_moment():
    async def main():
        clock, begun = virtual_clock(), time.monotonic()
        wall, mono, boot = clock.wall(), clock.monotonic(), clock.boot()
        await asyncio.sleep(86400 * 3)
        assert clock.wall() - wall == pytest.approx(86400 * 3)
        assert clock.monotonic() - mono == pytest.approx(86400 * 3)
        assert clock.boot() - boot == pytest.approx(86400 * 3)
        assert time.monotonic() - begun < 5

    run_virtual(main())


def test_timers_run_in_their_order_and_at_their_time():
    async def main():
        loop, seen = asyncio.get_running_loop(), []
        begun = loop.time()
        for delay in (30, 10, 20):
            loop.call_later(delay, lambda delay=delay: seen.append((delay, loop.time() - begun)))
        await asyncio.sleep(100)
        assert seen == [(10, pytest.approx(10)), (20, pytest.approx(20)), (30, pytest.approx(30))]

    run_virtual(main())


def test_time_stands_still_while_a_pool_works(pool):
    async def main():
        loop = asyncio.get_running_loop()
        sleeper = asyncio.ensure_future(asyncio.sleep(3600))
        before = loop.time()
        real = threading.Event()
        await pool.run(lambda: real.wait(0.05), label="works a little")
        assert loop.time() == before
        await sleeper

    run_virtual(main())


def test_time_stands_still_while_a_thread_of_asyncio_works():
    async def main():
        loop = asyncio.get_running_loop()
        sleeper = asyncio.ensure_future(asyncio.sleep(3600))
        before, real = loop.time(), threading.Event()
        await asyncio.to_thread(real.wait, 0.05)
        assert loop.time() == before
        cancelled = asyncio.ensure_future(asyncio.to_thread(real.wait, 30))
        await asyncio.sleep(10)  # it hangs, and time goes on without it
        cancelled.cancel()
        real.set()
        await sleeper

    run_virtual(main())


def test_work_that_was_there_before_the_loop_does_not_delay_it(pool):
    """A thread that an earlier test had left cost a hundredth of a second for each of 40,000 timers."""
    gate, began = threading.Event(), threading.Event()

    async def hang():
        await pool.run(lambda: (began.set(), gate.wait(30)), label="hangs")

    async def main():
        loop, begun = asyncio.get_running_loop(), time.monotonic()
        for _ in range(2000):
            await asyncio.sleep(1)
        assert time.monotonic() - begun < 10, "it takes 20 s with a hundredth of a second for each"
        before, is_over = loop.time(), threading.Event()
        await pool.run(lambda: is_over.wait(0.05), label="is this loop's own")
        assert loop.time() == before

    thread = threading.Thread(target=asyncio.run, args=(hang(),))
    thread.start()
    began.wait(10)
    run_virtual(main())
    gate.set()
    thread.join(10)


def test_hung_work_does_not_stop_time(pool):
    gate = threading.Event()

    async def main():
        hung = asyncio.ensure_future(pool.run(lambda: gate.wait(30), label="hangs"))
        begun = time.monotonic()
        for _ in range(20):
            await asyncio.sleep(3600)
        assert time.monotonic() - begun < 5
        gate.set()
        assert await hung

    run_virtual(main(), stall_timeout=0.05)


def test_work_that_is_watched_holds_time_up():
    async def main():
        loop, under_way = asyncio.get_running_loop(), {"piece"}
        assert isinstance(loop, VirtualTimeLoop)
        loop.watch(lambda: under_way)
        before = loop.time()
        seen = []

        def end():
            loop.call_soon_threadsafe(lambda: seen.append(loop.time() - before))
            under_way.clear()

        thread = threading.Timer(0.03, end)
        thread.start()
        await asyncio.sleep(60)
        thread.join()
        assert seen == [0.0]

    run_virtual(main())


def test_work_that_ends_beside_work_that_hangs_is_seen_before_time_goes_on():
    async def main():
        loop, under_way, seen = asyncio.get_running_loop(), {"hangs"}, []
        assert isinstance(loop, VirtualTimeLoop)
        end_at = float("inf")

        def probe():
            if time.monotonic() >= end_at and "piece" in under_way:
                loop.call_soon_threadsafe(lambda: seen.append(loop.time() - before))
                under_way.discard("piece")
            return set(under_way)

        loop.watch(probe)
        await asyncio.sleep(1)  # from here on it counts as hung
        under_way.add("piece")
        before, end_at = loop.time(), time.monotonic() + 0.05
        await asyncio.sleep(60)
        assert seen == [0.0]
        loop.call_soon(under_way.clear)

    run_virtual(main())


def test_the_wall_clock_can_be_set_alone():
    async def main():
        clock = virtual_clock()
        mono = clock.monotonic()
        clock.set_wall(5.0)
        await asyncio.sleep(10)
        assert clock.wall() == pytest.approx(15.0)
        assert clock.monotonic() - mono == pytest.approx(10)
        assert clock.boot_id() == "virtual-boot"

    run_virtual(main())


def test_an_ordinary_loop_has_no_virtual_clock():
    async def main():
        virtual_clock()

    with pytest.raises(TypeError, match="run_virtual"):
        asyncio.run(main())


def test_the_end_of_a_loop_waits_for_threads_in_real_time():
    ended = threading.Event()

    async def main():
        asyncio.get_running_loop().run_in_executor(None, ended.wait, 10)
        threading.Timer(0.1, ended.set).start()

    run_virtual(main())  # from Python 3.12 on, a warning when the loop's own time-out is over before
    assert ended.is_set()
