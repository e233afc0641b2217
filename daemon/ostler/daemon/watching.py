"""Who looks on while requests are served: the policy of methods, the audit log, the tracer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ostler.aio import WorkerPool
from ostler.clock import Clock
from ostler.errors import Busy, StoreError
from ostler.messaging.audit import AuditLog
from ostler.messaging.audit_begun import BegunCalls
from ostler.messaging.policy import Policy
from ostler.store import AuditRecords
from ostler.types import CONTROL_TOPIC, AuditEntry

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.messaging import Dispatcher
    from ostler.messaging.rpc.watch import Tracer
    from ostler.service.assembly import Assembly
    from ostler.store import Store
    from ostler.types import Json

T = TypeVar("T")
_log = logging.getLogger(__name__)
_MOMENT = 0.25
"""Seconds that a batch waits for the names of its users."""
_LOOK_EVERY = 0.5
"""Seconds between two looks at what is under way: so long a request may be before a crash without a trace of it."""
INTERRUPTED = "interrupted"
"""How an entry ended whose daemon did not live to see its end."""
_BEGUN = "ostler/audit-begun"
"""Where requests under way are kept. No table of its own: there are few, and none in a daemon that is stopped."""
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
        self.log = AuditLog(clock, self._keep, dispatcher.registry.method_at)
        self.begun = self.log.begun = BegunCalls(clock, dispatcher.under_way_since, self.log.entry_of_begun)
        self._begun_kept = store.kv(_BEGUN)
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
        ended = self.begun.take_ended()

        def write() -> list[int]:
            numbers = self.records.keep(map(self._named, entries))
            for key in ended:
                self._begun_kept.delete(key)
            if trim:
                ages = self._store.ages
                self.records.trim(limits.count, ages.now() - limits.age, ages)
            return numbers

        try:
            return await self._store.awrite(write, label="audit")
        except BaseException:
            self.begun.put_back(ended)
            raise

    async def watch_begun(self) -> None:
        """Write down what is under way for longer, for ever; at first end what an earlier daemon has left behind."""
        left = True
        while True:
            try:
                left = left and not await self._end_interrupted()
                await self._write_begun()
            except StoreError as error:  # said by the store; the audit log stands in the log meanwhile
                _log.debug("requests under way were not written down: %s", error)
            await asyncio.sleep(_LOOK_EVERY)

    async def _write_begun(self) -> None:
        found = self.begun.look()
        if not found:
            return
        await self._learn({entry.uid for entry in found.values() if entry.uid >= 0} - self._users.keys())

        def write() -> None:
            for key, entry in found.items():
                self._begun_kept.set(key, msgspec.to_builtins(self._named(entry)))

        await self._store.awrite(write, label="requests under way")

    async def _end_interrupted(self) -> bool:
        """Keep the end of what was under way when an earlier daemon was killed, or crashed; returns True."""
        now = self._clock.wall()

        def end() -> int:
            left = {key: kept for key, kept in self._begun_kept.items().items() if not key.startswith(self.begun.run)}
            entries = [entry for kept in left.values() if (entry := _interrupted(kept, now)) is not None]
            self.records.keep(entries)
            for key in left:
                self._begun_kept.delete(key)
            return len(entries)

        if count := await self._store.awrite(end, label="requests that were cut off"):
            _log.warning("%d requests were under way when the daemon ended last; `ostler audit` has them", count)
        return True

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
        await self.log.flush(always=True)
        if self._look is not None:
            self._look.cancel()


def _interrupted(kept: Json, now: float) -> AuditEntry | None:
    """Return the entry of a request that was cut off; None for what is none."""
    try:
        entry = msgspec.convert(kept, AuditEntry)
    except msgspec.ValidationError:
        return None
    text = f"the daemon ended while it was under way; it was asked for at {_utc(entry.at - entry.seconds)}"
    return msgspec.structs.replace(entry, at=now, last=now, seconds=0.0, result=INTERRUPTED, text=text)


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


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
