"""`Manager`: owns one aspect of the system and its data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol

import msgspec

from ostler.clock import Clock
from ostler.config import Faults, Field, OptionsModel, Seconds, ValidationContext
from ostler.config.options import COUNT_MAX
from ostler.driver import Driver, Drivers
from ostler.errors import OstlerError
from ostler.messaging import ServiceClient
from ostler.messaging.notify import Notifier
from ostler.store import Store  # not for the type checker alone: `pydoc` reads the fields' types
from ostler.types import Json


class ManagerOptions(OptionsModel):
    """The options that every service has; a manager's own are fields of a subclass, named `Options` in the manager."""

    manager: str = Field(
        help="Registered name of the manager, or its import path `package.module:Name`", reload="daemon"
    )
    enabled: bool = Field(True, help="Whether the service is started at all", reload="daemon")
    required: bool = Field(
        False, help="Whether the daemon refuses to run when this service cannot start", reload="daemon"
    )
    critical: bool = Field(
        False, help="Whether the watchdog ping is withheld when `is_working` does not come back", reload="live"
    )
    depends_on: list[str] = Field([], help="Topics of services that must be up before this one starts", reload="daemon")
    workers: int = Field(8, ge=1, le=1024, help="Threads for this service's `def` methods", reload="service")
    queue_limit: int = Field(
        1000,
        ge=1,
        le=COUNT_MAX,
        help="Requests that may wait for a thread; one more is refused as busy. One caller gets no more of it than is "
        "free, so that alone it gets half",
        reload="service",
    )
    max_in_flight: int = Field(
        2000,
        ge=1,
        le=COUNT_MAX,
        help="Requests at once, those that wait for a thread included; one more is refused as busy",
        reload="service",
    )
    report_interval: Seconds = Field(
        10, gt=0, help="How often the service reports its state (the heartbeat)", reload="live"
    )
    down_time: Seconds = Field(
        60, gt=0, help="Without a report for this long observers call the service down", reload="live"
    )
    capability_interval: Seconds = Field(
        60, gt=0, help="How often capabilities are reported to schedulers", reload="live"
    )
    start_timeout: Seconds = Field(
        300, gt=0, help="Each hook of the start must come back within this", reload="service"
    )
    driver_wait: Seconds = Field(
        5,
        ge=0,
        help="How long the start waits for the first try of its drivers before it goes on without them",
        reload="service",
    )
    drain_timeout: Seconds = Field(30, ge=0, help="How long a stop waits for work in flight", reload="live")
    drivers: dict[str, dict[str, Any]] = Field(
        {}, help="The service's drivers (backends), one table each", reload="daemon"
    )

    def cross_check(self) -> Iterable[tuple[str, str]]:
        """A service whose reports come no sooner than its down time would be called down between any two of them."""
        if self.down_time > self.report_interval:
            return
        advice = f"set down_time to {3 * self.report_interval:g} s or more, so that one late report harms nothing"
        if "down_time" in self.model_fields_set:
            yield "down_time", f"must be above report_interval, which is {self.report_interval:g} s; {advice}"
        else:
            yield "report_interval", f"must be below down_time, which is {self.down_time:g} s; {advice}"


def _ignore(_text: str) -> None:
    """Stand in where nobody wants to know."""


class ReportChange(Protocol):
    """Has what a service offers measured and reported; see `Manager.capabilities_changed`. Any thread."""

    def __call__(self, backend: str, lease: str, released: bool, /) -> None:
        """Take note of a change."""
        ...


def _no_report(_backend: str, _lease: str, _released: bool, /) -> None:
    """Stand for the reporter where there is none."""


class ManagerEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """What a manager is handed; it makes none of it itself."""

    topic: str
    host: str
    options: Any
    drivers: Drivers
    store: Store
    client: ServiceClient
    clock: Clock
    log: logging.LoggerAdapter[logging.Logger]
    extensions: Mapping[str, Mapping[str, Any]] = {}
    """Kind to name to class: what plugins brought of the kinds that the manager declares."""
    sections: Mapping[str, Any] = {}
    """The validated options of the configuration sections that plugins declared, by the section's name."""
    notifier: Notifier = Notifier()
    """What the manager tells of what happens, with a priority."""
    report_progress: Callable[[str], None] = _ignore
    """Told by hooks of the start how far they are, in words, for systemd's STATUS and `ostler status`. Any thread."""
    report_change: ReportChange = _no_report
    """What `Manager.capabilities_changed` tells."""


def reserved_names() -> frozenset[str]:
    """Return the names that every manager's attributes have: an exposed method of such a name could not be called."""
    return frozenset({"environment", *ManagerEnvironment.__struct_fields__})


def namespace_versions(manager: type[Manager]) -> dict[str, str]:
    """Return the `rpc_version` of each namespace of a manager class."""
    return {name: str(getattr(cls, "rpc_version", "1.0")) for name, cls in manager.namespaces.items()}


class Manager:
    """Owns one aspect of the system and its data; a service runs it on a topic.

    Every hook may be `def` (runs in the service's pool) or `async def` (runs on the loop). A hook of the start that
    raises makes the start of this service fail, with the error as its reason.

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
        extensions: Kind to name to class: what plugins brought of the kinds in `extension_kinds`.
        sections: The options of the configuration sections that plugins declared, by name; a reload replaces them.
        notifier: Tells operators what happens: `info`, `warn`, `error` …
        environment: All of this as it was at the start.
    """

    Options: ClassVar[type[ManagerOptions]] = ManagerOptions
    rpc_version: ClassVar[str] = "1.0"
    driver_type: ClassVar[type[Driver] | None] = None
    """The contract of this manager's drivers; None for a manager without drivers."""
    journal_events: ClassVar[bool] = False
    """Whether the events of this manager's topic are kept in the database, so that who was away can read them again."""
    extension_kinds: ClassVar[Mapping[str, type]] = {}
    """The kinds of parts that other plugins may bring, each with the class they must derive from."""
    namespaces: ClassVar[Mapping[str, type]] = {}
    """Further objects on the same topic: `{"admin": LampAdmin}` offers the `@exposed` methods of `LampAdmin` as
    `admin.reset`. Each class is made with the manager, before `init_host_with_rpc`, and has its own `rpc_version`."""

    @classmethod
    def validate(cls, options: Any, others: ValidationContext) -> Faults:  # noqa: ARG003 - for subclasses to use
        """Return what is wrong with options that are right one by one, seen beside the rest of the configuration.

        Called by `ostler check`, at the start and at a reload, before anything is started or changed, on any thread.
        Only what the configuration and the installed plugins say may be looked at, and it has to be quick.

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
        self.options: Any = environment.options
        self.drivers: Drivers = environment.drivers
        self.store = environment.store
        self.client = environment.client
        self.clock = environment.clock
        self.log = environment.log
        self.extensions = environment.extensions
        self.sections = environment.sections
        self.notifier = environment.notifier

    def init_host(self, service_id: int, added_to_cluster: bool) -> Any:
        """Set up this host before RPC is open: read records, reconcile, recover what a crash left.

        Args:
            service_id: Id of this service's row in the services table; 0 while the database cannot be written.
            added_to_cluster: Whether the row joined its cluster with this start.
        """

    def pre_start_hook(self) -> Any:
        """Run just before the RPC endpoint opens."""

    def init_host_with_rpc(self) -> Any:
        """Run when the RPC endpoint is open: other services can be called now, and can call."""

    def post_start_hook(self) -> Any:
        """Run at the end of the start, before the periodic tasks begin."""

    def driver_ready(self, name: str) -> Any:
        """Run each time a driver has been initialised, in the start or later; runs in the pool after `init_host`.

        Drivers initialise off the start path, so that what needs a driver belongs here and not in `init_host`. When it
        raises, the service is degraded and says why, and it is tried again with the next report. For several drivers it
        runs side by side. In the start `self.environment.report_progress` tells systemd how far it is.

        Args:
            name: The driver's name in the configuration.
        """

    def is_working(self) -> Any:
        """Return whether the manager can do its work; raise an error that says why not.

        Asked with each report, on a thread beside the service's own, so that long work is no bad sign. For a `critical`
        service it is the proof of life: when it does not come back, systemd is told nothing more and restarts the
        daemon.
        """
        return True

    def problems(self) -> Any:
        """Return what an operator has to know of the manager's own objects, a sentence each: `volume a is in error`.

        They stand in `ostler status`, and `ostler status --check` fails for them; the state of the service does not
        change, as the service itself can work. Asked with each report as `is_working` is, and has to be as quick. Of
        many say how many there are and name the first few: 20 lines are shown, 2000 characters of each.
        """
        return ()

    def reset(self) -> Any:
        """Take over a new configuration (SIGHUP, `ostler reload`): `self.options` and `self.sections` are new."""

    def cleanup_host(self) -> Any:
        """Let go of what the manager holds; called once in the stop, also when `init_host` had failed.

        Not called beside a hook of the start that has not come back: that may still be setting up.
        """

    def capabilities(self) -> Any:
        """Return what this service offers to schedulers: backend name to facts; None for nothing to report.

        For managers whose backends are not its drivers; others leave this alone, and each driver is asked by itself,
        with `backend_capabilities`. An empty table is a withdrawal: nothing is offered now. Asked every
        `capability_interval` and after `capabilities_changed`, on a thread of its own.
        """
        found: dict[str, Mapping[str, Json]] = {}
        for name in self.drivers.ready():
            try:
                facts = self.backend_capabilities(name)
            except OstlerError as error:  # its state says so; the others are not to be forgotten for it
                self.log.debug("driver %s says nothing of its capabilities: %s", name, error)
                continue
            if facts is not None:
                found[name] = facts
        return found

    def backend_capabilities(self, name: str) -> Any:
        """Return the facts that one backend offers to schedulers; None when it has none to offer now.

        By default what its driver says of itself. Asked of each driver that is ready and has been taken over, of all
        side by side, every `capability_interval` and after `capabilities_changed`. One that does not answer holds up no
        other: what it said before counts on, with its age, and its answer is taken whenever it comes. When this raises,
        that backend is not offered, and the service is degraded and says why.

        Args:
            name: The driver's name in the configuration.
        """
        return self.drivers[name].capabilities()

    def capabilities_changed(self, backend: str = "", *, lease: str = "", released: bool = False) -> None:
        """Have schedulers know at once what this service offers, because it has changed. Any thread.

        Returns at once. What is offered is asked for anew, beginning after this call, and reported.

        Args:
            backend: The backend that has changed; empty for all.
            lease: The id of the lease under which a scheduler has promised room, as in its `Selection`. From now on the
                backend counts what was taken, so that the next report that is measured ends the lease.
            released: Nothing was taken for the lease: it ends at once, without a look at the backend.
        """
        self.environment.report_change(backend, lease, released)
