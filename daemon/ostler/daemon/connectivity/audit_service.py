"""Observers of requests: the policy of methods, the audit log, the tracer."""

from __future__ import annotations

import asyncio
import logging
import pwd
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ostler.aio import WorkerPool
from ostler.clock import Clock
from ostler.errors import Busy, StoreError
from ostler.messaging.observers.audit_log import AuditLog
from ostler.store import AuditRecords
from ostler.time_text import format_moment
from ostler.types import AuditEntry

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.messaging.rpc.call import Call
    from ostler.messaging.rpc.topic_registry import TopicRegistry
    from ostler.store import Store
    from ostler.types import Json

T = TypeVar("T")
_log = logging.getLogger(__name__)
_USER_LOOKUP_WAIT = 0.25
"""Seconds that a batch of entries waits for the names of its users."""
_IN_FLIGHT_POLL_INTERVAL = 0.5
"""Seconds between two checks of requests in progress: shorter requests leave no trace in a crash."""
INTERRUPTED_RESULT = "interrupted"
"""The result of a request whose daemon ended before it."""
_IN_FLIGHT_NAMESPACE = "ostler/audit-begun"
"""Where requests in progress are stored. No table of its own: there are few, and none in a stopped daemon."""
_ENTRIES_PER_TRIM = 1000
"""The entries that are written between two checks of their number and age."""


class AuditService:
    """The audit log of one daemon, between its dispatcher and its store. On the loop.

    Args:
        store: Where it is stored.
        registry: The open topics, whose requests are audited.
        clock: The source of time.
        configuration: How much is stored; `configure` applies another.
        find_user_name: Returns the name of a uid, empty for an unknown one; on a thread of its own.
        lookup_wait: Seconds that a batch of entries waits for the names of its users.
    """

    def __init__(
        self,
        store: Store,
        registry: TopicRegistry,
        clock: Clock,
        configuration: Configuration,
        *,
        find_user_name: Callable[[int], str] | None = None,
        lookup_wait: float = _USER_LOOKUP_WAIT,
    ) -> None:
        self.records = AuditRecords(store)
        self.log = AuditLog(clock, self._write_entries, registry.find_method)
        self.in_flight = self.log.in_flight
        self._in_flight_kv = store.kv(_IN_FLIGHT_NAMESPACE)
        self._store = store
        self._clock = clock
        self._retention = configuration.audit
        self._find_user_name = find_user_name or _user_name
        self._lookup_wait = lookup_wait
        self._user_names: dict[int, str] = {}
        self._lookup_task: asyncio.Task[None] | None = None
        self._written_since_trim = _ENTRIES_PER_TRIM  # so that the first write trims: the limits may be new

    def configure(self, configuration: Configuration) -> None:
        """Apply new limits."""
        self._retention = configuration.audit
        self._written_since_trim = _ENTRIES_PER_TRIM

    async def _write_entries(self, entries: list[AuditEntry]) -> list[int]:
        await self._learn_user_names(
            {entry.uid for entry in entries if entry.uid >= 0 and not entry.number} - self._user_names.keys()
        )
        self._written_since_trim += len(entries)
        limits, trim = self._retention, self._written_since_trim >= _ENTRIES_PER_TRIM
        if trim:
            self._written_since_trim = 0
        ended = self.in_flight.pop_ended()

        def write() -> list[int]:
            numbers = self.records.save(map(self._with_user_name, entries))
            for key in ended:
                self._in_flight_kv.delete(key)
            if trim:
                ages = self._store.retention_clock
                self.records.trim(limits.count, ages.now() - limits.age, ages)
            return numbers

        try:
            return await self._store.awrite(write, label="audit")
        except BaseException:
            self.in_flight.requeue_ended(ended)
            raise

    async def record_in_flight(self, list_calls: Callable[[float], Iterable[Call]]) -> None:
        """Record longer requests in progress, indefinitely; first close the entries of an earlier daemon.

        Args:
            list_calls: Returns the requests in progress; see `Dispatcher.in_flight_since`.
        """
        left = True
        while True:
            try:
                left = left and not await self._close_interrupted()
                await self._write_in_flight(list_calls)
            except StoreError as error:  # logged by the store; audit entries go to the log meanwhile
                _log.debug("requests in progress were not recorded: %s", error)
            await asyncio.sleep(_IN_FLIGHT_POLL_INTERVAL)

    async def _write_in_flight(self, list_calls: Callable[[float], Iterable[Call]]) -> None:
        found = self.in_flight.new_entries(list_calls)
        if not found:
            return
        await self._learn_user_names(
            {entry.uid for entry in found.values() if entry.uid >= 0} - self._user_names.keys()
        )

        def write() -> None:
            for key, entry in found.items():
                self._in_flight_kv.set(key, msgspec.to_builtins(self._with_user_name(entry)))

        await self._store.awrite(write, label="requests in progress")

    async def _close_interrupted(self) -> bool:
        """Record the end of the requests in progress when an earlier daemon was killed, or crashed; returns True."""
        now = self._clock.wall()

        def end() -> int:
            left = {
                key: kept
                for key, kept in self._in_flight_kv.items().items()
                if not key.startswith(self.in_flight.key_prefix)
            }
            entries = [entry for kept in left.values() if (entry := _interrupted_entry(kept, now)) is not None]
            self.records.save(entries)
            for key in left:
                self._in_flight_kv.delete(key)
            return len(entries)

        if count := await self._store.awrite(end, label="interrupted requests"):
            _log.warning("%d requests were in progress when the daemon last ended; `ostler audit` shows them", count)
        return True

    def _with_user_name(self, entry: AuditEntry) -> AuditEntry:
        """Return the entry with its user's name, as far as that is known."""
        name = "" if entry.number else self._user_names.get(entry.uid, "")
        return msgspec.structs.replace(entry, user=name) if name else entry

    async def _learn_user_names(self, uids: set[int]) -> None:
        """Look up the names of users, and wait for them a short time.

        On a thread of its own: the user database may be on a network that does not respond, and must delay neither the
        loop nor the database's writer. Entries are written without the name meanwhile.
        """
        if uids and (self._lookup_task is None or self._lookup_task.done()):
            self._lookup_task = asyncio.get_running_loop().create_task(self._look_up_users(uids), name="user names")
            await asyncio.wait([self._lookup_task], timeout=self._lookup_wait)

    async def _look_up_users(self, uids: set[int]) -> None:
        def look() -> None:
            for uid in uids:
                self._user_names[uid] = self._find_user_name(uid)

        pool = WorkerPool("ostler-names", 1)
        try:
            await pool.run(look, label="user names")
        except Busy as error:  # no thread available
            _log.debug("could not look up user names: %s", error)
        finally:
            pool.close()

    async def read_flushed(self, fn: Callable[[], T]) -> T:
        """Run `fn` after everything recorded before now has been written."""
        await self.log.flush()
        return await self._store.aread(fn)

    async def close(self) -> None:
        """Write the queued entries; later requests are not audited."""
        await self.log.flush(always=True)
        if self._lookup_task is not None:
            self._lookup_task.cancel()


def _interrupted_entry(kept: Json, now: float) -> AuditEntry | None:
    """Return the entry of an interrupted request; None for an invalid one."""
    try:
        entry = msgspec.convert(kept, AuditEntry)
    except msgspec.ValidationError:
        return None
    received = format_moment(entry.at - entry.seconds)
    text = f"the daemon ended while the request was in progress; it was received at {received}"
    return msgspec.structs.replace(entry, at=now, last=now, seconds=0.0, result=INTERRUPTED_RESULT, text=text)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return ""
