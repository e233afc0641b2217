"""`Driver`: one implementation of what a manager needs done."""

from __future__ import annotations

import logging
from abc import ABC
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

import msgspec
import typing_extensions

from ostler.clock import Clock, SystemClock
from ostler.config import Faults, Field, OptionsModel, Seconds, Size, ValidationContext
from ostler.config.options import COUNT_MAX
from ostler.config.type_arguments import adopt_type_arguments
from ostler.driver.call_progress import report_progress
from ostler.types import Json

if TYPE_CHECKING:
    from ostler.metrics.registry import Metrics

F = TypeVar("F", bound=Callable[..., Any])
BUDGET_ATTRIBUTE = "__ostler_budget__"
FEATURE_ATTRIBUTE = "__ostler_feature__"
MIN_MEMORY = 256 * 2**20
"""Bytes of address space below which a process of a driver cannot be expected to start."""


class DriverOptions(OptionsModel):
    """The options that every driver has; a driver's own are fields of a subclass, named `Options` in the driver."""

    driver: str = Field(help="Registered name of the driver, or its import path `package.module:Name`", reload="driver")
    workers: int = Field(4, ge=1, le=256, help="How many calls may run in this driver at once", reload="driver")
    init_timeout: Seconds = Field(
        60, gt=0, help="Time limit of `initialise`; after that the driver counts as stuck", reload="live"
    )
    call_timeout: Seconds = Field(60, gt=0, help="Time budget of one call to the driver", reload="live")
    capability_timeout: Seconds = Field(
        300,
        gt=0,
        help="Time budget of `capabilities`: statistics of an array may take minutes; no other backend waits for it",
        reload="live",
    )
    retry_interval: Seconds = Field(
        5, gt=0, help="Wait before the second attempt to initialise; doubled for each further one", reload="live"
    )
    max_retry_interval: Seconds = Field(
        300, gt=0, help="The longest wait between attempts to initialise", reload="live"
    )
    failure_limit: int = Field(
        3,
        ge=1,
        le=COUNT_MAX,
        help="After so many failed calls in a row the service is degraded until one succeeds; refusals do not count",
        reload="live",
    )
    breaker_limit: int = Field(
        0,
        ge=0,
        le=COUNT_MAX,
        help="After so many failed calls in a row further ones are refused at once, but for a trial after "
        "`retry_interval`, doubled each time up to `max_retry_interval`; 0: never",
        reload="live",
    )
    isolation: Literal["thread", "process"] = Field(
        "thread",
        help="Where the driver runs: in threads of the daemon, or in a process of its own, which is started again when "
        "it crashes or is stuck",
        reload="driver",
    )
    memory_limit: Size = Field(
        0,
        shown="none",
        help='The most address space of the driver\'s process; only with `isolation = "process"`. 0 for no limit',
        reload="driver",
    )
    descriptor_limit: int = Field(
        1024,
        ge=64,
        le=COUNT_MAX,
        help='The most open files of the driver\'s process; only with `isolation = "process"`',
        reload="driver",
    )
    cpu_limit: float = Field(
        0,
        ge=0,
        le=COUNT_MAX,
        shown="none",
        help="The most CPU that the driver's process may use on average over `cpu_window`, 0.5 is half a CPU. "
        'A process that uses more is killed and started again; only with `isolation = "process"`. 0 for no limit',
        reload="live",
    )
    cpu_window: Seconds = Field(60, ge=1, help="The time over which `cpu_limit` is an average", reload="live")
    nice: int = Field(
        0,
        ge=0,
        le=19,
        help="By how much the priority of the driver's process is lower than that of the daemon, 19 is the lowest; "
        'programs that it runs have the same. Only with `isolation = "process"`',
        reload="driver",
    )
    kill_timeout: Seconds = Field(
        5,
        gt=0,
        help="Wait after a call has exceeded its time budget and was cancelled, before the driver's process is killed; "
        'only with `isolation = "process"`',
        reload="live",
    )

    def validate_options(self) -> Iterable[tuple[str, str]]:
        """Refuse limits that nothing would apply, and those that no driver can start with."""
        if self.isolation != "process":
            limits = ("memory_limit", "cpu_limit", "nice")
            yield from ((name, 'needs `isolation = "process"`') for name in limits if getattr(self, name))
        elif 0 < self.memory_limit < MIN_MEMORY:
            yield "memory_limit", f"must be at least {MIN_MEMORY // 2**20} MiB, which the interpreter itself needs"


class KeyValueStore(Protocol):
    """A small key-value store: `ostler.KeyValue`, or what stands for it in a process of the driver's own."""

    def get(self, key: str, default: Json = None) -> Json:
        """Return the value of `key`, or `default` when there is none."""
        ...

    def set(self, key: str, value: Json) -> None:
        """Set the value of `key`; it is committed when this returns."""
        ...

    def delete(self, key: str) -> bool:
        """Remove `key`; return whether it existed."""
        ...

    def items(self, prefix: str = "") -> dict[str, Json]:
        """Return all keys that begin with `prefix` and their values, in order of the keys."""
        ...


DriverOptionsT = typing_extensions.TypeVar("DriverOptionsT", bound=DriverOptions, default=Any)
"""For contracts whose drivers have typed options: `class LampDriver(Driver[DriverOptionsT])`."""


def make_private_metrics() -> Any:
    """Return metrics that nobody reads, for a manager or driver that a test has created."""
    from ostler.metrics.registry import MetricRegistry  # 2 ms: only where something is counted

    return MetricRegistry(SystemClock()).metrics_of("private")


class DriverEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver gets: its name, its validated options, and the few things it may need."""

    name: str
    topic: str
    host: str
    options: Any
    clock: Clock
    log: logging.LoggerAdapter[logging.Logger]
    kv: KeyValueStore
    """A small key-value store of this driver's own; drivers have no other access to the database."""
    make_metrics: Callable[[], Any] = make_private_metrics
    """Returns the `Metrics` of the driver."""


def time_budget(budget: float | str | None, *, is_long: bool = True) -> Callable[[F], F]:
    """Set the time budget of a driver's method, where the option `call_timeout` does not fit.

    Reporting progress through the `Context` of the request starts the budget again, so that a copy of ten hours is not
    stuck as long as it moves.

    Args:
        budget: Seconds, the name of an option of the driver that holds seconds, or None for no limit.
        is_long: Whether its calls usually take long: then they leave some of the driver's threads to short methods.
            False for short methods, and for those that end work or free space, such as a deletion.
    """

    def mark(method: F) -> F:
        setattr(method, BUDGET_ATTRIBUTE, (budget, is_long))
        return method

    return mark


class Driver(ABC, Generic[DriverOptionsT]):
    """One implementation (a shell, a device, a file system) of what a manager needs done.

    A manager's package derives an abstract class from this with the methods its drivers must have; drivers derive from
    that. All methods run on threads of this driver's own, each within a time budget: one that does not return makes
    this driver `stuck`, and nobody else.

    The type argument is the class of the options, for `self.options`; a contract passes it on. An inner class `Options`
    does the same without the type.

        class LampDriver(Driver[DriverOptionsT]):
            @abstractmethod
            def switch(self, lamp: str, on: bool) -> None: ...

        class GpioOptions(DriverOptions):
            chip: str = Field(help="The chip's device")

        class GpioLampDriver(LampDriver[GpioOptions]):
            def switch(self, lamp: str, on: bool) -> None:
                set_line(self.options.chip, lamp, on)

    Attributes:
        name: The driver's name in the configuration.
        options: The validated options, of the driver's own `Options`; a reload replaces those that are live.
        log: A logger that adds service and driver to each line.
        clock: The source of time: `wall()`, `monotonic()`.
        kv: A small key-value store of this driver's own: `get`, `set`, `delete`, `items`.
        metrics: Declares what is counted and measured: `counter`, `gauge`, `histogram`.
        environment: All of this as it was at the start, with `topic` and `host` of the service.
    """

    Options: ClassVar[type[DriverOptions]] = DriverOptions
    features: ClassVar[frozenset[str]] = frozenset()
    """The optional features that this driver supports, as declared with `@feature` on its contract."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        adopt_type_arguments(cls, Driver, {"Options": DriverOptions})

    @classmethod
    def validate(cls, options: DriverOptionsT, others: ValidationContext) -> Faults:  # noqa: ARG003 - for subclasses to use
        """Check options that are individually valid against the rest of the configuration; return the mistakes.

        Called by `ostler check`, at the start and at a reload, before anything is started or changed, on any thread; it
        must be quick and must not access a device.

        Args:
            options: The options of the driver, validated.
            others: The other services and drivers of the configuration.

        Returns:
            The option, or its path below the driver's table, and a sentence, for each mistake.
        """
        return ()

    @classmethod
    def probe(cls, options: Any) -> Faults:  # noqa: ARG003 - for subclasses to use
        """Return why this driver could not work on this host with these options; empty if it could.

        Called by `ostler check --probe` only, in a process of its own that is killed at a time limit: it may access
        devices, files and networks, and must change nothing. Neither a driver nor a daemon exists then, or another
        process is using the same device.

        Args:
            options: The options of the driver, validated.

        Returns:
            The option (empty for none), or its path below the driver's table, and a sentence, for each obstacle.

        Raises:
            Exception: Any error counts as an obstacle.
        """
        return ()

    def __init__(self, environment: DriverEnvironment) -> None:
        self.environment = environment
        self.name = environment.name
        self.options: DriverOptionsT = environment.options
        self.log = environment.log
        self.clock = environment.clock
        self.kv = environment.kv

    @cached_property
    def metrics(self) -> Metrics:
        """Declares the metrics of this driver; see `Metrics`. Any thread."""
        metrics: Metrics = self.environment.make_metrics()
        return metrics

    def initialise(self) -> None:
        """Get ready to work: check tools and devices, open what is needed.

        Retried with growing waits as long as it raises. Budget: the option `init_timeout`.
        """

    def is_working(self) -> bool:
        """Return whether the driver can work now; raise an error that says why it cannot. Asked with each report."""
        return True

    @time_budget("capability_timeout", is_long=False)
    def capabilities(self) -> Mapping[str, Json]:
        """Return what this backend can do and how much space it has; sent to schedulers.

        Budget: the option `capability_timeout`. No other backend waits for it, and its last answer stays valid
            meanwhile.
        """
        return {}

    def progress(self, done: float, total: float = 0, text: str = "") -> None:
        """Report how far a call is; call it from the thread of the call, as often as there is something to say.

        The caller of the request that is served sees it (`ctx.progress`), if there is one, and the time budget of the
        call begins again: a copy of hours is not stuck as long as it moves.

            def copy(self, source: str, target: str) -> None:
                for number, block in enumerate(blocks, 1):
                    write(block)
                    self.progress(number, len(blocks), f"copying {source}")

        Args:
            done: How much is done, in bytes, steps or whatever the method counts.
            total: How much there is, 0 when that is not known.
            text: What is being done now.

        Raises:
            Cancelled: The request was cancelled: clean up, and let the error pass.
            DeadlineExceeded: The deadline of the request has passed: the same.
            TypeError: An argument is of another type.
        """
        report_progress(done, total, text)

    def cleanup(self) -> None:
        """Release all resources; called once at the end, also after an `initialise` that failed."""


def feature(name: str) -> Callable[[F], F]:
    """Mark a method of a driver contract as part of an optional feature.

    A driver that lists the feature in `features` must override every method of it, and one that overrides such a method
    must list the feature; both are checked when the driver is loaded.
    """

    def mark(method: F) -> F:
        setattr(method, FEATURE_ATTRIBUTE, name)
        return method

    return mark


class DriverSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One driver to be run.

    Args:
        name: Its name in the configuration, `[services.TOPIC.drivers.NAME]`.
        cls: Its class, checked when it was loaded; None, or a base of it, when `build` is a factory that does not say.
        options: Its validated options.
        environment: What it gets.
        build: Makes the driver, on a thread of its lane; by default `cls(environment)`.
        contract: The contract for a driver whose class differs from `cls`.
        path: `package.module:Name` of the class or factory, which a process of its own imports; empty if it cannot.
        wrap_remote: Called with what stands for a driver in a process of its own, before its first call.
    """

    name: str
    cls: type[Driver] | None
    options: DriverOptions
    environment: DriverEnvironment
    build: Callable[[DriverEnvironment], Driver] | None = None
    contract: type[Driver] = Driver
    path: str = ""
    wrap_remote: Callable[[Any], None] | None = None

    @property
    def is_isolated(self) -> bool:
        """Whether the driver runs in a process of its own."""
        return self.options.isolation == "process"

    @property
    def import_path(self) -> str:
        """`path`, else that of the class; empty if it has none, as a class within a function."""
        path = self.path or (f"{self.cls.__module__}:{self.cls.__qualname__}" if self.cls is not None else "")
        return "" if "<" in path or path.startswith("__main__:") else path


def with_options(spec: DriverSpec, options: DriverOptions) -> DriverSpec:
    """Return a specification with other options."""
    environment = msgspec.structs.replace(spec.environment, options=options)
    return msgspec.structs.replace(spec, options=options, environment=environment)
