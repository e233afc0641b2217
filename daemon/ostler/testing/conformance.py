"""Whether a manager or driver behaves as Ostler expects: run in a host of its own, in health and with faults.

The checks run the real life cycle with virtual time. `check_driver` and `check_manager` are for tests of plugins;
`ostler plugin check --level` uses the lists of problems.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ostler.config.layers import dotted
from ostler.config.option_reference import toml_value
from ostler.driver import Driver, DriverEnvironment, check_contract
from ostler.errors import DeadlineExceeded, DriverError, InternalError, OstlerError, RemoteError, error_line
from ostler.manager import Manager
from ostler.manager.manager import reserved_names
from ostler.messaging.interface.introspection import find_contract_violations, list_exposed
from ostler.testing.driver_faults import DriverHandle
from ostler.testing.in_process import Host, host
from ostler.types import DriverState, Role, ServiceState

_TOPIC = "conformance"
_LONG_ENOUGH = 900.0
"""Seconds of virtual time, within which every wait of a service with default options ends."""

_REPORTS = 130.0
"""Seconds of virtual time, within which state and capabilities are reported twice with default options."""
_THREAD_TIMEOUT = 2.0
"""Real seconds that a thread may take to end."""
_UNEXPECTED = (DeadlineExceeded, InternalError, RemoteError)
"""What a caller gets for a defect, and for a method that does not return."""

DriverTable = Mapping[str, tuple[type[Driver], Mapping[str, Any]]]
"""Name of a driver to its class and options."""


def check_driver(
    driver: type[Driver],
    options: Mapping[str, Any] | None = None,
    *,
    contract: type[Driver] | None = None,
    isolation: Literal["thread", "process"] = "thread",
) -> None:
    """Check a driver class: contract, initialisation, capabilities, renewal, and what it leaves behind.

        def test_the_driver_conforms() -> None:
            check_driver(GpioLampDriver, {"chip": "/dev/gpiochip0"})

    Args:
        driver: The class.
        options: Its options, as they would be in the configuration.
        contract: The contract it implements; by default the nearest abstract base.
        isolation: Where it runs: in threads, or in a process of its own.

    Raises:
        AssertionError: It does not conform; lists each problem.
    """
    _raise_for(driver.__name__, driver_problems(driver, options or {}, contract=contract, isolation=isolation))


def check_manager(
    manager: type[Manager],
    options: Mapping[str, Any] | None = None,
    *,
    drivers: DriverTable | None = None,
    plugins: Sequence[object] = (),
    isolation: Literal["thread", "process"] = "thread",
) -> None:
    """Check a manager class: its methods, start, reports, reload, restart and stop, also when its drivers fail or hang.

        def test_the_manager_conforms() -> None:
            check_manager(LampManager, {"poll": 5}, drivers={"desk": (MemoryLampDriver, {"lamps": ["a"]})})

    Methods that need the role viewer and no arguments are called. Methods that change something are not.

    Args:
        manager: The class.
        options: Its options, as they would be in the configuration.
        drivers: Its drivers: name to class and options.
        plugins: Plugins to load besides, as for `host`: for tables, extensions and configuration sections.
        isolation: Where its drivers run: in threads, or each in a process of its own, which crashes for real.

    Raises:
        AssertionError: It does not conform; lists each problem.
    """
    drivers = {
        name: (cls, {"isolation": isolation, **own} if isolation == "process" else own)
        for name, (cls, own) in (drivers or {}).items()
    }
    problems = manager_problems(manager, options or {}, drivers, plugins)
    _raise_for(manager.__name__, problems or fault_problems(manager, options or {}, drivers, plugins))


def driver_problems(
    driver: type[Driver],
    options: Mapping[str, Any],
    *,
    contract: type[Driver] | None = None,
    isolation: Literal["thread", "process"] = "thread",
) -> list[str]:
    """Return in which points a driver does not conform; see `check_driver`."""
    chosen = contract or _nearest_contract(driver)
    if problems := check_contract(driver, chosen):
        return problems

    class ConformanceManager(Manager):
        driver_type = chosen

    def run(h: Host) -> Iterator[str]:
        yield from _reports(h, "in health")
        drivers = h.service(_TOPIC).drivers
        assert drivers is not None  # noqa: S101 - the service is up
        status = h.run(drivers.reinitialise("one"))
        if status.state is not DriverState.READY:
            yield f"it cannot be initialised again after `cleanup`: {status.why}"
        if drivers.options("one").isolation == "process":
            return
        environment = DriverEnvironment(
            name="one", topic=_TOPIC, host="testhost", options=drivers.options("one"), clock=h.clock,
            log=logging.LoggerAdapter(logging.getLogger(__name__), {}), kv=h.store.kv("conformance"),
        )  # fmt: skip
        # A driver whose `initialise` has failed at its first line is cleaned up as well.
        yield from _step("`cleanup` without `initialise`", lambda: driver(environment).cleanup())

    chosen_options = {"isolation": isolation, **options} if isolation == "process" else options
    return _run(ConformanceManager, {}, {"one": (driver, chosen_options)}, (), run)


def manager_problems(
    manager: type[Manager], options: Mapping[str, Any], drivers: DriverTable, plugins: Sequence[object] = ()
) -> list[str]:
    """Return in which points a manager does not conform in health; see `check_manager`."""
    if problems := [
        *check_contract(manager, Manager, either=True),
        *find_contract_violations(_TOPIC, manager, reserved_names()),
    ]:
        return problems

    def run(h: Host) -> Iterator[str]:
        yield from _reports(h, "in health")
        yield from _answers(h, manager)
        yield from _periodic_runs(h)
        yield from _step("a reload", lambda: h.reload(_config(options, drivers)))
        for crash in (False, True):
            what = "a start after a kill of the daemon" if crash else "a restart"
            yield from _step(what, partial(h.restart, crash=crash))
            yield from _reports(h, f"after {what}")

    return _run(manager, options, drivers, plugins, run)


def fault_problems(
    manager: type[Manager], options: Mapping[str, Any], drivers: DriverTable, plugins: Sequence[object] = ()
) -> list[str]:
    """Return what a manager does not survive of faults of its drivers; see `check_manager`."""
    if not drivers:
        return []
    return _run(manager, options, drivers, plugins, lambda h: _survives_faults(h, manager, list(drivers)))


def _survives_faults(h: Host, manager: type[Manager], names: list[str]) -> Iterator[str]:
    handles = [h.driver(_TOPIC, name) for name in names]
    error = DriverError("injected fault")
    faults: list[tuple[str, Callable[[DriverHandle], None]]] = [
        ("with failing drivers", lambda handle: handle.fail(error)),
        ("with drivers that fail every other time", lambda handle: handle.flap(error)),
        ("with crashing drivers", lambda handle: handle.crash(times=None)),
        ("with drivers that cannot be initialised", lambda handle: handle.fail(error, method="initialise")),
        ("with hanging drivers", lambda handle: handle.hang(times=None)),
    ]
    for what, inject in faults:
        for handle in handles:
            inject(handle)
        if "initialised" in what:
            yield from _step(f"a start {what}", h.restart)
        yield from _answers(h, manager, f"{what}: ", may_fail=True)
        for handle in handles:
            handle.recover()
        h.advance(_LONG_ENOUGH)
        yield from _reports(h, f"{_LONG_ENOUGH / 60:g} minutes after it ran {what}")


def _reports(h: Host, when: str) -> Iterator[str]:
    """Let the service report its state and capabilities; yield why it is not up."""
    h.advance(_REPORTS)
    status = h.status(_TOPIC)
    if status.state is not ServiceState.UP:
        yield f"{when} the service is {status.state}: {status.why}"
    for driver in status.drivers:
        if driver.state is not DriverState.READY:
            yield f"{when} driver {driver.name} is {driver.state}: {driver.why}"


def _answers(h: Host, manager: type[Manager], prefix: str = "", *, may_fail: bool = False) -> Iterator[str]:
    """Call the methods that only read and need no argument."""
    for method in list_exposed(_TOPIC, manager):
        needs_nothing = not any(argument.is_required for argument in method.signature.arguments)
        if method.exposure.role is Role.VIEWER and needs_nothing and not method.signature.is_streaming:
            yield from _step(f"{prefix}`{method.name}`", partial(h.call, _TOPIC, method.name), may_fail)


def _periodic_runs(h: Host) -> Iterator[str]:
    for task in h.periodic_tasks(_TOPIC):
        yield from _step(f"the periodic task `{task}`", partial(h.run_periodic, _TOPIC, task))


def _step(what: str, work: Callable[[], object], may_fail: bool = False) -> Iterator[str]:
    """Do a part of a check; yield a problem if it fails; if it may fail, for errors that callers cannot handle."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is the finding
        expected = isinstance(error, OstlerError) and not isinstance(error, _UNEXPECTED)
        if not (may_fail and expected):
            yield f"{what} failed: {error_line(error)}"


def _run(
    manager: type[Manager],
    options: Mapping[str, Any],
    drivers: DriverTable,
    plugins: Sequence[object],
    run: Callable[[Host], Iterator[str]],
) -> list[str]:
    threads, files = set(threading.enumerate()), _open_files()
    classes = {(_TOPIC, name): cls for name, (cls, _) in drivers.items()}
    problems: list[str] = []
    try:
        with host(
            config=_config(options, drivers), managers={_TOPIC: manager}, drivers=classes, plugins=plugins,
            virtual_time=True,
        ) as h:  # fmt: skip
            problems += run(h)
    except (OstlerError, TimeoutError) as error:
        problems.append(f"the service does not start or stop: {error_line(error)}")
    left = [thread.name for thread in threading.enumerate() if thread not in threads and not _ends(thread)]
    problems += [f"the thread {name} is left behind" for name in left]
    problems += [f"{file} is left open" for file in sorted(_open_files() - files)]
    return problems


def _ends(thread: threading.Thread) -> bool:
    thread.join(_THREAD_TIMEOUT)
    return not thread.is_alive()


def _open_files() -> set[str]:
    """Return the files and sockets that this process has open, without those of the interpreter."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(descriptor.readlink()))
        except OSError:  # that of the listing itself
            continue
    return {name for name in found if name.startswith("/") and not name.startswith(("/dev/", "/proc/"))}


def _config(options: Mapping[str, Any], drivers: DriverTable) -> str:
    lines = [f"[services.{_TOPIC}]", f'manager = "{_TOPIC}"', *_lines(options)]
    for name, (_, own) in drivers.items():
        lines += [f"[services.{_TOPIC}.drivers.{dotted((name,))}]", f"driver = {toml_value(name)}", *_lines(own)]
    return "\n".join(lines) + "\n"


def _lines(options: Mapping[str, Any]) -> list[str]:
    return [f"{dotted((name,))} = {toml_value(value)}" for name, value in options.items()]


def _nearest_contract(driver: type[Driver]) -> type[Driver]:
    """Return the nearest base that is abstract, or `Driver`."""
    bases = [base for base in driver.__mro__[1:] if issubclass(base, Driver)]
    return next((base for base in bases if getattr(base, "__abstractmethods__", None)), Driver)


def _raise_for(name: str, problems: Sequence[str]) -> None:
    if problems:
        raise AssertionError(f"{name} does not conform:\n" + "\n".join(f"  {problem}" for problem in problems))
