"""Managers and drivers that do all the things that go wrong; named in configurations by import path."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from ostler import (
    Context,
    Driver,
    DriverError,
    DriverOptions,
    Field,
    Manager,
    ManagerOptions,
    Seconds,
    exposed,
    periodic,
    time_budget,
)

_libc = ctypes.PyDLL(None)
_libc.sleep.argtypes = [ctypes.c_uint]


class Echo(msgspec.Struct):
    text: str
    pid: int


class EchoManager(Manager):
    """Answers what it is told."""

    class Options(ManagerOptions):
        greeting: str = Field("", help="What every answer begins with")
        tick: Seconds = Field(3600, gt=0, help="How often the clock ticks")
        slow_tick: bool = Field(False, help="Whether the slow task runs")
        touch: str = Field("", help="A file that is written at each tick and reset")

    @exposed(role="viewer", changes=False)
    def echo(self, ctx: Context, text: str = "") -> Echo:
        """Return the text."""
        return Echo(self.options.greeting + text, os.getpid())

    @exposed(role="viewer", changes=False)
    async def echo_async(self, ctx: Context, text: str = "") -> Echo:
        """Return the text, on the loop."""
        return Echo(self.options.greeting + text, os.getpid())

    @exposed(role="viewer", changes=False)
    async def ticks(self, ctx: Context, spacing: float = 0.01, mark: str = "") -> AsyncIterator[int]:
        """Yield numbers until nobody reads on; leave a mark then."""
        number = 0
        try:
            while True:
                yield number
                number += 1
                await asyncio.sleep(spacing)
        finally:
            if mark:
                Path(mark).write_text(str(ctx.cancelled), encoding="ascii")

    @exposed(role="operator")
    def sleep(self, ctx: Context, seconds: float) -> str:
        """Work for a while; may be cancelled."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ctx.check()
            time.sleep(0.01)
        return "rested"

    @exposed(role="admin")
    async def block_loop(self, ctx: Context, seconds: float) -> None:
        """Do what no method may: block the loop."""
        time.sleep(seconds)

    @exposed(role="admin")
    def leave(self, ctx: Context, kind: str) -> None:
        """Raise what would end a program."""
        raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[kind](kind)

    @periodic(spacing="tick", run_at_once=True)
    def tick(self, ctx: Context) -> None:
        """Write a file."""
        self._touch("tick")

    @periodic(spacing=3600, run_at_once=True, enabled="slow_tick")
    async def slow(self, ctx: Context) -> None:
        """Take a while on the loop."""
        self._touch("slow-begins")
        await asyncio.sleep(1)
        self._touch("slow-ends")

    def reset(self) -> None:
        self._touch("reset")
        if self.options.greeting == "fail":
            raise ValueError("this greeting cannot be")

    def cleanup_host(self) -> None:
        self._touch("cleanup")

    def _touch(self, what: str) -> None:
        if self.options.touch:
            with Path(self.options.touch).open("a") as file:
                file.write(f"{what}\n")


class FaultyTasksManager(EchoManager):
    """Has periodic tasks of every kind."""

    class Options(EchoManager.Options):
        notes: Path = Field(help="Folder for a file per task, with a line per run")
        pace: Seconds = Field(0.05, gt=0, help="How often most of them run")

    def _note(self, task: str) -> None:
        with (self.options.notes / task).open("a") as file:
            file.write(f"{time.monotonic()}\n")

    @periodic(spacing="pace", run_at_once=True)
    def well(self, ctx: Context) -> None:
        """Do no harm."""
        self._note("well")

    @periodic(spacing="pace", run_at_once=True)
    async def well_on_the_loop(self, ctx: Context) -> None:
        """Do no harm on the loop."""
        self._note("well_on_the_loop")

    @periodic(spacing="pace", run_at_once=True)
    def raises(self, ctx: Context) -> None:
        """Raise each time until it is told to be good."""
        self._note("raises")
        if not (self.options.notes / "good").exists():
            raise ValueError("no paper left")

    @periodic(spacing="pace", run_at_once=True)
    async def raises_on_the_loop(self, ctx: Context) -> None:
        """Raise on the loop."""
        raise ValueError("no ink left")

    @periodic(spacing="pace", run_at_once=True)
    def leaves(self, ctx: Context) -> None:
        """Raise what would end a program."""
        raise SystemExit(3)

    @periodic(spacing="pace", run_at_once=True)
    async def leaves_on_the_loop(self, ctx: Context) -> None:
        """Raise what would end a program, on the loop."""
        raise SystemExit(3)

    @periodic(spacing="pace", run_at_once=True)
    def never_ends(self, ctx: Context) -> None:
        """Hang in a native call."""
        self._note("never_ends")
        ctypes.CDLL(None).sleep(3600)

    @periodic(spacing="pace", run_at_once=True)
    def slow(self, ctx: Context) -> None:
        """Take longer than its spacing."""
        self._note("slow")
        time.sleep(0.2)
        self._note("slow")


class LoopBlockingManager(EchoManager):
    """Has one thread, and blocks it."""

    @periodic(spacing=0.05, run_at_once=True)
    def block(self, ctx: Context) -> None:
        """Hold the only thread."""
        ctypes.CDLL(None).sleep(3600)


class SlowInit(EchoManager):
    """Takes long to start."""

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        self._touch("init")
        time.sleep(30)


class FailingInit(EchoManager):
    """Cannot start."""

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        raise OSError("the disk is on fire")


class LeavingInit(EchoManager):
    """Would end the program with its start."""

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        raise SystemExit(3)


class InterruptingInit(EchoManager):
    """Would interrupt the program with its start."""

    async def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        raise KeyboardInterrupt


class DeviceDriver(Driver):
    """What every device can do."""

    def work(self, seconds: float = 0.0) -> str:
        """Do something."""
        raise NotImplementedError


class DeviceManager(EchoManager):
    """Has devices."""

    driver_type = DeviceDriver

    @exposed(role="operator")
    def work(self, ctx: Context, driver: str, seconds: float = 0.0) -> str:
        """Have a driver work."""
        return str(self.drivers[driver].work(seconds))


class GoodDevice(DeviceDriver):
    """Works."""

    def work(self, seconds: float = 0.0) -> str:
        return f"{self.name} worked"

    def capabilities(self) -> dict[str, Any]:
        return {"total_bytes": 1000, "free_bytes": 500}


class HangingDevice(DeviceDriver):
    """Hangs in a native call that holds nothing back but its own thread."""

    def work(self, seconds: float = 0.0) -> str:
        ctypes.CDLL(None).sleep(int(seconds))
        return f"{self.name} woke up"


class BusyDevice(DeviceDriver):
    """Is built anew for another colour, and works for as long as it is told to."""

    class Options(DriverOptions):
        colour: str = Field("white", help="What it answers", reload="driver")

    @time_budget(60)
    def work(self, seconds: float = 0.0) -> str:
        ctypes.CDLL(None).sleep(int(seconds))
        return str(self.options.colour)


class NeverInitialised(DeviceDriver):
    """Never comes back from `initialise`."""

    def initialise(self) -> None:
        ctypes.CDLL(None).sleep(3600)


class ThirdTimeLucky(GoodDevice):
    """Fails three times, then works."""

    class Options(DriverOptions):
        count: Path = Field(help="File that counts the tries")

    def initialise(self) -> None:
        with self.options.count.open("a") as file:
            file.write("x")
        tries = len(self.options.count.read_text())
        if tries <= 3:
            raise DriverError(f"try {tries} failed")


class EmptyDriver:
    """Nothing at all."""


class FailingDevice(GoodDevice):
    """Fails while the file named `broken` in its directory of options exists."""

    class Options(DriverOptions):
        broken: str = Field(help="While this file exists, all calls fail")

    def work(self, seconds: float = 0.0) -> str:
        if Path(self.options.broken).exists():
            raise OSError("the device is broken")
        return super().work(seconds)


class WrongSignature(DeviceDriver):
    """Takes other arguments than its contract says."""

    def work(self, minutes: int) -> str:  # type: ignore[override]
        return ""


def make_echo(environment: Any) -> EchoManager:
    """Build a manager: the factory of a configuration."""
    return EchoManager(environment)


echo_manager_object = EchoManager.__new__(EchoManager)
"""A manager that is there already: the object of a configuration."""


def stop_own_process() -> None:
    """Send this process a SIGSTOP, so that it hangs whole."""
    os.kill(os.getpid(), signal.SIGSTOP)


class BlockingManager(Manager):
    """Blocks the event loop when it is asked to."""

    @exposed(role="viewer", changes=False)
    async def block(self, ctx: Context, seconds: float) -> str:
        """Do on the loop what belongs to a thread."""
        time.sleep(seconds)
        return "done"
