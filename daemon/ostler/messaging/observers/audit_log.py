"""The audit log on its way to the store: who did what, gathered on the loop and handed over in batches.

Requests in progress are written down as well, so that a crash does not cut them off without a trace.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from ostler.bounds import MESSAGE_LIMIT, escape_surrogates, safe_str
from ostler.clock import Clock
from ostler.errors import OstlerError, error_line
from ostler.log.masking import MASK, mask_deep, mask_field, mask_values
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.endpoint import Method
from ostler.redaction import SECRETS, Value
from ostler.types import LOCAL_PEER, AuditEntry, Peer

MIN_AGE = 0.1
"""Seconds that a request is in progress at least before it is written down: most have ended by then, and are once."""


class InFlightAudit:
    """Knows which requests in progress stand in the database. On the loop.

    A request that ends soon costs nothing here. Each other one is looked at once, gets a key under which it is written
    down, and that key is to be removed in the same write that keeps how it ended.

    Args:
        clock: The source of time.
        make_entry: Returns what is to be kept of one, None for one of which nothing is.
    """

    def __init__(self, clock: Clock, make_entry: Callable[[Call], AuditEntry | None]) -> None:
        self._clock = clock
        self._make_entry = make_entry
        self._checked_until = clock.monotonic()
        self._keys: dict[Call, str] = {}
        self._ended_keys: list[str] = []
        self._numbers = itertools.count(1)
        self.key_prefix = os.urandom(6).hex()
        """Begins the keys of this process: those of others were written by one that is no more."""

    def new_entries(self, list_calls: Callable[[float], Iterable[Call]]) -> dict[str, AuditEntry]:
        """Return what is to be written down now, by its key.

        Args:
            list_calls: Returns the requests in progress that have come after a moment of the clock, the last one first.
        """
        until = self._clock.monotonic() - MIN_AGE
        found: dict[str, AuditEntry] = {}
        for call in reversed([*list_calls(self._checked_until)]):
            if call.arrived_at > until or call.is_recorded or (entry := self._make_entry(call)) is None:
                continue
            key = self._keys[call] = f"{self.key_prefix}.{next(self._numbers):012}"
            found[key] = entry
        self._checked_until = max(self._checked_until, until)
        return found

    def on_call_done(self, call: Call) -> None:
        """Record that a request has ended, and that its end is kept."""
        if (key := self._keys.pop(call, None)) is not None:
            self._ended_keys.append(key)

    def pop_ended(self) -> list[str]:
        """Return the keys that are to be removed now."""
        ended, self._ended_keys = self._ended_keys, []
        return ended

    def requeue_ended(self, keys: list[str]) -> None:
        """Have keys removed with the next write: this one has failed."""
        self._ended_keys += keys


_log = logging.getLogger(__name__)
REFUSAL_WINDOW = 60.0
"""Seconds in which the same refusal of the same peer is counted into one entry."""
MAX_UNKNOWN_NAMES = 20
"""So many names that are nowhere, of one peer in a window, get an entry each: or they would fill the disk."""
_FLUSH_INTERVAL = 0.2
_MAX_TEXT_LENGTH = 1000
_MAX_VALUE_SIZE = 200
_MAX_ARGUMENTS_SIZE = 64 * 1024
_MAX_KINDS_PER_ACCOUNT = 256
"""Kinds of refusals of one uid or key that are counted apart; then its oldest goes."""
_MAX_ACCOUNTS = 1024
RESULT_DONE = "done"

WriteEntries = Callable[[list[AuditEntry]], Awaitable[list[int]]]
FindMethod = Callable[[str, str], "Method | None"]


class _PendingEntry:
    """An entry that waits, or whose count may still grow."""

    __slots__ = ("entry", "is_queued", "open_until")

    def __init__(self, entry: AuditEntry, until: float) -> None:
        self.entry = entry
        self.open_until = until
        self.is_queued = True


class AuditLog:
    """Keeps refused calls and those that change something; implements `AuditObserver`. On the loop.

    Nothing waits for the store. When it cannot be written, or does not keep up, the lines go to the log instead.

    A call from one manager to another is kept when a request caused it, under that request's id and as done by who made
    that request; one that found nobody is not. What the daemon does of itself (periodic tasks) is not kept.

    Args:
        clock: The source of time.
        write_entries: Writes entries, those with a number again; returns the number of each.
        find_method: Returns the method of a topic and name, None when there is none.
        max_queued: The most entries that wait.
    """

    def __init__(
        self, clock: Clock, write_entries: WriteEntries, find_method: FindMethod, *, max_queued: int = 10_000
    ) -> None:
        self._clock = clock
        self._write_entries = write_entries
        self._find_method = find_method
        self._max_queued = max_queued
        self._queue: list[_PendingEntry] = []
        # By whose they are, the first two of a key: so that nobody makes those of somebody else be forgotten.
        self._entries_by_account: dict[tuple[object, ...], dict[tuple[object, ...], _PendingEntry]] = {}
        self._wake = asyncio.Event()
        self._write_lock = asyncio.Lock()
        self._unknown_names: Counter[tuple[int, str]] = Counter()
        self._unknown_names_reset_at = 0.0
        self._is_store_down = False
        self.in_flight = InFlightAudit(clock, self.in_flight_entry)
        """What of the requests in progress is written down."""
        self.written_count = 0
        self.logged_count = 0

    # ---------------------------------------------------------------- what comes in

    def record(self, call: Call, error: OstlerError | None) -> None:
        """See `AuditObserver.record`."""
        self.in_flight.on_call_done(call)
        if call.is_admitted and not _has_changes(call):
            return
        peer = find_origin(call)
        if peer is None or (call.peer is LOCAL_PEER and not call.is_admitted):
            return
        try:
            self._record_call(call, peer, error)
        except Exception as defect:  # noqa: BLE001 - a bug here must not cost the caller its answer
            _log.exception("could not build an audit log entry: %s from %s", call.full_name, peer.name, exc_info=defect)

    def in_flight_entry(self, call: Call) -> AuditEntry | None:
        """Return the entry for a request that is in progress; None for one that `record` does not keep either."""
        if not call.is_admitted or not _has_changes(call) or (peer := find_origin(call)) is None:
            return None
        try:
            return self._make_entry(call, peer, None, refused=False)
        except Exception as defect:  # noqa: BLE001 - as in `record`
            _log.exception("could not build an audit log entry: %s", call.full_name, exc_info=defect)
            return None

    def record_action(self, who: str, topic: str, method: str, error: str = "", text: str = "") -> None:
        """Keep something that changes the daemon and came as no request, such as a signal.

        Args:
            who: What it came from.
            topic: The topic of the request that would have done the same.
            method: Its method.
            error: The name of what it ended with; empty when it was done.
            text: The sentence to that.
        """
        now = self._clock.wall()
        entry = AuditEntry(
            at=now,
            who=who,
            topic=topic,
            method=method,
            result=error or RESULT_DONE,
            text=_redact_and_cut(text),
            last=now,
        )
        kept = _PendingEntry(entry, 0.0)
        kept.is_queued = False
        self._enqueue(kept)

    def _record_call(self, call: Call, peer: Peer, error: OstlerError | None) -> None:
        refused = error is not None and not call.is_started
        now = self._clock.monotonic()
        key = self._refusal_key(call, peer, error, now) if refused else ()
        if not self._count_repeat(key, now):
            self._add_entry(key, now, self._make_entry(call, peer, error, refused))

    def record_refusal(self, peer: Peer, topic: str, method: str, error: OstlerError) -> None:
        """See `AuditObserver.refused`."""
        now, wall, refusal = self._clock.monotonic(), self._clock.wall(), type(error).__name__
        # By where it came from and not by its key: of those, whoever knocks has as many as it likes.
        key: tuple[object, ...] = (peer.uid, peer.name, refusal, topic, method)
        if peer.uid < 0 and self._find_entry(key) is None:
            key = self._limited_key(key, (-1, ""), now)
        if self._count_repeat(key, now):
            return
        entry = AuditEntry(
            at=wall, who=peer.name, uid=peer.uid, pid=peer.pid, key=peer.key or peer.principal, topic=topic,
            method=method, result=refusal, text=_redact_and_cut(safe_str(error.message, MESSAGE_LIMIT)), refused=True,
            last=wall,
        )  # fmt: skip
        self._add_entry(key, now, entry)

    def _count_repeat(self, key: tuple[object, ...], now: float) -> bool:
        """Count a refusal into the entry that there is for it; return False when there is none."""
        window = self._find_entry(key) if key else None
        if window is None or now >= window.open_until:
            return False
        window.entry = msgspec.structs.replace(window.entry, times=window.entry.times + 1, last=self._clock.wall())
        self._enqueue(window)
        return True

    def _add_entry(self, key: tuple[object, ...], now: float, entry: AuditEntry) -> None:
        """Begin an entry; one with a key counts those that are like it for a while."""
        kept = _PendingEntry(entry, now + REFUSAL_WINDOW)
        if key:
            self._entries_of_account(key[:2], now)[key] = kept
        kept.is_queued = False
        self._enqueue(kept)

    def _refusal_key(self, call: Call, peer: Peer, error: OstlerError | None, now: float) -> tuple[object, ...]:
        """Return what makes two refusals the same. Of names that a peer makes up the first few are told apart."""
        request, refusal = call.request, type(error).__name__
        proved = peer.key or peer.principal
        key: tuple[object, ...] = (peer.uid, proved, refusal, request.topic, request.method)
        if self._find_method(request.topic, request.method) is not None or self._find_entry(key):
            return key
        return self._limited_key(key, (peer.uid, proved), now)

    def _limited_key(self, key: tuple[object, ...], whose: tuple[int, str], now: float) -> tuple[object, ...]:
        """Return the key of a refusal with something made up in it: after the first few, one for all the rest."""
        if now >= self._unknown_names_reset_at:
            self._unknown_names_reset_at = now + REFUSAL_WINDOW
            self._unknown_names.clear()
        self._unknown_names[whose] += 1
        return key if self._unknown_names[whose] <= MAX_UNKNOWN_NAMES else (*whose, key[2])

    def _find_entry(self, key: tuple[object, ...]) -> _PendingEntry | None:
        return self._entries_by_account.get(key[:2], {}).get(key)

    def _entries_of_account(self, whose: tuple[object, ...], now: float) -> dict[tuple[object, ...], _PendingEntry]:
        """Return the entries of one uid or key that may still grow, with room for one more."""
        mine = self._entries_by_account.get(whose, {})
        if len(mine) >= _MAX_KINDS_PER_ACCOUNT:
            mine = _still_open(now, mine)
            if len(mine) >= _MAX_KINDS_PER_ACCOUNT:
                del mine[next(iter(mine))]
        elif whose not in self._entries_by_account and len(self._entries_by_account) >= _MAX_ACCOUNTS:
            self._entries_by_account = {
                each: open_ for each, kept in self._entries_by_account.items() if (open_ := _still_open(now, kept))
            }
            if len(self._entries_by_account) >= _MAX_ACCOUNTS:
                del self._entries_by_account[next(iter(self._entries_by_account))]
        self._entries_by_account[whose] = mine
        return mine

    def _enqueue(self, kept: _PendingEntry) -> None:
        if kept.is_queued:
            return
        if len(self._queue) >= self._max_queued:
            self._write_to_log([kept.entry])
            return
        kept.is_queued = True
        self._queue.append(kept)
        self._wake.set()

    def _make_entry(self, call: Call, peer: Peer, error: OstlerError | None, refused: bool) -> AuditEntry:
        request, now = call.request, self._clock.wall()
        context, secrets = call.context, call.context.secrets
        method = self._find_method(request.topic, request.method)
        return AuditEntry(
            at=now,
            who=peer.name,
            uid=peer.uid,
            pid=peer.pid,
            key=peer.key or peer.principal,
            topic=request.topic,
            method=request.method,
            arguments=format_arguments(bytes(request.arguments), method, secrets),
            result=RESULT_DONE if error is None else type(error).__name__,
            text="" if error is None else _redact_and_cut(mask_values(safe_str(error.message, MESSAGE_LIMIT), secrets)),
            refused=refused,
            request_id=request.request_id,
            trace=context.trace,
            seconds=self._clock.monotonic() - call.arrived_at if call.arrived_at else 0.0,
            last=now,
        )

    # ---------------------------------------------------------------- what goes out

    async def run(self) -> None:
        """Hand over what waits, indefinitely: the first at once, then a few batches a second."""
        while True:
            await self._wake.wait()
            await self.flush()
            await asyncio.sleep(_FLUSH_INTERVAL)

    async def flush(self, *, always: bool = False) -> None:
        """Hand over what waits now; what was handed over before has been written when this returns.

        Args:
            always: Whether to do so when nothing waits, for what comes along with entries.
        """
        # One at a time: an entry whose number is not known yet would be written as another one.
        async with self._write_lock:
            await self._flush(always)

    async def _flush(self, always: bool) -> None:
        self._wake.clear()
        batch, self._queue = self._queue, []
        if not batch and not always:
            return
        for kept in batch:
            kept.is_queued = False
        entries = [kept.entry for kept in batch]
        try:
            numbers = await self._write_entries(entries)
        except asyncio.CancelledError:
            self._write_to_log(entries)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is: the lines must not be lost, and this goes on
            self._on_write_error(error, entries)
            return
        if self._is_store_down:
            self._is_store_down = False
            _log.warning("writing the audit log to the database again")
        self.written_count += len(entries)
        for kept, number in zip(batch, numbers, strict=True):
            kept.entry = msgspec.structs.replace(kept.entry, number=number)

    def _on_write_error(self, error: Exception, entries: list[AuditEntry]) -> None:
        if not self._is_store_down:
            self._is_store_down = True
            _log.error(
                "cannot write the audit log to the database; its entries go to this log meanwhile: %s",
                error_line(error),
            )
        self._write_to_log(entries)

    def _write_to_log(self, entries: list[AuditEntry]) -> None:
        self.logged_count += len(entries)
        for entry in entries:
            _log.warning("audit: %s", format_entry(entry))

    def stats(self) -> dict[str, int]:
        """Return how many entries were kept, went to the log, and wait."""
        return {"kept": self.written_count, "to_log": self.logged_count, "waiting": len(self._queue)}


def _still_open(now: float, kept: dict[tuple[object, ...], _PendingEntry]) -> dict[tuple[object, ...], _PendingEntry]:
    return {key: each for key, each in kept.items() if each.open_until > now}


def _has_changes(call: Call) -> bool:
    """Return whether a request changes anything; of one that is relayed the other host has said so."""
    relayed = call.context.relayed
    return call.method.exposure.changes and (relayed is None or relayed.changes)


def find_origin(call: Call) -> Peer | None:
    """Return who is behind a request: its peer, or for one from within the daemon that of the request that made it.

    None when nobody but the daemon itself is.
    """
    peer = call.origin
    return None if peer is LOCAL_PEER else peer


def format_arguments(raw: bytes, method: Method | None, secrets: tuple[Value, ...] = ()) -> str:
    """Return arguments as JSON text: short ones whole, `***` for secrets and for what the method does not know.

    Args:
        raw: The map as it came; it may be anything.
        method: The method; None when there is none, and then nothing tells what is secret.
        secrets: Values that may not stand in it.
    """
    if len(raw) > _MAX_ARGUMENTS_SIZE:
        return f"({len(raw)} bytes)"
    try:
        given = _map_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return f"({len(raw)} bytes, not valid arguments)"
    known = {argument.name for argument in method.signature.arguments} if method is not None else set()
    hidden = method.signature.secrets if method is not None else frozenset()
    shown = {
        mask_values(name[:64], secrets): _format_value(name, value, secrets) if name in known - hidden else MASK
        for name, value in given.items()
    }
    return _redact_and_cut(msgspec.json.encode(shown, enc_hook=str).decode()) if shown else ""


_map_decoder = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])


def _format_value(name: str, raw: msgspec.Raw, secrets: tuple[Value, ...]) -> object:
    size = len(memoryview(raw))
    if size > _MAX_VALUE_SIZE:
        return f"({size} bytes)"
    try:
        value: Any = mask_field(name, msgspec.msgpack.decode(raw))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError):
        return f"({size} bytes)"
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    return mask_deep(value, secrets) if secrets else value


def format_entry(entry: AuditEntry) -> str:
    """Return an entry as one line, for the log."""
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__ if name != "number"}
    return msgspec.json.encode(fields).decode()


def _redact_and_cut(text: str) -> str:
    """Return a text as it is kept: without the secrets of the process, and not too long."""
    text = escape_surrogates(SECRETS.redact(text, arguments=False))
    return text if len(text) <= _MAX_TEXT_LENGTH else f"{text[:_MAX_TEXT_LENGTH]}…"
