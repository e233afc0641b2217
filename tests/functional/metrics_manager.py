"""A manager and a driver that count, fail and take their time."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ostler import Context, Driver, Durable, Manager, RequestError, exposed, periodic


class CountingDriver(Driver):
    def switch(self, fails: bool) -> None:
        if fails:
            raise OSError("no light")


class CountingManager(Manager):
    driver_type = CountingDriver

    def init_host(self, service_id, added_to_cluster):
        self.switched = self.metrics.counter("lamp_switched_total", "Lamps that were switched", labels=["room"])

    @exposed(role="viewer")
    def switch(self, ctx: Context, room: str, fails: bool = False) -> None:
        """Switch the lamp of a room."""
        self.drivers["desk"].switch(fails)
        self.switched.labels(room=room).inc()

    @exposed(role="viewer")
    async def refuse(self, ctx: Context) -> None:
        """Refuse."""
        raise RequestError("not today")

    @exposed(role="viewer", durable=Durable())
    def build(self, ctx: Context) -> None:
        """Build a lamp."""

    @periodic(spacing=0.2)
    def look(self, ctx: Context) -> None:
        """Look."""


class IdleManager(Manager):
    @exposed(role="viewer", changes=False)
    async def modules(self, ctx: Context) -> list[str]:
        """Return the names of the modules that the daemon has imported."""
        return list(sys.modules)


def wait_for_gate() -> None:
    """Wait until the test has opened the gate: a file, as the test is another process."""
    while not Path(os.environ["OSTLER_TEST_GATE"]).exists():
        time.sleep(0.01)


class SlowManager(Manager):
    """Goes on when a test says so."""

    def init_host(self, service_id, added_to_cluster):
        wait_for_gate()

    @exposed(role="viewer")
    def wait(self, ctx: Context) -> None:
        """Wait in a thread."""
        wait_for_gate()

    @exposed(role="viewer")
    async def block(self, ctx: Context) -> None:
        """Block the loop of the daemon, which no method should do."""
        wait_for_gate()
