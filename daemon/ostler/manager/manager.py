"""`Manager`: owns one aspect of the system and its data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol

import msgspec
import typing_extensions

from ostler.aio.background_tasks import BackgroundTasks
from ostler.clock import Clock
from ostler.config import Faults, Field, OptionsModel, Seconds, ValidationContext
from ostler.config.options import COUNT_MAX
from ostler.config.type_arguments import adopt_type_arguments
from ostler.driver import Driver, Drivers, DriverT
from ostler.errors import FeatureNotSupported, OstlerError
from ostler.locks import Locks
from ostler.manager.periodic_registry import NO_PERIODIC_REGISTRY, PeriodicRegistry
from ostler.manager_types import DaemonAddresses
from ostler.messaging import ServiceClient
from ostler.messaging.events.notifications import Notifier
from ostler.store import Store  # not only for the type checker: `pydoc` reads the fields' types
from ostler.time_text import format_seconds
from ostler.types import Json

if TYPE_CHECKING:
    from ostler.messaging.gateway.gateway import Gateway


class ManagerOptions(OptionsModel):
    """The options that every service has; a manager's own are fields of a subclass, named `Options` in the manager."""

    manager: str = Field(
        help="Registered name of the manager, or its import path `package.module:Name`", reload="service"
    )
    enabled: bool = Field(True, help="Whether the service is started", reload="service")
    required: bool = Field(
        False, help="Whether the daemon refuses to run when this service cannot start", reload="live"
    )
    critical: bool = Field(
        False, help="Whether the watchdog ping is withheld when `is_working` does not return", reload="live"
    )
    depends_on: list[str] = Field([], help="Topics of services that must be up before this one starts", reload="live")
    workers: int = Field(8, ge=1, le=1024, help="Threads for this service's `def` methods", reload="service")
    queue_limit: int = Field(
        1000,
        ge=1,
        le=COUNT_MAX,
        help="Requests that may wait for a thread; one more is refused as busy. One caller may use as much as is left "
        "free, so a single caller gets half",
        reload="service",
    )
    max_in_flight: int = Field(
        2000,
        ge=1,
        le=COUNT_MAX,
        help="Requests in progress, including those that wait for a thread; one more is refused as busy",
        reload="live",
    )
    max_operations: int = Field(
        8,
        ge=1,
        le=1024,
        help="Operations that run at once, and as many of methods that are short; further ones wait in the queue",
        reload="live",
    )
    report_interval: Seconds = Field(
        10, gt=0, help="How often the service reports its state (the heartbeat)", reload="live"
    )
    down_time: Seconds = Field(
        60, gt=0, help="Without a report for this long, observers consider the service down", reload="live"
    )
    capability_interval: Seconds = Field(
        60, gt=0, help="How often capabilities are reported to schedulers", reload="live"
    )
    start_timeout: Seconds = Field(300, gt=0, help="Time limit of each hook of the start", reload="live")
    driver_init_wait: Seconds = Field(
        5,
        ge=0,
        help="How long the start waits for the first attempt of its drivers before it continues without them",
        reload="live",
    )
    drain_timeout: Seconds = Field(30, ge=0, help="How long a stop waits for work in progress", reload="live")
    drivers: dict[str, dict[str, Any]] = Field(
        {}, help="The service's drivers (backends), one table each", reload="live"
    )

    def validate_options(self) -> Iterable[tuple[str, str]]:
        """A service whose reports come no sooner than its down time would be called down between any two of them."""
        if self.down_time > self.report_interval:
            return
        advice = (
            f"set down_time to {format_seconds(3 * self.report_interval)} or more, so that one late report does no harm"
        )
        if "down_time" in self.model_fields_set:
            yield (
                "down_time",
                f"must be above report_interval, which is {format_seconds(self.report_interval)}; {advice}",
            )
        else:
            yield "report_interval", f"must be below down_time, which is {format_seconds(self.down_time)}; {advice}"


ManagerOptionsT = typing_extensions.TypeVar("ManagerOptionsT", bound=ManagerOptions, default=Any)


def _ignore_progress(_text: str) -> None:
    """Ignore the text."""


class ReportChange(Protocol):
    """Asks for and reports what a service offers; see `Manager.capabilities_changed`. Any thread."""

    def __call__(self, backend: str, lease: str, released: bool, /) -> None:
        """Record a change."""
        ...


def _ignore_change(_backend: str, _lease: str, _released: bool, /) -> None:
    """Do nothing, without a reporter."""


def no_gateway() -> Gateway:
    """Refuse to open a gateway: the host has none."""
    raise FeatureNotSupported(
        "this host has no gateway", hint="run the manager in a daemon or in `ostler.testing.host`"
    )


class ManagerEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """What a manager gets from its service."""

    topic: str
    host: str
    options: Any
    drivers: Drivers
    store: Store
    client: ServiceClient
    clock: Clock
    log: logging.LoggerAdapter[logging.Logger]
    extensions: Mapping[str, Mapping[str, Any]] = {}
    """Kind to name to class: the extensions of the kinds that the manager declares."""
    sections: Mapping[str, Any] = {}
    """The validated options of the configuration sections that plugins declared, by the section's name."""
    locks: Locks = msgspec.field(default_factory=Locks.private)
    """Takes locks by name, for the manager's own objects."""
    daemon: DaemonAddresses = DaemonAddresses()
    """Where the manager's own daemon listens."""
    notifier: Notifier = Notifier()
    """Sends the manager's notifications, with a priority."""
    report_progress: Callable[[str], None] = _ignore_progress
    """Takes the progress of start hooks, as text for systemd's STATUS and `ostler status`. Any thread."""
    report_change: ReportChange = _ignore_change
    """Called by `Manager.capabilities_changed`."""
    periodic: PeriodicRegistry = msgspec.field(default_factory=lambda: NO_PERIODIC_REGISTRY)
    """Adds and removes periodic tasks."""
    tasks: BackgroundTasks = msgspec.field(default_factory=lambda: BackgroundTasks("none"))
    """Starts background tasks."""
    open_gateway: Callable[[], Any] = no_gateway
    """Returns the gateway of the daemon; see `Manager.gateway`."""


def reserved_names() -> frozenset[str]:
    """Return the attribute names of every manager: an exposed method of such a name could not be called."""
    return frozenset({"environment", "gateway", "listen_addresses", *ManagerEnvironment.__struct_fields__})


def namespace_versions(manager: type[Manager]) -> dict[str, str]:
    """Return the `rpc_version` of each namespace of a manager class."""
    return {name: str(getattr(cls, "rpc_version", "1.0")) for name, cls in manager.namespaces.items()}


class Manager(Generic[ManagerOptionsT, DriverT]):
    """Owns one aspect of the system and its data; a service runs it on a topic.

    Every hook may be `def` (runs in the service's pool) or `async def` (runs on the loop). A hook of the start that
    raises makes the start of this service fail, with the error as its reason.

    The type arguments are the class of the options, for `self.options`, and the contract of the drivers, for
    `self.drivers`; both may be omitted. An inner class `Options` and `driver_type = LampDriver` do the same without the
    types.

        class LampOptions(ManagerOptions):
            poll: Seconds = Field(30, help="How often the lamps are read")

        class LampManager(Manager[LampOptions, LampDriver]):
            @exposed(role="operator")
            def switch(self, ctx: Context, lamp: str, on: bool) -> None:
                self.drivers["desk"].switch(lamp, on)

    `gateway` lets callers in that come another way than by Ostler's sockets: `gateway.client(caller).call(…)`.

    Attributes:
        topic: The name of the service.
        host: The name of this host.
        options: The validated options, of the manager's own `Options`; a reload replaces them.
        drivers: The drivers by name, `self.drivers["local"]`; `ready()` has the names of those that can work.
        store: The database: `write`, `read`, `kv(namespace)`; for threads, with `awrite` and `aread` for the loop.
        client: Calls other services (`call`, `cast`, `fanout`, `stream`, `acall` …), with options (`on`), and publishes
            events (`publish`).
        clock: The source of time: `wall()`, `monotonic()`.
        log: A logger that adds the service to each line.
        extensions: Kind to name to class: the plugins' extensions of the kinds in `extension_kinds`.
        sections: The options of the configuration sections that plugins declared, by name; a reload replaces them.
        locks: Takes locks by name: `with self.locks.hold("volume-{name}", name=name):`, on the loop `async with`.
        daemon: Where the manager's own daemon listens: `rpc` (for clients on this host), `events`, `network`.
        notifier: Sends notifications to operators: `info`, `warn`, `error` …
        periodic: Adds and removes periodic tasks while the service runs: `add(name, function, spacing=…)`, `remove`.
        tasks: Starts background tasks and threads, which end with the service: `spawn(name, function, restart=…)`.
        environment: All of this as it was at the start.
    """

    Options: ClassVar[type[ManagerOptions]] = ManagerOptions
    rpc_version: ClassVar[str] = "1.0"
    driver_type: ClassVar[type[Driver] | None] = None
    """The contract of this manager's drivers; None for a manager without drivers."""
    journal_events: ClassVar[bool] = False
    """Whether the events of this manager's topic are stored, so that subscribers can read missed events later."""
    extension_kinds: ClassVar[Mapping[str, type]] = {}
    """The kinds of extensions that other plugins may provide, each with the class they must derive from."""
    namespaces: ClassVar[Mapping[str, type]] = {}
    """Further objects on the same topic: `{"admin": LampAdmin}` offers the `@exposed` methods of `LampAdmin` as
    `admin.reset`. Each is created with the manager, before `init_host_with_rpc`, and has its own `rpc_version`."""

    listen_addresses: Sequence[str] = ()
    """Where the manager listens itself, as clients write it; `ostler status` shows it. Set it to another one on any
    thread."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        adopt_type_arguments(cls, Manager, {"Options": ManagerOptions, "driver_type": Driver})

    @classmethod
    def options_model(
        cls,
        table: Mapping[str, Any],  # noqa: ARG003 - for subclasses to use
        extensions: Mapping[str, Mapping[str, Any]],  # noqa: ARG003
    ) -> type[ManagerOptions]:
        """Return the model of the options of one service, when it depends on what its table names.

        For managers whose tables have parts with options of their own, such as mounts of applications: the model that
        is returned derives from `Options`, and has the options of those parts as fields. For the same parts it must
        be the same class, so that a reload finds only what has changed. Called before the table is validated, on any
        thread; it must be quick, and survive any table.

        Args:
            table: The table of the service as it was read; nothing in it is checked.
            extensions: Kind to name to class, of the kinds that the manager declares.
        """
        return cls.Options

    @classmethod
    def validate(cls, options: ManagerOptionsT, others: ValidationContext) -> Faults:  # noqa: ARG003 - for subclasses to use
        """Check options that are individually valid against the rest of the configuration; return the mistakes.

        Called by `ostler check`, at the start and at a reload, before anything is started or changed, on any thread.
        It must only use the configuration and the installed plugins, and must be quick.

        Args:
            options: The options of the service, validated.
            others: The other services and drivers of the configuration.

        Returns:
            The option, or its path below the service's table (`("filters", 2)`), and a sentence, for each mistake.
        """
        return ()

    def __init__(self, environment: ManagerEnvironment) -> None:
        self.environment = environment
        self.topic = environment.topic
        self.host = environment.host
        self.options: ManagerOptionsT = environment.options
        self.drivers: Drivers[DriverT] = environment.drivers
        self.store = environment.store
        self.client = environment.client
        self.clock = environment.clock
        self.log = environment.log
        self.extensions = environment.extensions
        self.sections = environment.sections
        self.locks = environment.locks
        self.daemon = environment.daemon
        self.notifier = environment.notifier
        self.periodic = environment.periodic
        self.tasks = environment.tasks

    @property
    def gateway(self) -> Gateway:
        """Lets callers in that come another way than by Ostler's sockets, such as over HTTP; see `Gateway`. Any thread.

        It is opened when it is first used: a daemon whose managers need none has none.

        Raises:
            FeatureNotSupported: The host of this manager has none, as in some tests.
        """
        gateway: Gateway = self.environment.open_gateway()
        return gateway

    def init_host(self, service_id: int, added_to_cluster: bool) -> Any:
        """Set up this host before RPC is open: read records, reconcile, recover from a crash.

        Args:
            service_id: Id of this service's row in the services table; 0 while the database cannot be written.
            added_to_cluster: Whether the row joined its cluster with this start.
        """

    def pre_start_hook(self) -> Any:
        """Run just before the RPC endpoint opens."""

    def init_host_with_rpc(self) -> Any:
        """Run when the RPC endpoint is open: this service can call others, and can be called."""

    def post_start_hook(self) -> Any:
        """Run at the end of the start, before the periodic tasks begin."""

    def driver_ready(self, name: str) -> Any:
        """Run each time a driver has been initialised, in the start or later; runs in the pool after `init_host`.

        Drivers initialise in the background, so work that needs a driver belongs here and not in `init_host`. When it
        raises, the service is degraded with the reason, and it is retried with the next report. For several drivers it
        runs concurrently. During the start `self.environment.report_progress` reports its progress to systemd.

        Args:
            name: The driver's name in the configuration.
        """

    def driver_removed(self, name: str) -> Any:
        """Run after a reload has taken a driver away; runs in the pool.

        No call of it is in progress, and `self.drivers` no longer has it. What it raises is logged.

        Args:
            name: The name that the driver had in the configuration.
        """

    def is_working(self) -> Any:
        """Return whether the manager can do its work; raise an error that says why not.

        Called with each report, on a separate thread, so that long work does not matter. For a `critical` service it is
        the watchdog's evidence: when it does not return, the watchdog ping is withheld and systemd restarts the daemon.
        """
        return True

    def problems(self) -> Any:
        """Return problems of the manager's own objects for the operator, a sentence each: `volume a is in error`.

        `ostler status` shows them, and `ostler status --check` fails for them; the state of the service does not
        change, as the service itself works. Called with each report like `is_working`, and must be as quick. Summarise
        many objects by their number and the first few names: 20 lines are shown, 2000 characters of each.
        """
        return ()

    def reset(self) -> Any:
        """Apply a new configuration (SIGHUP, `ostler reload`): `self.options` and `self.sections` are new."""

    def cleanup_host(self) -> Any:
        """Release the manager's resources; called once in the stop, also when `init_host` had failed.

        Not called while a hook of the start has not returned, as that may still be setting up.
        """

    def capabilities(self) -> Any:
        """Return what this service offers to schedulers: backend name to facts; None for nothing to report.

        Override it in managers whose backends are not their drivers; otherwise each driver is asked separately, with
        `backend_capabilities`. An empty table is a withdrawal: nothing is offered now. Called every
        `capability_interval` and after `capabilities_changed`, on a thread of its own.
        """
        found: dict[str, Mapping[str, Json]] = {}
        for name in self.drivers.ready():
            try:
                facts = self.backend_capabilities(name)
            except OstlerError as error:  # its state reports it; the others must still be returned
                self.log.debug("driver %s did not report its capabilities: %s", name, error)
                continue
            if facts is not None:
                found[name] = facts
        return found

    def backend_capabilities(self, name: str) -> Any:
        """Return the facts that one backend offers to schedulers; None when it has none to offer now.

        By default the capabilities of its driver. Called for each driver that is ready and has been taken over, for all
        concurrently, every `capability_interval` and after `capabilities_changed`. A slow backend delays no other: its
        last answer stays valid, with its age, and its next answer is used whenever it arrives. When this raises, that
        backend is not offered, and the service is degraded with the reason.

        Args:
            name: The driver's name in the configuration.
        """
        return self.drivers[name].capabilities()

    def capabilities_changed(self, backend: str = "", *, lease: str = "", released: bool = False) -> None:
        """Report a change of what this service offers to schedulers at once. Any thread.

        Returns at once. The capabilities are asked for again after this call, and reported.

        Args:
            backend: The backend that has changed; empty for all.
            lease: The id of the lease under which a scheduler has reserved space, from its `Selection`. From now on the
                backend counts what was taken, so the next report that is measured ends the lease.
            released: Nothing was taken for the lease: it ends at once, without asking the backend.
        """
        self.environment.report_change(backend, lease, released)
