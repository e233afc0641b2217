"""The conformance checks pass what is well, and name what is not."""

from __future__ import annotations

import threading
from abc import abstractmethod
from pathlib import Path
from typing import Any

import pytest

from ostler import Context, Driver, DriverOptions, Field, Manager, ManagerOptions, exposed, periodic
from ostler.testing import check_driver, check_manager


class LampDriver(Driver):
    @abstractmethod
    def shine(self) -> str:
        """Return the colour."""


class GoodOptions(DriverOptions):
    colour: str = Field("white", help="The colour")


class GoodDriver(LampDriver, Driver[GoodOptions]):
    def initialise(self) -> None:
        self.colour = self.options.colour

    def shine(self) -> str:
        return self.colour


class GoodManager(Manager[ManagerOptions, LampDriver]):
    @exposed(role="viewer", changes=False)
    def colours(self, ctx: Context) -> list[str]:
        """Return the colours."""
        return [self.drivers[name].shine() for name in self.drivers.ready()]

    @periodic(spacing=60)
    def look(self, ctx: Context) -> None:
        self.colours(ctx)


ONE = {"one": (GoodDriver, {"colour": "red"})}


def problems_of(check: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        check(*arguments, **named)
    return str(caught.value)


def test_what_conforms_passes() -> None:
    check_driver(GoodDriver, {"colour": "red"})
    check_manager(GoodManager, drivers=ONE)
    check_manager(GoodManager)


def test_options_that_are_wrong_are_named() -> None:
    assert "colou" in problems_of(check_driver, GoodDriver, {"colou": "red"})


def test_a_driver_that_violates_its_contract_is_not_run() -> None:
    class Empty(LampDriver):
        def initialise(self) -> None:
            raise AssertionError("it must not run")

    assert "`shine` is missing" in problems_of(check_driver, Empty)


def test_a_driver_that_cannot_be_initialised_twice_is_named() -> None:
    class Once(GoodDriver):
        used = False

        def initialise(self) -> None:
            if Once.used:
                raise OSError("the device is taken")
            Once.used = True

    assert "cannot be initialised again after `cleanup`: OSError: the device is taken" in problems_of(
        check_driver, Once
    )


def test_a_cleanup_that_needs_initialise_is_named() -> None:
    class Fragile(GoodDriver):
        def cleanup(self) -> None:
            del self.colour

    assert "`cleanup` without `initialise` failed" in problems_of(check_driver, Fragile)


def test_capabilities_that_fail_are_named() -> None:
    class Blind(GoodDriver):
        def capabilities(self) -> Any:
            raise OSError("no statistics")

    assert "no statistics" in problems_of(check_driver, Blind)


def test_a_thread_and_a_file_that_are_left_are_named(tmp_path: Path) -> None:
    stop = threading.Event()
    kept = []

    class Leaky(GoodDriver):
        def initialise(self) -> None:
            super().initialise()
            kept.append((tmp_path / "device").open("w"))
            threading.Thread(target=stop.wait, name="leaky", daemon=True).start()

    found = problems_of(check_driver, Leaky)
    stop.set()
    for file in kept:
        file.close()
    assert "the thread leaky is left behind" in found
    assert "device is left open" in found


def test_a_periodic_task_that_fails_is_named() -> None:
    class Late(GoodManager):
        @periodic(spacing=3600)
        def tick(self, ctx: Context) -> None:
            raise OSError("the clock is broken")

    assert "the periodic task `tick` failed" in problems_of(check_manager, Late, drivers=ONE)


def test_a_defect_that_only_failing_drivers_show_is_named() -> None:
    class Careless(GoodManager):
        @exposed(role="viewer", changes=False)
        def first(self, ctx: Context) -> str:
            """Return the first colour."""
            return self.colours(ctx)[0]

    found = problems_of(check_manager, Careless, drivers=ONE)
    assert "with drivers that cannot be initialised: `first` failed" in found


def test_a_manager_that_cannot_start_again_is_named() -> None:
    class Once(GoodManager):
        started = False

        def init_host(self, service_id: int, added_to_cluster: bool) -> None:
            if Once.started:
                raise OSError("it has been here")
            Once.started = True

    assert "a restart failed" in problems_of(check_manager, Once, drivers=ONE)
