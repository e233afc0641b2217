import asyncio

import pytest

from ostler.clock import Clock, FakeClock
from ostler.daemon.watchdog import Watchdog
from ostler.errors import StoreUnavailable
from ostler.testing.virtual_time import virtual_clock

pytestmark = pytest.mark.virtual_time


class Bench:
    """A watchdog with a probe that can be told what to do."""

    def __init__(self, interval: float | None, clock: Clock | None = None) -> None:
        self.pings, self.lost = 0, []
        self.error: Exception | None = None
        self.hang = False
        self.watchdog = Watchdog(interval, self._ping, clock or virtual_clock(), self.lost.append)
        self.watchdog.add_probe("the store", self.probe)
        self.task = asyncio.get_running_loop().create_task(self.watchdog.run())

    def _ping(self) -> None:
        self.pings += 1

    async def probe(self) -> None:
        if self.error is not None:
            raise self.error
        if self.hang:
            await asyncio.Event().wait()

    async def end(self) -> None:
        self.task.cancel()
        await self.watchdog.stop()


async def test_pings_come_more_often_than_systemd_asks_for_as_long_as_all_is_well() -> None:
    bench = Bench(10.0)
    await asyncio.sleep(100)
    assert bench.pings >= 30
    assert bench.lost == []
    await bench.end()


async def test_a_probe_that_hangs_withholds_the_ping_and_is_named_once() -> None:
    bench = Bench(10.0)
    await asyncio.sleep(20)
    bench.hang = True
    await asyncio.sleep(10)
    before = bench.pings
    await asyncio.sleep(60)
    assert bench.pings == before
    assert len(bench.lost) == 1
    assert "the store" in bench.lost[0]
    assert bench.watchdog.stale_signals()
    await bench.end()


async def test_a_probe_that_raises_says_why_and_pings_come_back_with_it() -> None:
    bench = Bench(10.0)
    bench.error = StoreUnavailable("the disk is gone")
    await asyncio.sleep(30)
    assert "the disk is gone" in bench.watchdog.stale_signals()[0]
    before, bench.error = bench.pings, None
    await asyncio.sleep(30)
    assert bench.pings > before
    assert bench.watchdog.stale_signals() == []
    await bench.end()


async def test_what_is_forgotten_is_asked_for_no_more() -> None:
    bench = Bench(10.0)
    bench.hang = True
    bench.watchdog.remove_probe("the store")
    await asyncio.sleep(60)
    assert bench.watchdog.stale_signals() == []
    assert bench.pings > 0
    await bench.end()


async def test_without_a_watchdog_of_systemd_evidence_is_collected_and_nobody_is_pinged() -> None:
    bench = Bench(None)
    bench.hang = True
    await asyncio.sleep(120)
    assert bench.pings == 0
    assert bench.watchdog.stale_signals()
    await bench.end()


async def test_in_the_stop_pings_go_on_and_nothing_is_missed() -> None:
    bench = Bench(10.0)
    bench.hang = True
    await asyncio.sleep(1)
    await bench.watchdog.stop()
    before = bench.pings
    await asyncio.sleep(60)
    assert bench.pings - before >= 20
    assert bench.lost == []
    await bench.end()


@pytest.mark.failure_mode("Machine", "a suspended machine")
async def test_after_a_suspension_nobody_is_blamed_and_the_ping_comes_at_once() -> None:
    bench = Bench(10.0, clock := FakeClock())
    await asyncio.sleep(10)
    before = bench.pings
    clock.advance(0.01)  # evidence is left a moment after it was asked for
    bench.watchdog.add_probe("the RPC socket", bench.probe)
    clock.advance(60)
    await asyncio.sleep(2.5)
    assert bench.pings == before + 1
    assert not bench.lost
    await bench.end()


@pytest.mark.failure_mode("Machine", "a suspended machine")
async def test_what_hangs_after_a_suspension_is_found_in_the_usual_time() -> None:
    bench = Bench(10.0, clock := FakeClock())
    await asyncio.sleep(2.5)
    bench.hang = True
    clock.advance(60)
    await asyncio.sleep(2.5)
    assert not bench.lost
    clock.advance(2.5)
    await asyncio.sleep(2.5)
    assert not bench.lost
    clock.advance(4)
    await asyncio.sleep(2.5)
    assert "the store" in bench.lost[0]
    await bench.end()
