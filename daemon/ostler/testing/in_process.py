"""A host in the process of a test: the real services, store and dispatcher, without a daemon, sockets or patches."""

from __future__ import annotations

import asyncio
import logging
import math
import tempfile
import threading
import time
import types
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from ostler.aio import LoopQueue
from ostler.clock import Clock, SystemClock
from ostler.config import load_text
from ostler.errors import NotFound, ServiceError
from ostler.hookspecs import hookimpl
from ostler.manager_types import DaemonAddresses, EventHandlerStatus, LockStatus
from ostler.messaging import (
    Access,
    Client,
    Context,
    Dispatcher,
    Endpoint,
    Event,
    LocalServiceClient,
    Publisher,
    Retry,
    RpcServer,
    exposed,
)
from ostler.messaging.clients.call_methods import DEFAULT_OPTIONS, SyncCallMethods
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT
from ostler.messaging.clients.sync_item_stream import ItemStream
from ostler.messaging.events import EventPattern, Subscription
from ostler.messaging.events.event import JournalPage, JournalPosition, JournalTopic
from ostler.messaging.events.notifications import Notifications
from ostler.messaging.network.routing import Router
from ostler.messaging.wire.request import CallRequest
from ostler.operations import OperationControl, Operations
from ostler.plugins import DiscoveredPlugin, in_memory_plugin
from ostler.service import HostServices as HostParts
from ostler.service import Runtime, Service
from ostler.service.event_journal import LazyJournal, journal_page, journal_topics
from ostler.service.resolve import ResolvedConfiguration, resolve_configuration
from ostler.service.service_changes import ReloadOptions
from ostler.service.service_spec import ServiceSpec
from ostler.store import Store
from ostler.testing.controlled_time import ControlledTimeLoop
from ostler.testing.driver_faults import DriverFaults, DriverHandle, with_faults
from ostler.testing.host_gateway import GatewayCallers, HostGateway
from ostler.testing.loop_end import cancel_other_tasks
from ostler.testing.memory_transport import MemoryTransport
from ostler.testing.metric_values import metric_value
from ostler.testing.virtual_time import VirtualClock
from ostler.types import (
    CONTROL_TOPIC,
    CapabilityReport,
    DriverState,
    MethodDescription,
    Peer,
    Role,
    ServiceState,
    ServiceStatus,
    Upgrade,
)

if TYPE_CHECKING:
    from ostler.driver.process.driver_process import DriverProcess
    from ostler.testing.commands import CommandResult

_log = logging.getLogger(__name__)
T = TypeVar("T")
WAIT_TIMEOUT = 20.0
"""Real seconds that a test waits for a condition before it fails."""
_PROCESS_STALL_TIMEOUT = 2.0
"""Real seconds that a call into the process of a driver may take before virtual time continues without it."""
_FOLLOW_TIMEOUT = 10.0
"""Seconds that a start waits for event handlers, which a broken store keeps from following."""
_VIRTUAL_CALL_TIMEOUT = 3600.0
"""Seconds of virtual time; no real time passes while a call waits for them."""


@contextmanager
def host(  # noqa: PLR0913 - each is a word of its own
    *,
    config: str = "",
    plugins: Sequence[object] = (),
    managers: Mapping[str, Any] | None = None,
    drivers: Mapping[tuple[str, str], Any] | None = None,
    extensions: Mapping[tuple[str, str], Any] | None = None,
    state: Path | None = None,
    name: str = "testhost",
    clock: Clock | None = None,
    virtual_time: bool = False,
    isolation: Literal["thread", "process"] = "thread",
) -> Iterator[Host]:
    """Run services inside a `with` block.

    Args:
        config: The configuration, as TOML; missing sections have their defaults.
        plugins: Plugins to load: modules (or objects) with hooks, or the names of such modules. Nothing else is loaded.
        managers: Managers by registered name, instead of a plugin.
        drivers: Drivers by (manager's name, driver's name), instead of a plugin.
        extensions: Extensions by (kind, name), instead of a plugin.
        state: The directory of the database; two hosts with the same directory, one after the other, simulate a
            restart. By default a temporary directory.
        name: The name of the host.
        clock: The source of time; timers keep to real time.
        virtual_time: Whether time, that of timers included, stands still until the test calls `advance`. It also passes
            while a call waits for an answer that nothing else can bring, such as `DriverStuck`.
        isolation: Where drivers run whose configuration does not say it; in processes of their own they must be at the
            top level of a module that can be imported there, and what a test patches is not patched.

    Raises:
        TypeError: Both a clock and virtual time were asked for.
        ConfigurationError: The configuration or a plugin is invalid; with all problems.
        ServiceError: A service did not start. In a test every service is required, unless its configuration says
            otherwise.
    """
    if virtual_time and clock is not None:
        raise TypeError("virtual time has a clock of its own: `h.clock`")
    inline = _inline_plugin(managers or {}, drivers or {}, extensions or {})
    found = [*_entry_points(plugins), in_memory_plugin("test", inline)]
    assembly = resolve_configuration(load_text(config, "the test's configuration"), {}, entry_points=found)
    with tempfile.TemporaryDirectory(prefix="ostler-test-") as folder:
        loop = ControlledTimeLoop() if virtual_time else asyncio.new_event_loop()
        running = Host(assembly, (state or Path(folder)) / "ostler.db", name, clock, loop, isolation)
        running.start()
        try:
            yield running
        finally:
            running.stop()


class Host(GatewayCallers, SyncCallMethods):
    """Services that run on a loop in a separate thread; call all methods on the test's thread. Created by `host`.

    It is a client with the role admin: `call`, `cast`, `fanout`, `stream` and `on` are those of `Client`.

    Args:
        assembly: The validated configuration.
        database: The database file.
        name: The name of the host.
        clock: The source of time; None for that of the loop.
        loop: Runs the host, in a thread of its own; it is closed by `stop`.
        isolation: Where drivers run whose configuration does not say it.

    Attributes:
        clock: The clock of the services; with virtual time `h.clock.set_wall(…)` sets the wall clock alone.
    """

    def __init__(
        self,
        assembly: ResolvedConfiguration,
        database: Path,
        name: str,
        clock: Clock | None,
        loop: asyncio.AbstractEventLoop,
        isolation: Literal["thread", "process"] = "thread",
    ) -> None:
        self._isolation = isolation
        self._processes: list[DriverProcess] = []
        self._assembly = assembly
        self._database = database
        self._name = name
        self._loop = loop
        self._time = loop if isinstance(loop, ControlledTimeLoop) else None
        if self._time is not None:
            self._time.watch_slow(self._processes_in_transition, WAIT_TIMEOUT)
            self._time.watch_slow(self._calls_of_processes, _PROCESS_STALL_TIMEOUT)
        self.clock = clock or (VirtualClock(self._time) if self._time else SystemClock())
        self._faults: dict[tuple[str, str], DriverFaults] = {}
        self._dispatcher: Dispatcher | None = None
        self._client: LocalServiceClient | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="ostler-test-host", daemon=True)
        self._transport = MemoryTransport()
        self.options = DEFAULT_OPTIONS
        self._readers: list[Client] = []
        self._events: list[Event] = []
        self._condition = threading.Condition()
        self._failures: list[str] = []
        self._runtime: Runtime | None = None
        self._store: Store | None = None
        self._server: RpcServer | None = None
        self._host_gateway: HostGateway | None = None
        self._publisher: Publisher | None = None
        self._notifications: Notifications | None = None
        self._journal: LazyJournal | None = None

    # ---------------------------------------------------------------- for tests

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """See `SyncCallMethods.ask`."""
        with self.client() as client:
            return client.send_request(request, retry)

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """See `SyncCallMethods.open_stream`."""
        self._readers.append(client := self.client())
        return client.open_stream(request, credit)

    def client(self, uid: int | None = None) -> Client:
        """Return a client, which the test must close; with `uid` that of another user."""
        transport = self._transport
        if uid is not None:
            transport = transport.as_peer(Peer(uid, uid, 1, f"uid {uid}"))
        return Client(transport=transport, timeout=_VIRTUAL_CALL_TIMEOUT if self._time else WAIT_TIMEOUT)

    def _token_role(self, name: str, proof: str) -> Role | None:
        return self._host_gateway.tokens.role_of(name, proof) if self._host_gateway is not None else None

    def command(self, *words: str, stdin: str = "", environ: Mapping[str, str] | None = None) -> CommandResult:
        """Run the command `ostler` against this host: `h.command("lamp", "list", "--json").json()`.

        Commands of plugins are found as always, by their entry points: install the plugin, for instance editable.

        Args:
            words: The arguments.
            stdin: The input; it is not a terminal, so that questions are refused.
            environ: The environment; empty by default.
        """
        from ostler.testing.commands import run_in_process  # 60 ms: typer

        def connect(_where: object, timeout: float, lenient: bool) -> Client:
            return Client(transport=self._transport, timeout=timeout, lenient=lenient)

        return run_in_process(words, stdin, environ or {}, connect, self.clock)

    def manager(self, topic: str) -> Any:
        """Return the manager of a service."""
        return self.service(topic).manager

    def driver(self, topic: str, name: str) -> DriverHandle:
        """Return a driver of a service: its methods, through the proxy that the manager uses as well, and faults."""
        drivers = self.service(topic).drivers
        assert drivers is not None, f"service {topic} was not created"  # noqa: S101 - an error of the test
        return DriverHandle(drivers[name], self._driver_faults(topic, name))

    def _driver_faults(self, topic: str, name: str) -> DriverFaults:
        return self._faults.setdefault((topic, name), DriverFaults(self._loop))

    def advance(self, seconds: float) -> None:
        """Let time pass: periodic tasks, retries, leases and time limits that become due run, in their order.

        Returns when nothing that this has started is in progress, except what hangs. A day of a service with its
        reports takes about 20 real seconds; a longer `report_interval` makes that less.

        Args:
            seconds: How far time moves; 0 waits only for what is in progress.

        Raises:
            TypeError: The host has no virtual time.
        """
        if self._time is None:
            raise TypeError("this host runs in real time; create it with `host(virtual_time=True)`")
        asyncio.run_coroutine_threadsafe(self._time.pass_time(seconds), self._loop).result()

    def service(self, topic: str) -> Service:
        """Return a service."""
        return self._started_runtime().group.services[topic]

    def status(self, topic: str) -> ServiceStatus:
        """Return a service as `ostler service show` does."""
        rows = self.run(self._started_runtime().rows())
        return next(row for row in rows if row.topic == topic)

    def run_periodic(self, topic: str, task: str) -> None:
        """Run a periodic task now, and wait until it has ended.

        Raises:
            AssertionError: The task raised an error.
        """
        periodic = self._started_runtime().periodic_scheduler
        before = self._run_counts(topic, task)
        self.run(_call_on_loop(lambda: periodic.run_now(topic, task)))
        if self._time is not None:
            self.run(self._time.wait_until(lambda: self._count_runs(topic, task)[0] > before[0]))
        else:
            self.wait_for(lambda: self._run_counts(topic, task)[0] > before[0], f"{topic}.{task} to run")
        runs, errors, error = self._run_counts(topic, task)
        del runs
        if errors > before[1]:
            raise AssertionError(f"the periodic task {topic}.{task} failed: {error}")

    def periodic_tasks(self, topic: str) -> list[str]:
        """Return the names of the periodic tasks of a service."""
        rows = self.run(_call_on_loop(self._started_runtime().periodic_scheduler.statuses))
        return [row.task for row in rows if row.service == topic]

    def _run_counts(self, topic: str, task: str) -> tuple[int, int, str]:
        return self.run(_call_on_loop(lambda: self._count_runs(topic, task)))

    def _count_runs(self, topic: str, task: str) -> tuple[int, int, str]:
        for row in self._started_runtime().periodic_scheduler.statuses():
            if (row.service, row.task) == (topic, task):
                return row.runs, row.errors, row.last_error
        raise AssertionError(f"service {topic} has no periodic task {task}")

    def events(self, pattern: str = "", count: int = 1) -> list[Event]:
        """Return the events published so far that match a pattern; waits until there are `count` of them."""
        fits = EventPattern(pattern).matches
        self.wait_for(lambda: sum(map(fits, self._events)) >= count, f"{count} events {pattern}")
        return [event for event in self._events if fits(event)]

    def metric(self, name: str, **labels: str) -> float:
        """Return what a metric of a manager or driver has counted so far; see `metric_value`.

        Args:
            name: The name of the metric.
            labels: Labels with their values, `service` and `driver` as well; of those not named all values count.
        """
        return metric_value(self._started_runtime().metrics.read(), name, labels)

    def publish(self, topic: str, name: str, payload: Any = None) -> None:
        """Publish an event as a service of another topic would, which need not exist in the test.

        Args:
            topic: The topic of that service.
            name: The name of the event.
            payload: Its content.
        """
        assert self._client is not None, "the host is not started"  # noqa: S101 - an error of the test
        self._client.for_topic(topic).publish(name, payload)

    def wait_driver(self, topic: str, name: str, state: DriverState = DriverState.READY) -> None:
        """Wait until a driver has a state."""
        drivers = self.service(topic).drivers
        assert drivers is not None, f"service {topic} was not created"  # noqa: S101 - an error of the test
        self.wait_for(lambda: drivers.status(name).state is state, f"driver {name} to be {state}")

    def wait_for(self, condition: Callable[[], object], what: str, timeout: float = WAIT_TIMEOUT) -> None:
        """Wait until `condition` returns a true value; it is called again after each event.

        Args:
            condition: Called on the thread of the test.
            what: What is waited for, for the error.
            timeout: The time limit in seconds.

        Raises:
            AssertionError: It did not within the time limit.
        """
        until = time.monotonic() + timeout
        hint = "; time stands still in this host until `advance`" if self._time else ""
        while not condition():
            if time.monotonic() > until:
                raise AssertionError(f"timed out waiting for {what}{hint}")
            with self._condition:
                self._condition.wait(0.005)

    def reload(self, config: str) -> None:
        """Load another configuration, as `ostler reload` does.

        Raises:
            ConfigurationError: It is invalid; nothing has changed.
            ServiceError: A manager's `reset` failed, or a driver could not be initialised again.
        """
        raw = load_text(config, "the test's configuration")
        self._assembly = resolve_configuration(raw, {}, plugins=self._assembly.plugins)
        runtime = self._started_runtime()
        specs = self._specs()

        async def reload() -> list[str]:
            outcome, problems = await runtime.reload(
                runtime.plan(specs), options=ReloadOptions(migrations=self._assembly.plugins.migrations())
            )
            return [*filter(None, [outcome.failure]), *outcome.not_undone, *problems]

        if problems := self.run(self._while_time_passes(reload())):
            raise ServiceError("; ".join(problems))

    def _specs(self) -> list[ServiceSpec]:
        """Return the services, with drivers that take faults."""
        return [
            msgspec.structs.replace(
                spec,
                drivers={
                    name: (
                        with_faults(loaded, self._driver_faults(spec.topic, name), self._add_process),
                        _isolated(options, self._isolation),
                    )
                    for name, (loaded, options) in spec.drivers.items()
                },
            )
            for spec in map(_as_required, self._assembly.specs)
        ]

    def _add_process(self, process: DriverProcess) -> None:
        self._processes = [*(each for each in self._processes if not each.is_lost), process]

    def _processes_in_transition(self) -> list[DriverProcess]:
        return [process for process in self._processes if process.is_in_transition]

    def _calls_of_processes(self) -> list[tuple[DriverProcess, int]]:
        return [(process, number) for process in self._processes for number in process.calls_in_progress()]

    async def _while_time_passes(self, work: Coroutine[Any, Any, T]) -> T:
        with self._time.free_running() if self._time else nullcontext():
            return await work

    def _is_awaited(self) -> bool:
        """Return whether a client waits for an answer, streams aside. On the loop."""
        if self._dispatcher is None:
            return False
        calls = self._dispatcher.in_flight_since(-math.inf)
        return any(
            call.client is not None and call.operation is None and not call.method.signature.is_streaming
            for call in calls
        )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the host's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_TIMEOUT * 3)

    # ---------------------------------------------------------------- start and stop

    def start(self) -> None:
        """Start everything; called by `host`.

        Raises:
            OstlerError: The database or a required service could not be started; nothing is left running.
        """
        self._thread.start()
        try:
            self.run(self._while_time_passes(self._start()))
        except BaseException:
            self.stop()
            raise

    def restart(self, *, crash: bool = False) -> None:
        """Stop all services and start them again on the same database, as a restart of the daemon does.

        Clients that `client` returned are closed by it.

        Args:
            crash: Whether the daemon is killed instead of stopped: its database is then as it is at this moment,
                whatever the stop writes. What managers and drivers keep elsewhere is not: they end as in a stop.

        Raises:
            OstlerError: A required service did not start again.
        """
        killed = self._database.with_suffix(".killed")
        if crash:
            self.store.backup(killed)
        for client in self._readers:
            client.close()
        self._readers.clear()
        hung = self.run(self._while_time_passes(self._stop()))
        if hung:
            _log.warning("still running after the stop: %s", "; ".join(hung))
        if crash:
            for name in ("-wal", "-shm"):
                self._database.with_name(self._database.name + name).unlink(missing_ok=True)
            killed.replace(self._database)
        self._transport = MemoryTransport()
        self.run(self._while_time_passes(self._start()))

    async def _start(self) -> None:
        inbox = LoopQueue(self._loop)
        own_uid = self._transport.peer.uid
        access = Access(own_uid=own_uid, token_role=self._token_role)
        self._store = Store.open(
            self._database, clock=self.clock, synchronous="NORMAL", migrations=self._assembly.plugins.migrations()
        )
        for error in self._store.failed_migrations.values():
            raise error  # a daemon would fail that plugin's services only; here it is what is tested
        dispatcher = self._dispatcher = Dispatcher(access, self.clock, inbox, host=self._name)
        if self._time is not None:
            store = self._store
            self._time.watch(lambda: [id(store)] if store.current_job() or store.stats()["queued"] else [])
            self._time.set_awaited(self._is_awaited)
        self._publisher = Publisher(self._transport.serve_events(), self._name, self.clock, access, inbox.post)
        self._server = RpcServer(self._transport.serve_rpc(), dispatcher, inbox)
        timeout = _VIRTUAL_CALL_TIMEOUT if self._time else WAIT_TIMEOUT
        self._host_gateway = HostGateway(dispatcher, self._publisher, own_uid, timeout)
        router = Router(self._name, dispatcher.registry.is_open)
        client = self._client = LocalServiceClient(
            dispatcher, inbox, self._publisher, topic=CONTROL_TOPIC, router=router
        )
        self._publisher.start()
        self._server.start()
        self._subscribe_events()
        options = self._assembly.configuration
        told = self._notifications = Notifications(self._publisher, self.clock, options.sections)
        told.configure(options.notifications.model_dump(), self._assembly.sinks)
        operations = Operations(self._store, dispatcher, client.publish, on_end=self._failures.append)
        dispatcher.set_operations(operations)
        self._journal = LazyJournal(self._publisher, self._store, self.clock, _journaled_topics(self._assembly.specs))
        self._journal.apply(options.events)
        parts = HostParts(
            self._name, self.clock, inbox, self._store, dispatcher, client, operations, told, self._publisher,
            DaemonAddresses(rpc="memory", events="memory"), self._host_gateway.gateway,
        )  # fmt: skip
        runtime = self._runtime = Runtime(
            self._specs(),
            parts,
            router=router,
            on_end=self._failures.append,
            on_change=lambda _service: self._notify_waiters(),
        )
        namespaces = {"operation": OperationControl(operations, dispatcher.registry)}
        dispatcher.registry.add_endpoint(
            Endpoint(CONTROL_TOPIC, self._name, _TestControlEndpoint(runtime, dispatcher), None, namespaces=namespaces)
        )
        await self._runtime.start()
        with suppress(TimeoutError):  # what the test publishes first is not to be missed
            async with asyncio.timeout(_FOLLOW_TIMEOUT):
                await self._runtime.wait_event_handlers()

    def _subscribe_events(self) -> None:
        subscription = Subscription([""])

        def take(data: Any) -> None:
            self._events.extend(event for event in subscription.receive(data) if isinstance(event, Event))
            self._notify_waiters()

        self._transport.subscribe_async(subscription.prefixes, take, lambda _lost: None)

    def _notify_waiters(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def stop(self) -> None:
        """Stop everything; called by `host`.

        Raises:
            ServiceError: A background task has ended.
        """
        for client in self._readers:
            client.close()
        for faults in self._faults.values():
            faults.clear()
        try:
            hung = self.run(self._while_time_passes(self._stop()))
            self.run(cancel_other_tasks())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(WAIT_TIMEOUT)
            self._loop.close()
        if hung:
            _log.warning("still running after the test: %s", "; ".join(hung))
        if self._failures:
            raise ServiceError("; ".join(self._failures))

    async def _stop(self) -> list[str]:
        hung = await self._runtime.stop(1.0) if self._runtime is not None else []
        if self._notifications is not None:
            self._notifications.close()
        if self._server is not None:
            self._server.close()
        if self._host_gateway is not None:
            self._host_gateway.close()
        if self._journal is not None:
            await self._journal.close()
        if self._publisher is not None:
            self._publisher.close()
        self._transport.close()
        if self._store is not None:
            self._store.close(1.0)
        return hung

    def _started_runtime(self) -> Runtime:
        assert self._runtime is not None, "the host is not started"  # noqa: S101 - an error of the test
        return self._runtime

    @property
    def store(self) -> Store:
        """The database."""
        assert self._store is not None, "the host is not started"  # noqa: S101 - an error of the test
        return self._store

    def states(self) -> dict[str, ServiceState]:
        """Return the state of every service."""
        return {service.topic: service.state_tracker.state for service in self._started_runtime().group}


def _journaled_topics(specs: Sequence[ServiceSpec]) -> list[str]:
    return [spec.topic for spec in specs if spec.manager.cls.journal_events]


class _TestControlEndpoint:
    """The methods of the daemon's own topic that plugins need: for typed clients, schedulers and HTTP."""

    def __init__(self, runtime: Runtime, dispatcher: Dispatcher) -> None:
        self._runtime = runtime
        self._registry = dispatcher.registry

    @exposed(role="viewer", changes=False)
    async def describe(self, ctx: Context, topic: str, schema: bool = False) -> list[MethodDescription]:
        """Return the methods that can be called on a topic."""
        return self._registry.describe(topic, schema=schema)

    @exposed(role="viewer", changes=False)
    async def service_show(self, ctx: Context, topic: str) -> ServiceStatus:
        """Return one service of this host."""
        for row in await self._runtime.rows():
            if row.topic == topic and row.here:
                return row
        raise NotFound(f"service {topic} not found on this host", topic=topic)

    @exposed(role="viewer", changes=False)
    async def service_versions(self, ctx: Context, topic: str = "", major: int | None = None) -> list[Upgrade]:
        """Return the version of each topic that callers may use now, and what limits it."""
        upgrades = self._runtime.upgrades
        return [await upgrades.aget_upgrade(topic, major)] if topic else await upgrades.list_upgrades()

    @exposed(role="viewer", changes=False)
    async def event_topics(self, ctx: Context) -> list[JournalTopic]:
        """Return the topics whose events are journaled."""
        runtime = self._runtime
        return await journal_topics(runtime.store, runtime.clock, runtime.host)

    @exposed(role="viewer", changes=False)
    async def events_since(self, ctx: Context, positions: list[JournalPosition], limit: int = 500) -> JournalPage:
        """Return the next events of the journal after some positions."""
        runtime = self._runtime
        return await journal_page(runtime.store, runtime.clock, runtime.host, positions, limit)

    @exposed(role="viewer", changes=False)
    async def lock_list(self, ctx: Context, service: str = "") -> list[LockStatus]:
        """Return who holds locks and who waits for them."""
        return await self._runtime.locks.list(service)

    @exposed(role="viewer", changes=False)
    async def event_handlers(self, ctx: Context) -> list[EventHandlerStatus]:
        """Return every event handler."""
        return self._runtime.event_handlers()

    @exposed(role="viewer", changes=False)
    async def service_list(self, ctx: Context) -> list[ServiceStatus]:
        """Return every service as this host sees it."""
        return await self._runtime.rows()

    @exposed(role="viewer", changes=False)
    async def capabilities(self, ctx: Context) -> list[CapabilityReport]:
        """Return the last reported capabilities of the services."""
        return await self._runtime.host_view.capabilities()


async def _call_on_loop(work: Callable[[], T]) -> T:
    return work()


def _entry_points(plugins: Sequence[object]) -> Iterator[DiscoveredPlugin]:
    for plugin in plugins:
        if isinstance(plugin, str):
            yield DiscoveredPlugin(plugin.partition(".")[0], plugin, lambda plugin=plugin: import_module(plugin))  # type: ignore[misc]
        else:
            yield in_memory_plugin(getattr(plugin, "__name__", type(plugin).__name__), plugin)


def _inline_plugin(
    managers: Mapping[str, Any], drivers: Mapping[tuple[str, str], Any], extensions: Mapping[tuple[str, str], Any]
) -> object:
    plugin = types.ModuleType("test")

    @hookimpl
    def ostler_managers() -> Mapping[str, Any]:
        return managers

    @hookimpl
    def ostler_drivers() -> Mapping[tuple[str, str], Any]:
        return drivers

    @hookimpl
    def ostler_extensions() -> Mapping[tuple[str, str], Any]:
        return extensions

    for hook in (ostler_managers, ostler_drivers, ostler_extensions):
        setattr(plugin, hook.__name__, hook)
    return plugin


__all__ = ["Host", "host"]


def _as_required(spec: ServiceSpec) -> ServiceSpec:
    """Return a service that is required, unless the configuration says otherwise."""
    if "required" in spec.options.model_fields_set:
        return spec
    return msgspec.structs.replace(spec, options=spec.options.model_copy(update={"required": True}))


def _isolated(options: Any, isolation: str) -> Any:
    """Return the options of a driver that runs there, unless its configuration says where."""
    if "isolation" in options.model_fields_set or options.isolation == isolation:
        return options
    return options.model_copy(update={"isolation": isolation})
