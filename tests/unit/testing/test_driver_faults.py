"""Faults of drivers: injected by a test, seen by the manager as those of a real device."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ostler import Context, Driver, DriverError, DriverStuck, Manager, ManagerOptions, NotFound, exposed
from ostler.testing import Host, host

CONFIG = '[services.lamp]\nmanager = "lamp"\n[services.lamp.drivers.desk]\ndriver = "gpio"\ncall_timeout = 5\n'


class LampDriver(Driver):
    def shine(self) -> str:
        return self.colour("white")

    def colour(self, name: str) -> str:
        return name


class Lamp(Manager[ManagerOptions, LampDriver]):
    @exposed(role="operator")
    def shine(self, ctx: Context) -> str:
        """Return the colour."""
        return self.drivers["desk"].shine()


@pytest.fixture
def h() -> Iterator[Host]:
    with host(
        config=CONFIG, managers={"lamp": Lamp}, drivers={("lamp", "gpio"): LampDriver}, virtual_time=True
    ) as made:
        yield made


def shine(h: Host) -> str:
    try:
        return str(h.call("lamp", "shine"))
    except Exception as error:
        return type(error).__name__


def test_calls_fail_as_often_as_asked(h: Host) -> None:
    h.driver("lamp", "desk").fail(DriverError("no power"), times=2)
    assert [shine(h) for _ in range(3)] == ["DriverError", "DriverError", "white"]


def test_a_call_within_the_driver_is_not_counted(h: Host) -> None:
    h.driver("lamp", "desk").fail(DriverError("no power"), method="colour")
    assert shine(h) == "white"  # `shine` was called, which calls `colour`
    with pytest.raises(DriverError, match="no power"):
        h.driver("lamp", "desk").colour("red")


def test_failures_last_until_recovery(h: Host) -> None:
    desk = h.driver("lamp", "desk")
    desk.fail(DriverError)
    assert [shine(h) for _ in range(3)] == ["DriverError"] * 3
    desk.recover()
    assert shine(h) == "white"


def test_a_flapping_driver_fails_every_other_call(h: Host) -> None:
    h.driver("lamp", "desk").flap()
    assert [shine(h) for _ in range(4)] == ["DriverError", "white", "DriverError", "white"]


def test_a_crash_is_contained(h: Host) -> None:
    h.driver("lamp", "desk").crash()
    assert [shine(h) for _ in range(2)] == ["DriverError", "white"]


def test_a_slow_call_takes_its_time(h: Host) -> None:
    h.driver("lamp", "desk").slow(4, times=1)
    before = h.clock.monotonic()
    assert shine(h) == "white"
    assert h.clock.monotonic() >= before + 4


def test_a_call_slower_than_its_budget_is_stuck(h: Host) -> None:
    desk = h.driver("lamp", "desk")
    desk.slow(3600, times=1)
    with pytest.raises(DriverStuck):
        h.call("lamp", "shine")
    desk.recover()
    h.wait_driver("lamp", "desk")
    assert shine(h) == "white"


def test_a_hung_driver_continues_after_recovery(h: Host) -> None:
    desk = h.driver("lamp", "desk")
    desk.hang()
    assert shine(h) == "DriverStuck"
    assert shine(h) == "DriverStuck"
    desk.recover()
    h.wait_driver("lamp", "desk")
    assert shine(h) == "white"


def test_the_life_cycle_is_only_touched_when_it_is_named(h: Host) -> None:
    desk = h.driver("lamp", "desk")
    desk.fail(DriverError("no power"))
    h.restart()
    assert shine(h) == "DriverError"
    desk.recover()
    desk.fail(OSError("no device"), method="initialise")
    h.restart()
    assert shine(h) == "DriverNotReady"


def test_faults_survive_a_driver_that_is_created_again(h: Host) -> None:
    h.driver("lamp", "desk").fail(DriverError("no power"))
    h.reload(CONFIG + "retry_interval = 7\n")
    assert shine(h) == "DriverError"


def test_an_unknown_method_is_refused(h: Host) -> None:
    with pytest.raises(NotFound, match="the driver has no method shin"):
        h.driver("lamp", "desk").fail(DriverError, method="shin")


def test_a_hanging_driver_does_not_hold_up_the_end_of_a_test() -> None:
    running = {thread.name for thread in threading.enumerate()}
    with host(config=CONFIG, managers={"lamp": Lamp}, drivers={("lamp", "gpio"): LampDriver}, virtual_time=True) as h:
        h.driver("lamp", "desk").hang(times=None)
        assert shine(h) == "DriverStuck"
    assert not [t.name for t in threading.enumerate() if "lamp.desk" in t.name and t.name not in running]


def test_faults_work_in_real_time_as_well() -> None:
    with host(config=CONFIG, managers={"lamp": Lamp}, drivers={("lamp", "gpio"): LampDriver}) as h:
        h.driver("lamp", "desk").slow(0.02, times=1)
        assert shine(h) == "white"
