"""Faults of drivers in a test: calls that fail, take long, hang, or end the driver's thread."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from ostler.driver import Driver
from ostler.errors import DriverError, NotFound
from ostler.plugins import ResolvedObject

if TYPE_CHECKING:
    from ostler.driver.process.driver_process import DriverProcess

_LIFECYCLE = frozenset(name for name in vars(Driver) if not name.startswith("_"))


class DriverHandle:
    """A driver in a test: its methods, called as the manager calls them, and faults. From `Host.driver`.

        desk = h.driver("lamp", "desk")
        desk.fail(OSError("no power"), times=3)

    Each fault takes `method`, a name or several; by default it is for all methods but the driver's life cycle
    (`initialise`, `is_working`, `capabilities`, `cleanup`), which has to be named. Faults apply to calls that begin
    later, also of the driver that a reload creates; several apply in the order of their creation. A method of the
    driver that has the name of a fault is reached through `proxy`.

    Attributes:
        proxy: The driver as the manager sees it.
    """

    def __init__(self, proxy: Any, faults: DriverFaults) -> None:
        self.proxy = proxy
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self.proxy, name)

    def fail(
        self,
        error: BaseException | type[BaseException],
        *,
        times: int | None = None,
        method: str | Collection[str] = (),
    ) -> None:
        """Let calls raise an error instead of doing their work.

        Args:
            error: What is raised; of a class, an instance with the message "injected fault".
            times: How many calls; None for all, until `recover`.
            method: Which methods.
        """
        self._faults.add(_raising(error), method, _count(times))

    def slow(self, seconds: float, *, times: int | None = None, method: str | Collection[str] = ()) -> None:
        """Let calls wait before they do their work.

        Args:
            seconds: How long, in the time of the host: with `virtual_time` the wait ends as time passes.
            times: How many calls; None for all, until `recover`.
            method: Which methods.
        """
        self._faults.add(functools.partial(self._faults.wait, seconds), method, _count(times))

    def hang(self, *, times: int | None = 1, method: str | Collection[str] = ()) -> None:
        """Let calls wait until `recover`, or the end of the test, and do their work then.

        Args:
            times: How many calls; None for all.
            method: Which methods.
        """
        self._faults.add(functools.partial(self._faults.wait, None), method, _count(times))

    def flap(
        self, error: BaseException | type[BaseException] | None = None, *, method: str | Collection[str] = ()
    ) -> None:
        """Let every other call fail, beginning with the next one.

        Args:
            error: What is raised; by default `DriverError`.
            method: Which methods.
        """
        self._faults.add(_raising(error or DriverError), method, _alternating())

    def crash(self, *, times: int | None = 1, method: str | Collection[str] = ()) -> None:
        """Let calls leave the driver with `SystemExit`, as a library does that ends its process.

        A driver in a process of its own is killed: its calls fail with `DriverCrashed`, and it is started again.

        Args:
            times: How many calls; None for all.
            method: Which methods.
        """
        self._faults.add(self._faults.crash, method, _count(times))

    def recover(self) -> None:
        """Remove all faults of this driver; calls that hang or wait continue."""
        self._faults.clear()


class DriverFaults:
    """The faults of one driver. Any thread.

    Args:
        loop: The loop of the host, whose time ends the waits.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._faults: list[tuple[Callable[[], None], frozenset[str], Iterator[bool]]] = []
        self._released = threading.Event()
        self._nesting = threading.local()
        self._kill_process: Callable[[str], None] | None = None
        self.methods: frozenset[str] = frozenset()
        """The public methods of the driver; empty before it was created."""

    def add(self, apply: Callable[[], None], method: str | Collection[str], applies: Iterator[bool]) -> None:
        """Add a fault.

        Args:
            apply: Called in the driver's thread before the work of a call.
            method: Which methods; empty for all but those of the life cycle.
            applies: Yields for each call whether the fault applies to it; the fault is removed at its end.

        Raises:
            NotFound: The driver has no such method.
        """
        named = frozenset([method] if isinstance(method, str) else method)
        unknown = sorted(named - self.methods) if self.methods else []
        if unknown:
            raise NotFound(f"the driver has no method {unknown[0]}", hint=f"its methods: {', '.join(self.methods)}")
        with self._lock:
            self._faults.append((apply, named, applies))

    def clear(self) -> None:
        """Remove all faults, and let calls that wait continue."""
        with self._lock:
            self._faults.clear()
            released, self._released = self._released, threading.Event()
        released.set()

    def wait(self, seconds: float | None) -> None:
        """Wait on the driver's thread.

        Args:
            seconds: How long in the time of the loop; None until `clear`.
        """
        released = self._released
        if seconds is None:
            released.wait()
            return
        over = threading.Event()
        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, over.set)
        while not released.is_set() and not over.wait(0.01):
            pass

    def crash(self) -> None:
        """End the process of the driver, or the call if it has none. On the driver's thread."""
        if self._kill_process is None:
            raise SystemExit("injected crash")
        self._kill_process("injected crash")

    def install(self, driver: Any, cls: type, kill_process: Callable[[str], None] | None = None) -> None:
        """Let the public methods of a new driver pass the faults.

        Args:
            driver: The driver, or what stands for it when it runs in a process of its own.
            cls: Its class.
            kill_process: Kills its process, if it has one; takes the reason.
        """
        self._kill_process = kill_process
        names = [name for kind in cls.__mro__ for name in vars(kind) if not name.startswith("_")]
        self.methods = frozenset(name for name in names if _is_method(getattr(cls, name, None)))
        for name in self.methods:
            driver.__dict__.pop(name, None)  # of an object that is used as a driver again
            driver.__dict__[name] = self._with_faults(name, getattr(driver, name))

    def _with_faults(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            depth = getattr(self._nesting, "depth", 0)
            if not depth:  # a method that calls another one of its driver is one call
                self._apply(name)
            self._nesting.depth = depth + 1
            try:
                return method(*arguments, **named)
            finally:
                self._nesting.depth = depth

        return call

    def _apply(self, name: str) -> None:
        for apply in self._due(name):
            apply()

    def _due(self, name: str) -> list[Callable[[], None]]:
        due, kept = [], []
        with self._lock:
            for fault in self._faults:
                apply, methods, applies = fault
                if not (name in methods or (not methods and name not in _LIFECYCLE)):
                    kept.append(fault)
                    continue
                match = next(applies, None)
                if match is not None:
                    kept.append(fault)
                if match:
                    due.append(apply)
            self._faults = kept
        return due


class FaultyDriverObject(ResolvedObject, frozen=True, kw_only=True):
    """A driver's class, or what stands for it, whose products pass faults.

    Args:
        faults: The faults.
        on_process: Called with each process that a driver of it gets.
    """

    faults: DriverFaults
    on_process: Callable[[DriverProcess], None]

    def build(self, environment: Any) -> Any:
        """Return the driver; see `ResolvedObject.build`."""
        driver = super().build(environment)
        if isinstance(driver, Driver):  # anything else is refused later, with its reason
            self.faults.install(driver, type(driver))
        return driver

    def wrap_remote(self, remote: Any) -> None:
        """See `ResolvedObject.wrap_remote`."""
        process: DriverProcess = vars(remote)["_process"]
        self.on_process(process)
        self.faults.install(remote, self.cls, process.kill)


def with_faults(
    loaded: ResolvedObject, faults: DriverFaults, on_process: Callable[[DriverProcess], None]
) -> ResolvedObject:
    """Return a driver's class, or what stands for it, with faults; see `FaultyDriverObject`."""
    fields = {name: getattr(loaded, name) for name in ResolvedObject.__struct_fields__}
    return FaultyDriverObject(**fields, faults=faults, on_process=on_process)


def _is_method(found: object) -> bool:
    return callable(found) and not isinstance(found, type)


def _raising(error: BaseException | type[BaseException]) -> Callable[[], None]:
    def apply() -> None:
        raise error("injected fault") if isinstance(error, type) else error

    return apply


def _count(times: int | None) -> Iterator[bool]:
    if times is None:
        while True:
            yield True
    for _ in range(times):
        yield True


def _alternating() -> Iterator[bool]:
    while True:
        yield True
        yield False
