"""Drivers in a virtual time, so that budgets of minutes and retries of hours take no time."""

import asyncio
import logging
import random
import threading
from abc import abstractmethod

import pytest

from ostler.driver import Driver, DriverEnvironment, DriverOptions, Drivers, DriverSpec, feature, time_budget
from ostler.testing.virtual_time import virtual_clock


class LampDriver(Driver):
    """What every lamp driver must be able to do."""

    @abstractmethod
    def switch(self, lamp: str, on: bool) -> str: ...

    def glow(self, lamp: str, *, seconds: float = 1.0) -> None: ...

    @feature("dim")
    def dim(self, lamp: str, level: int) -> None: ...

    @feature("dim")
    def undim(self, lamp: str) -> None: ...


class Lamp(LampDriver):
    """A lamp whose every step a test can hold up; one set of gates per class made by the fixture."""

    class Options(DriverOptions):
        patience: float = 600.0

    fail_first = 0
    kinds = ("led", "bulb")
    shelf = {"mutable": True}

    def __init__(self, environment):
        super().__init__(environment)
        self.made.append(self)
        self.serial = "L-1"
        self.wires = []

    @property
    def brightness(self):
        raise AssertionError("no code of the driver runs on the caller's thread")

    def initialise(self):
        self.log_of.append(f"initialise {threading.current_thread().name}")
        type(self).tries += 1
        self.init_gate.wait(30)
        if type(self).tries <= self.fail_first:
            raise OSError(f"no device, try {type(self).tries}")

    def switch(self, lamp, on):
        self.log_of.append(f"switch {lamp} {threading.current_thread().name}")
        return f"{lamp} {'on' if on else 'off'}"

    def hang(self):
        self.hanging.set()
        self.gate.wait(30)
        return "came back"

    @time_budget("patience")
    def patient(self):
        return self.hang()

    @time_budget("patience", is_long=False)
    def off(self):
        return "off"

    def nap(self, seconds):
        threading.Event().wait(seconds)

    @time_budget(None)
    def endless(self):
        return self.hang()

    @time_budget(1.5)
    def brief(self):
        return self.hang()

    def fail(self, kind):
        raise kind("no")

    def generate(self):
        yield 1

    async def coroutine(self):
        return 1

    @staticmethod
    def unit():
        return "lux"

    def cleanup(self):
        self.log_of.append("cleanup")
        self.cleanup_gate.wait(30)


@pytest.fixture
def lamp():
    """A fresh class of lamps whose gates are open."""

    class Fresh(Lamp):
        made, log_of, tries = [], [], 0
        gate, init_gate, cleanup_gate, hanging = (threading.Event() for _ in range(4))

    Fresh.init_gate.set()
    Fresh.cleanup_gate.set()
    yield Fresh
    for gate in (Fresh.gate, Fresh.init_gate, Fresh.cleanup_gate):
        gate.set()


def options_of(cls, **values):
    return cls.Options(driver="lamp", **values)


def spec_of(cls, name="hall", **values):
    options = options_of(cls, **values)
    environment = DriverEnvironment(
        name=name,
        topic="light",
        host="node1",
        options=options,
        clock=virtual_clock(),
        log=logging.LoggerAdapter(logging.getLogger("test"), {}),
        kv=None,
    )
    return DriverSpec(name=name, cls=cls, options=options, environment=environment)


class Bench:
    """Drivers with a record of what they told."""

    def __init__(self, *specs):
        self.changes = []
        self.readies = []
        self._change = asyncio.Event()
        self.drivers = Drivers(
            {spec.name: spec for spec in specs},
            asyncio.get_running_loop(),
            virtual_clock(),
            on_change=self._told,
            on_ready=self.readies.append,
            rng=random.Random(1),
        )

    def _told(self, name, status):
        self.changes.append((name, str(status.state)))
        self._change.set()

    async def until(self, name, state):
        """Let virtual time pass until a driver is in that state."""
        async with asyncio.timeout(20_000):
            while self.drivers.status(name).state != state:
                self._change.clear()
                await self._change.wait()
        await asyncio.sleep(0)
        return self.drivers.status(name)


@pytest.fixture
def bench():
    """Make drivers from classes: `bench(Lamp)`, or with options, `bench((Lamp, "hall", {"workers": 1}))`."""

    def make(*kinds):
        wanted = [kind if isinstance(kind, tuple) else (kind, "hall", {}) for kind in kinds]
        return Bench(*(spec_of(cls, name, **values) for cls, name, values in wanted))

    return make


@pytest.fixture
def bench_of_specs():
    """Make drivers from specs, and the way to specs."""
    return Bench, spec_of
