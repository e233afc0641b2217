"""Who looks on while requests are served: the policy of methods, the audit log, the tracer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ostler.aio import WorkerPool
from ostler.clock import Clock
from ostler.errors import Busy
from ostler.messaging.audit import AuditLog
from ostler.messaging.policy import Policy
from ostler.store import AuditRecords
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.messaging import Dispatcher
    from ostler.messaging.rpc.watch import Tracer
    from ostler.service.assembly import Assembly
    from ostler.store import Store
    from ostler.types import AuditEntry

T = TypeVar("T")
_log = logging.getLogger(__name__)
_MOMENT = 0.25
"""Seconds that a batch waits for the names of its users."""
_TRIM_EVERY = 1000
"""So many entries are written between two looks at how many there are, and how old."""


class Auditor:
    """The audit log of one daemon, between its dispatcher and its store. On the loop.

    Args:
        store: Where it is kept.
        dispatcher: What is audited.
        clock: The source of time.
        configuration: How much is kept; `configure` brings another.
    """

    def __init__(self, store: Store, dispatcher: Dispatcher, clock: Clock, configuration: Configuration) -> None:
        self.records = AuditRecords(store)
        self.log = AuditLog(clock, self._keep, dispatcher.method_at)
        self._store = store
        self._clock = clock
        self._limits = configuration.audit
        self._users: dict[int, str] = {}
        self._look: asyncio.Task[None] | None = None
        self._written = _TRIM_EVERY  # so that the first write trims: the limits may be new
        dispatcher.audit = self.log

    def configure(self, configuration: Configuration) -> None:
        """Take over new limits."""
        self._limits = configuration.audit
        self._written = _TRIM_EVERY

    async def _keep(self, entries: list[AuditEntry]) -> list[int]:
        await self._learn({entry.uid for entry in entries if entry.uid >= 0 and not entry.number} - self._users.keys())
        self._written += len(entries)
        limits, trim = self._limits, self._written >= _TRIM_EVERY
        if trim:
            self._written = 0

        def write() -> list[int]:
            numbers = self.records.keep(map(self._named, entries))
            if trim:
                ages = self._store.ages
                self.records.trim(limits.count, ages.now() - limits.age, ages)
            return numbers

        return await self._store.awrite(write, label="audit")

    def _named(self, entry: AuditEntry) -> AuditEntry:
        """Return the entry with its user's name, as far as that is known."""
        name = "" if entry.number else self._users.get(entry.uid, "")
        return msgspec.structs.replace(entry, user=name) if name else entry

    async def _learn(self, uids: set[int]) -> None:
        """Look up the names of users, and wait a moment for that.

        On a thread of its own: the user database may be on a network that does not answer, and is to hold up neither
        the loop nor who writes to the database. Entries go without the name meanwhile.
        """
        if uids and (self._look is None or self._look.done()):
            self._look = asyncio.get_running_loop().create_task(self._look_up(uids), name="names of users")
            await asyncio.wait([self._look], timeout=_MOMENT)

    async def _look_up(self, uids: set[int]) -> None:
        def look() -> None:
            for uid in uids:
                self._users[uid] = _name_of(uid)

        pool = WorkerPool("ostler-names", 1)
        try:
            await pool.run(look, label="names of users")
        except Busy as error:  # no thread to be had
            _log.debug("names of users were not looked up: %s", error)
        finally:
            pool.close()

    async def read(self, fn: Callable[[], T]) -> T:
        """Run `fn` with everything that was recorded before now already written."""
        await self.log.flush()
        return await self._store.aread(fn)

    async def close(self) -> None:
        """Write what still waits; what comes after that is not audited."""
        await self.log.flush()
        if self._look is not None:
            self._look.cancel()


def _name_of(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return ""


def policy_of(configuration: Configuration) -> Policy:
    """Return who may call which method."""
    return Policy(configuration.access.methods)


def policy_warnings(assembly: Assembly) -> list[str]:
    """Return what of `[access.methods]` has no effect, a line each: lines that fit no method, and locks on `ostler`."""
    policy = policy_of(assembly.configuration)
    if not policy.rules:
        return []
    return [*policy.unused(_offers(assembly)), *policy.locks()]


def _offers(assembly: Assembly) -> dict[str, Iterable[str] | None]:
    from ostler.daemon.control import Control
    from ostler.manager import Manager

    found: dict[str, Iterable[str] | None] = {CONTROL_TOPIC: _exposed_names(Control)}
    for spec in assembly.specs:
        cls = spec.manager.cls
        # Of a factory nothing is known before it has made its manager.
        found[spec.topic] = None if cls is Manager else _exposed_names(cls)
    return found


def _exposed_names(cls: type[Any]) -> list[str]:
    from ostler.messaging import exposure_of

    found = [name for name in dir(cls) if exposure_of(getattr(cls, name, None)) is not None]
    for space, home in getattr(cls, "namespaces", {}).items():
        found += [f"{space}.{name}" for name in dir(home) if exposure_of(getattr(home, name, None)) is not None]
    return found


def make_tracer(
    configuration: Configuration, clock: Clock, callers_memory: Callable[[], int] | None = None
) -> Tracer | None:
    """Return what makes spans and metrics of requests; None when that is off, or OpenTelemetry is not installed.

    Args:
        configuration: Says whether it is wanted.
        clock: The source of time.
        callers_memory: Returns how many bytes callers make the daemon hold; measured too, if it is given.
    """
    if not configuration.telemetry.otel:
        return None
    try:
        from ostler.messaging.telemetry import OtelTracer
    except ImportError as error:
        _log.warning(
            "[telemetry] otel is on, and OpenTelemetry is not installed: pip install 'ostler[otel]' (%s)", error
        )
        return None
    tracer = OtelTracer(clock)
    if callers_memory is not None:
        tracer.observe_memory(callers_memory)
    return tracer
