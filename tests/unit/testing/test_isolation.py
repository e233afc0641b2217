"""Drivers of a host in a test, in threads and in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler import Context, DriverCrashed, DriverError, DriverStuck, Manager, exposed
from ostler.errors import ServiceError
from ostler.testing import check_driver, check_manager, host, run_driver
from support.isolated_drivers import Probe, ProbeDriver, ProbeError

BOTH = pytest.mark.parametrize("isolation", ["thread", "process"])
CONFIG = """
[services.probe]
manager = "probe"
[services.probe.drivers.one]
driver = "probe"
call_timeout = 60
"""


class ProbeManager(Manager):
    driver_type = ProbeDriver

    @exposed(role="viewer", changes=False)
    def sums(self, ctx: Context) -> list[int]:
        """Ask each driver."""
        return [self.drivers[name].add(1, 1) for name in self.drivers.ready()]

    @exposed(role="operator")
    def work(self, ctx: Context, driver: str, seconds: float) -> str:
        """Work."""
        self.drivers[driver].take_time(seconds)
        return "done"

    @exposed(role="operator")
    def hang(self, ctx: Context, driver: str) -> None:
        """Do not return."""
        self.drivers[driver].hang()

    @exposed(role="viewer", changes=False)
    def add(self, ctx: Context, driver: str, number: int) -> int:
        """Add."""
        return int(self.drivers[driver].add(number, 1))


@pytest.fixture(params=["thread", "process"])
def h(request: pytest.FixtureRequest) -> Iterator[Any]:
    with host(
        config=CONFIG, managers={"probe": ProbeManager}, drivers={("probe", "probe"): Probe},
        virtual_time=True, isolation=request.param,
    ) as running:  # fmt: skip
        running.isolation = request.param
        yield running


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_service_works_and_its_driver_is_where_it_was_wanted(h: Any) -> None:
    assert h.call("probe", "add", driver="one", number=2) == 3
    pid = h.driver("probe", "one").pid()
    assert (pid == os.getpid()) is (h.isolation == "thread")
    h.restart()
    assert h.call("probe", "add", driver="one", number=3) == 4
    assert pid == os.getpid() or not is_running(pid)


def test_faults_apply_where_the_driver_is(h: Any) -> None:
    one = h.driver("probe", "one")
    one.fail(ProbeError("no lamp"), times=1)
    with pytest.raises(ProbeError, match="no lamp"):
        one.add(1, 1)
    one.slow(10, times=1)
    before = h.clock.monotonic()
    assert h.call("probe", "add", driver="one", number=1) == 2
    assert h.clock.monotonic() - before >= 10
    one.hang()
    with pytest.raises(DriverStuck):
        h.call("probe", "add", driver="one", number=1)
    one.recover()
    h.advance(900)
    assert one.add(1, 1) == 2


def test_a_crash_is_that_of_a_process_where_there_is_one(h: Any) -> None:
    one = h.driver("probe", "one")
    one.crash()
    with pytest.raises(DriverError) as crashed:
        h.call("probe", "add", driver="one", number=1)
    assert isinstance(crashed.value, DriverCrashed) is (h.isolation == "process")
    h.advance(60)
    assert h.call("probe", "add", driver="one", number=1) == 2


def test_a_process_that_hangs_is_killed_in_virtual_time() -> None:
    with host(
        config=CONFIG, managers={"probe": ProbeManager}, drivers={("probe", "probe"): Probe},
        virtual_time=True, isolation="process",
    ) as h:  # fmt: skip
        pid = h.driver("probe", "one").pid()
        with pytest.raises(DriverStuck):
            h.call("probe", "hang", driver="one")
        h.advance(60)
        assert not is_running(pid)
        assert h.call("probe", "add", driver="one", number=1) == 2


@BOTH
def test_a_driver_and_its_manager_conform(isolation: Any) -> None:
    check_driver(Probe, {"shade": "light"}, isolation=isolation)
    check_manager(ProbeManager, drivers={"one": (Probe, {})}, isolation=isolation)


@BOTH
def test_what_does_not_conform_is_found(isolation: Any) -> None:
    with pytest.raises(AssertionError, match="no device"):
        check_driver(Probe, {"begin": "fail"}, isolation=isolation)


@BOTH
def test_a_single_driver_runs_without_a_manager(isolation: Any) -> None:
    with run_driver(Probe, {"shade": "light"}, isolation=isolation) as one:
        assert one.add(1, 2) == 3
        assert one.shade() == "light"
        assert one.count("c1") == 1
        pid = one.pid()
    assert pid == os.getpid() or not is_running(pid)


@BOTH
def test_a_driver_that_cannot_begin_says_why(isolation: Any) -> None:
    with pytest.raises(ServiceError, match="no device"), run_driver(Probe, {"begin": "fail"}, isolation=isolation):
        pass


def test_a_driver_without_a_name_is_refused_with_what_to_do() -> None:
    class Local(Probe):
        pass

    with pytest.raises(ServiceError, match="nothing can be imported by a name"), run_driver(Local, isolation="process"):
        pass


def test_the_configuration_of_a_driver_goes_before_the_default() -> None:
    with run_driver(Probe, {"isolation": "thread"}, isolation="process") as one:
        assert one.pid() == os.getpid()
        assert one.proxy.options.isolation == "thread"


def test_a_call_that_takes_its_time_is_not_overtaken_by_virtual_time() -> None:
    with host(
        config=CONFIG.replace("call_timeout = 60", "call_timeout = 1"), managers={"probe": ProbeManager},
        drivers={("probe", "probe"): Probe}, virtual_time=True, isolation="process",
    ) as h:  # fmt: skip
        before = h.clock.monotonic()
        assert h.call("probe", "work", driver="one", seconds=0.6) == "done"  # more than a thread may take
        assert h.clock.monotonic() == before
