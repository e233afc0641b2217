"""A whole daemon in virtual time: real parts all through, but for systemd, the sockets and the hard exit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import asynccontextmanager

import pytest

from ostler import Context, Driver, DriverOptions, Field, Manager, ManagerOptions, Secret, exposed, hookimpl
from ostler.config import load
from ostler.config.layers import check_not_removed
from ostler.config.paths import Paths
from ostler.daemon.daemon import Daemon
from ostler.daemon.process.shutdown_watchdog import ShutdownWatchdog
from ostler.daemon.startup.step_tracker import StepTracker
from ostler.messaging import AsyncClient
from ostler.plugins import in_memory_plugin
from ostler.service import resolve_configuration
from ostler.systemd import FakeNotifier
from ostler.testing.memory_transport import MemoryTransport
from ostler.testing.virtual_time import virtual_clock
from ostler.types import Peer

LAMP = '[services.lamp]\nmanager = "lamp"\n'


class Trouble:
    """What a test wants to happen: errors and gates by the name of the place."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.errors: dict[str, BaseException] = {}
        self.once: set[str] = set()
        self.gates: dict[str, threading.Event] = {}

    def hang(self, where: str) -> threading.Event:
        return self.gates.setdefault(where, threading.Event())

    async def met(self, where: str) -> None:
        """Wait until a place is reached."""
        while where not in self.calls:
            await asyncio.sleep(0.01)

    def meet(self, where: str) -> None:
        self.calls.append(where)
        if where in self.gates:
            self.gates[where].wait(20)
        if where in self.errors:
            error = self.errors[where]
            if where in self.once:
                del self.errors[where]
            raise error

    def let_go(self) -> None:
        for gate in self.gates.values():
            gate.set()


def make_plugin(trouble: Trouble) -> object:  # noqa: C901 - classes with many hooks, no branches
    """A plugin with a manager, a driver and both notification hooks."""

    class LampDriver(Driver):
        class Options(DriverOptions):
            colour: str = Field("white", help="Built anew for", reload="driver")

        def initialise(self):
            trouble.meet(f"initialise {self.name} {self.options.colour}")

        def shine(self):
            trouble.meet("shine")

    class Lamp(Manager):
        driver_type = LampDriver

        class Options(ManagerOptions):
            greeting: str = Field("hello", help="What it says")
            key: Secret = Field("none", help="A secret")

        def init_host(self, service_id, added_to_cluster):
            trouble.meet(f"init_host {self.topic}")

        def is_working(self):
            trouble.meet("is_working")
            return True

        def reset(self):
            trouble.meet("reset")

        def cleanup_host(self):
            trouble.meet("cleanup_host")

        @exposed(role="viewer", changes=False)
        async def greet(self, ctx: Context, after: float = 0.0) -> str:
            """Say something."""
            await asyncio.sleep(after)
            return self.options.greeting

        @exposed(role="operator")
        def work(self, ctx: Context) -> str:
            """Work for as long as the test wants."""
            trouble.meet("work")
            return "done"

    class Plugin:
        @hookimpl
        def ostler_managers(self):
            return {"lamp": Lamp}

        @hookimpl
        def ostler_drivers(self):
            return {("lamp", "gpio"): LampDriver}

        @hookimpl
        def ostler_started(self, host):
            trouble.meet(f"ostler_started {host}")

        @hookimpl
        def ostler_stopping(self, host):
            trouble.meet(f"ostler_stopping {host}")

    return Plugin()


class Bench:
    """A daemon, and what a test needs to see."""

    def __init__(self, paths, plugin, overrides=(), watchdog=None) -> None:
        self.paths, self._plugin, self._overrides, self._watchdog = paths, plugin, overrides, watchdog
        self.notifier = FakeNotifier()
        self.transport = MemoryTransport()
        self.left: list[int] = []
        self.reads = 0
        self.read_error: BaseException | None = None
        self.on_read: Callable[[], object] | None = None
        self.daemon: Daemon
        self.running: asyncio.Task[int]

    def make(self) -> Daemon:
        steps = StepTracker("starting")
        resolved = resolve_configuration(
            load(self.paths, overrides=self._overrides),
            {},
            entry_points=[in_memory_plugin("lamps", self._plugin)],
            on_step=steps,
        )
        steps("")
        self.plugins, self.clock = resolved.plugins, virtual_clock()
        self.daemon = Daemon(
            self.paths,
            resolved,
            clock=self.clock,
            notifier=self.notifier,
            step_tracker=steps,
            load_configuration=self._read,
            watchdog_interval=self._watchdog,
            make_transport=lambda: self.transport,
            shutdown_watchdog=ShutdownWatchdog(list, self.left.append),
        )
        asyncio.get_running_loop().watch(self._writing)
        return self.daemon

    def _read(self, step, before):
        self.reads += 1
        step("reading the bench's configuration")
        if self.on_read is not None:
            self.on_read()
        if self.read_error is not None:
            raise self.read_error
        raw = load(self.paths, overrides=self._overrides)
        check_not_removed(before.configuration.raw, raw)
        return resolve_configuration(raw, {}, plugins=self.plugins)

    def _writing(self):
        store = self.daemon.store
        return ["store"] if store is not None and (store.current_job() or store.stats()["queued"]) else []

    def start(self) -> None:
        self.running = asyncio.get_running_loop().create_task(self.make().run())

    async def ready(self) -> Bench:
        self.start()
        await asyncio.shield(self.daemon.start_finished)
        return self

    async def end(self, number: int = 15) -> int:
        if not self.running.done():
            self.daemon.on_signal(number)
        return await self.running

    def configure(self, text: str) -> None:
        self.paths.config_file.parent.mkdir(parents=True, exist_ok=True)
        self.paths.config_file.write_text(text)

    def client(self, uid: int | None = None) -> AsyncClient:
        seen = self.transport if uid is None else self.transport.as_peer(Peer(uid, uid, 1, f"uid {uid}"))
        return AsyncClient(transport=seen, clock=self.clock)

    async def call(self, method: str, /, *, topic: str = "ostler", uid: int | None = None, **arguments):
        async with self.client(uid) as client:
            return await client.call(topic, method, **arguments)

    @property
    def ready_lines(self) -> list[str]:
        return [d["STATUS"] for d in self.notifier.datagrams if d.get("READY") == "1"]


@pytest.fixture(autouse=True)
def _log_as_before(log_as_before):
    """A daemon sets the log up for the whole process."""


@pytest.fixture
def trouble():
    made = Trouble()
    yield made
    made.let_go()


@pytest.fixture
def bench(tmp_path, trouble):
    """Return a function that makes a daemon's bench; each is stopped at the end of the virtual run."""

    @asynccontextmanager
    async def make(config=LAMP, **more):
        made = Bench(Paths.find(str(tmp_path), {}), make_plugin(trouble), **more)
        made.configure('[daemon]\nhost = "node1"\n' + config)
        try:
            yield made
        finally:
            trouble.let_go()
            if hasattr(made, "running"):
                await made.end()

    return make
