"""Services on their real parts (store, dispatcher, drivers) in virtual time: a start timeout of minutes takes none."""

from __future__ import annotations

import asyncio
import threading
import types
from contextlib import asynccontextmanager

import pytest

from ostler import Context, Driver, DriverOptions, Field, Manager, ManagerOptions, Seconds, exposed, hookimpl, periodic
from ostler.aio import LoopQueue
from ostler.config import load_text
from ostler.messaging import Access, Dispatcher, LocalServiceClient
from ostler.messaging.network.routing import Router
from ostler.operations import Operations
from ostler.plugins import in_memory_plugin
from ostler.service import HostServices, Runtime
from ostler.service.resolve import resolve_configuration
from ostler.store import Store
from ostler.testing.virtual_time import virtual_clock

HOUR = 3600.0


class Trouble:
    """What a test wants to happen in a service: by the name of the hook, an error, or an event to wait for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.errors: dict[str, BaseException] = {}
        self.gates: dict[str, threading.Event] = {}
        self.reached = threading.Event()
        self.answers: dict[str, object] = {}

    def hang(self, where: str) -> threading.Event:
        return self.gates.setdefault(where, threading.Event())

    def meet(self, where: str) -> object:
        self.calls.append(where)
        self.reached.set()
        if where in self.gates:
            self.gates[where].wait(20)
        if where in self.errors:
            raise self.errors[where]
        self.calls.append(f"end of {where}")
        return self.answers.get(where)

    @property
    def begun(self) -> list[str]:
        return [call for call in self.calls if not call.startswith("end of ")]

    def let_go(self) -> None:
        for gate in self.gates.values():
            gate.set()


def problems_of(outcome, problems):
    """All that a reload complains of, a line each: why it was undone, or what was no reason for that."""
    return [*filter(None, [outcome.failure]), *outcome.not_undone, *problems]


class Bench:
    """A runtime and what a test looks at."""

    def __init__(self, runtime, dispatcher, client, router, assembly, take_in) -> None:
        self.runtime, self.dispatcher, self.client, self.resolved = runtime, dispatcher, client, assembly
        self.router = router
        self.group, self.store = runtime.group, runtime.store
        self.ended: list[str] = []
        self.changes: list[str] = []
        self._take_in = take_in

    def service(self, topic="lamp"):
        return self.group.services[topic]

    def state(self, topic="lamp"):
        return str(self.service(topic).state_tracker.state)

    def why(self, topic="lamp"):
        return self.service(topic).state_tracker.why

    async def row(self, topic="lamp"):
        return await self.store.aread(lambda: self.runtime.service_records.get(topic))

    async def reset(self, config):
        self.resolved = self._take_in(config)
        return problems_of(*await self.runtime.reload(self.runtime.plan(self.resolved.specs)))


def make_manager(trouble: Trouble) -> type[Manager]:  # noqa: C901 - a class with many hooks, no branches
    """A manager whose every hook does as it is told."""

    class LampDriver(Driver):
        class Options(DriverOptions):
            colour: str = Field("white", help="Built anew for", reload="driver")
            tone: str = Field("warm", help="Taken over as it is", reload="live")

        def initialise(self):
            trouble.meet(f"initialise {self.name} {self.options.colour}")

        def is_working(self):
            return trouble.meet(f"is_working of {self.name}")

        def capabilities(self):
            trouble.meet(f"capabilities of {self.name}")
            return {"free_bytes": 5}

        def cleanup(self):
            trouble.meet(f"cleanup {self.name}")

        def work(self):
            trouble.meet(f"work {self.name}")

    class Lamp(Manager):
        driver_type = LampDriver

        class Options(ManagerOptions):
            poll: Seconds = Field(HOUR, gt=0, help="Spacing")
            bulb: str = Field("old", help="Waits for a restart", reload="service")

        def __init__(self, environment):
            trouble.meet(f"build {environment.topic}")
            super().__init__(environment)

        def init_host(self, service_id, added_to_cluster):
            trouble.meet(f"init_host {self.topic}")

        def driver_ready(self, name):
            trouble.meet(f"driver_ready {name}")

        def pre_start_hook(self):
            trouble.meet("pre_start_hook")

        async def init_host_with_rpc(self):
            trouble.meet("init_host_with_rpc")

        def post_start_hook(self):
            trouble.meet("post_start_hook")

        def is_working(self):
            return trouble.meet("is_working")

        def reset(self):
            trouble.meet(f"reset {self.topic}")

        def cleanup_host(self):
            trouble.meet(f"cleanup_host {self.topic}")

        @exposed(role="operator")
        def work(self, ctx: Context) -> str:
            """Work as long as the test wants."""
            trouble.meet("work")
            return "done"

        @exposed(role="operator")
        async def think(self, ctx: Context, seconds: float) -> str:
            """Work on the loop."""
            await asyncio.sleep(seconds)
            return "thought"

        @periodic(spacing="poll")
        def poll(self, ctx: Context) -> None:
            trouble.meet("poll")

    Lamp.Driver = LampDriver
    return Lamp


@pytest.fixture
def trouble():
    made = Trouble()
    yield made
    made.let_go()


@pytest.fixture
def manager(trouble):
    return make_manager(trouble)


@pytest.fixture
def bench(tmp_path, manager):
    """Return a context manager that makes a bench on the running virtual loop; it is started by the test."""

    @asynccontextmanager
    async def make(config, stop=10.0, **more):
        loop, clock = asyncio.get_running_loop(), virtual_clock()
        plugin = _plugin({"lamp": manager, **more}, {("lamp", "gpio"): manager.Driver})
        plugins = None

        def take_in(text):
            return resolve_configuration(
                load_text(text), {}, plugins=plugins, entry_points=[in_memory_plugin("test", plugin)]
            )

        assembly = take_in(config)
        plugins = assembly.plugins
        store = Store.open(tmp_path / "ostler.db", clock=clock, synchronous="NORMAL", busy_timeout=0.2)
        loop.watch(lambda: ["store"] if store.current_job() or store.stats()["queued"] else [])
        inbox = LoopQueue(loop)
        dispatcher = Dispatcher(Access(own_uid=0), clock, inbox, host="node1")
        router = Router("node1", dispatcher.registry.is_open)
        client = LocalServiceClient(dispatcher, inbox, None, topic="ostler", router=router)
        ended, changes = [], []
        operations = Operations(store, dispatcher, client.publish)
        dispatcher.set_operations(operations)
        runtime = Runtime(
            assembly.specs,
            HostServices("node1", clock, inbox, store, dispatcher, client, operations),
            router=router,
            on_end=ended.append,
            on_change=lambda service: changes.append(f"{service.topic} {service.state_tracker.state}"),
        )
        made = Bench(runtime, dispatcher, client, router, assembly, take_in)
        made.ended, made.changes = ended, changes
        try:
            yield made
        finally:
            await runtime.stop(stop)
            store.close()

    return make


def _plugin(managers, drivers):
    plugin = types.ModuleType("test")

    @hookimpl
    def ostler_managers():
        return managers

    @hookimpl
    def ostler_drivers():
        return drivers

    plugin.ostler_managers, plugin.ostler_drivers = ostler_managers, ostler_drivers
    return plugin
