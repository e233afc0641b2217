"""A host whose time moves when the test says so: periodic tasks, retries, operations and time limits follow it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator

import pytest

from ostler import (
    Busy,
    Context,
    Driver,
    DriverStuck,
    Durable,
    Manager,
    ManagerOptions,
    exposed,
    periodic,
)
from ostler.testing import FakeClock, Host, host
from ostler.types import DriverState

CONFIG = '[services.lamp]\nmanager = "lamp"\n[services.lamp.drivers.desk]\ndriver = "gpio"\n'


class LampDriver(Driver):
    def shine(self) -> str:
        return "white"


class Lamp(Manager[ManagerOptions, LampDriver]):
    journal_events = True

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        self.ticks: list[float] = []
        self.tries: list[float] = []

    @periodic(spacing=60)
    def tick(self, ctx: Context) -> None:
        self.ticks.append(self.clock.monotonic())

    @periodic(cron="15 * * * *")
    async def hourly(self, ctx: Context) -> None:
        self.client.publish("quarter", {"at": self.clock.wall()})

    @exposed(role="operator")
    def shine(self, ctx: Context) -> str:
        """Return the colour."""
        return self.drivers["desk"].shine()

    @exposed(role="operator")
    async def sleep(self, ctx: Context, seconds: float) -> float:
        """Sleep."""
        await asyncio.sleep(seconds)
        return self.clock.monotonic()

    @exposed(role="operator", durable=Durable(on_restart="resume", attempts=4, backoff=30))
    def replace_bulb(self, ctx: Context) -> int:
        """Succeed at the third attempt."""
        self.tries.append(self.clock.monotonic())
        if len(self.tries) < 3:
            raise Busy("no ladder")
        return len(self.tries)


@pytest.fixture
def h() -> Iterator[Host]:
    with host(
        config=CONFIG, managers={"lamp": Lamp}, drivers={("lamp", "gpio"): LampDriver}, virtual_time=True
    ) as made:
        yield made


def test_time_stands_still_until_the_test_moves_it(h: Host) -> None:
    before, count = h.clock.monotonic(), len(h.manager("lamp").ticks)
    for _ in range(50):
        h.call("lamp", "shine")
    assert h.clock.monotonic() == before
    h.advance(59)
    h.advance(0.5)
    assert (h.clock.monotonic(), h.clock.wall() % 1) == (before + 59.5, pytest.approx(0.5, abs=1e-3))
    assert len(h.manager("lamp").ticks) - count in (0, 1)


def test_periodic_tasks_run_as_time_passes(h: Host) -> None:
    h.advance(60)
    begun, count = h.clock.monotonic(), len(h.manager("lamp").ticks)
    h.advance(3600)
    ticks = h.manager("lamp").ticks[count:]
    assert len(ticks) == 60
    assert [round(later - earlier) for earlier, later in itertools.pairwise(ticks)] == [60] * 59
    assert h.clock.monotonic() == begun + 3600


def test_a_calendar_time_comes_after_hours_in_a_moment(h: Host) -> None:
    h.advance(2 * 3600)
    quarters = [event.payload["at"] for event in h.events("lamp.*.quarter", count=2)]
    assert [time.localtime(at).tm_min for at in quarters] == [15, 15]


def test_an_operation_is_retried_after_its_waits(h: Host) -> None:
    with h.client() as client:
        operation = client.submit("lamp", "replace_bulb")
        h.advance(0)
        assert len(h.manager("lamp").tries) == 1
        h.advance(100)
        assert operation.result(timeout=5) == 3
    first, second, third = h.manager("lamp").tries
    assert 15 <= second - first <= 45
    assert 30 <= third - second <= 90


def test_a_call_that_only_time_can_answer_lets_it_pass(h: Host) -> None:
    before = h.clock.monotonic()
    assert h.call("lamp", "sleep", seconds=600) == pytest.approx(before + 600)
    h.driver("lamp", "desk").hang()
    with pytest.raises(DriverStuck, match="has not returned for 1min"):
        h.call("lamp", "shine")


def test_a_driver_is_initialised_again_after_its_waits(h: Host) -> None:
    h.driver("lamp", "desk").fail(OSError("no power"), times=3, method="initialise")
    h.restart()
    drivers = h.service("lamp").drivers
    assert drivers is not None
    h.wait_driver("lamp", "desk", DriverState.FAILED)
    h.advance(600)
    assert drivers.status("desk").state is DriverState.READY


def test_the_journal_is_replayed_after_a_restart(h: Host) -> None:
    h.advance(3600)
    assert h.events("lamp.*.quarter")
    h.restart()
    with h.client() as client, client.events("lamp", since=1) as stream:
        event = next(iter(stream))
    assert (event.name, event.sequence) == ("quarter", 1)


def test_real_time_cannot_be_advanced() -> None:
    with host() as real, pytest.raises(TypeError, match="virtual_time=True"):
        real.advance(1)


def test_virtual_time_has_a_clock_of_its_own() -> None:
    with pytest.raises(TypeError, match="clock of its own"), host(clock=FakeClock(), virtual_time=True):
        pass
