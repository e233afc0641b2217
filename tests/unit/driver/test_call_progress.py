"""A driver reports progress: the caller sees it, and the time budget begins again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from ostler import Cancelled, Context, Driver, DriverStuck, Manager, ManagerOptions, exposed, periodic
from ostler.messaging import Progress, serving
from ostler.testing import Host, host

CONFIG = '[services.copier]\nmanager = "copier"\n[services.copier.drivers.disk]\ndriver = "disk"\ncall_timeout = 5\n'
LOOPS: list[asyncio.AbstractEventLoop] = []
"""The loop of the host, in whose time the device works."""


class DiskDriver(Driver):
    def copy(self, steps: int) -> int:
        """Take 4 s for each step, within a budget of 5 s."""
        for number in range(steps):
            self.wait(4)
            self.progress(number + 1, steps, f"step {number + 1}")
        return steps

    def wait(self, seconds: float) -> None:
        over = threading.Event()
        LOOPS[0].call_soon_threadsafe(LOOPS[0].call_later, seconds, over.set)
        over.wait()


class Copier(Manager[ManagerOptions, DiskDriver]):
    copied = 0

    @exposed(role="operator")
    def copy(self, ctx: Context, steps: int) -> int:
        """Copy."""
        return self.drivers["disk"].copy(steps)

    @periodic(spacing=3600)
    def nightly(self, ctx: Context) -> None:
        self.copied = self.drivers["disk"].copy(3)


@pytest.fixture
def h() -> Iterator[Host]:
    drivers = {("copier", "disk"): DiskDriver}
    with host(config=CONFIG, managers={"copier": Copier}, drivers=drivers, virtual_time=True) as made:
        LOOPS[:] = [made.run(running_loop())]
        yield made


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_the_caller_sees_progress_and_the_budget_begins_again(h: Host) -> None:
    seen: list[Progress] = []
    assert h.on(on_progress=seen.append, timeout=600).call("copier", "copy", steps=5) == 5
    assert (seen[-1].total, seen[-1].text.startswith("step")) == (5, True)


def test_a_periodic_task_has_no_caller_but_a_budget(h: Host) -> None:
    h.run_periodic("copier", "nightly")
    assert h.manager("copier").copied == 3


def test_without_progress_the_budget_ends(h: Host) -> None:
    h.driver("copier", "disk").slow(6, times=1)
    with pytest.raises(DriverStuck):
        h.call("copier", "copy", steps=1)


def test_outside_of_any_call_progress_is_dropped() -> None:
    DiskDriver.progress(object.__new__(DiskDriver), 1, 2, "text")


def test_the_work_of_a_cancelled_request_ends_at_its_next_progress() -> None:
    context = Context("copier", "copy")
    context.cancel()
    with pytest.raises(Cancelled), serving(context):
        DiskDriver.progress(object.__new__(DiskDriver), 1)
