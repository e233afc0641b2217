"""The audit log on its way to the store: who did what, gathered on the loop and handed over in batches."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ostler.bounds import MESSAGE_LIMIT, sendable, text_of
from ostler.clock import Clock
from ostler.errors import OstlerError, describe
from ostler.log.secrets import MASK, mask_deep, mask_values, masked
from ostler.messaging.audit_begun import BegunCalls
from ostler.messaging.context import Context
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.endpoint import Method
from ostler.redaction import SECRETS, Value
from ostler.types import LOCAL_PEER, AuditEntry, Peer

_log = logging.getLogger(__name__)
WINDOW = 60.0
"""Seconds in which the same refusal of the same peer is counted into one entry."""
MADE_UP = 20
"""So many names that are nowhere, of one peer in a window, get an entry each: or they would fill the disk."""
_SPACING = 0.2
_LONGEST = 1000
_LONGEST_VALUE = 200
_LONGEST_MAP = 64 * 1024
_KINDS_OF_ONE = 256
"""Kinds of refusals of one uid or key that are counted apart; then its oldest goes."""
_ACCOUNTS_LIMIT = 1024
DONE = "done"

Keep = Callable[[list[AuditEntry]], Awaitable[list[int]]]
FindMethod = Callable[[str, str], "Method | None"]


class _Kept:
    """An entry that waits, or whose count may still grow."""

    __slots__ = ("entry", "until", "waits")

    def __init__(self, entry: AuditEntry, until: float) -> None:
        self.entry = entry
        self.until = until
        self.waits = True


class AuditLog:
    """Keeps refused calls and those that change something; implements `Audit`. On the loop.

    Nothing waits for the store. When it cannot be written, or does not keep up, the lines go to the log instead.

    A call from one manager to another is kept when a request caused it, under that request's id and as done by who made
    that request; one that found nobody is not. What the daemon does of itself (periodic tasks) is not kept.

    Args:
        clock: The source of time.
        keep: Writes entries, those with a number anew; returns the number of each.
        find: Returns the method of a topic and name, None when there is none.
        size: The most entries that wait.
    """

    def __init__(self, clock: Clock, keep: Keep, find: FindMethod, *, size: int = 10_000) -> None:
        self._clock = clock
        self._keep = keep
        self._find = find
        self._size = size
        self._waiting: list[_Kept] = []
        # By whose they are, the first two of a key: so that nobody makes those of somebody else be forgotten.
        self._windows: dict[tuple[object, ...], dict[tuple[object, ...], _Kept]] = {}
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._made_up: Counter[tuple[int, str]] = Counter()
        self._made_up_until = 0.0
        self._away = False
        self.begun: BegunCalls | None = None
        """What of the requests under way is written down; None when nothing is."""
        self.kept = 0
        self.to_log = 0

    # ---------------------------------------------------------------- what comes in

    def record(self, call: Call, error: OstlerError | None) -> None:
        """See `Audit.record`."""
        if self.begun is not None:
            self.begun.ended(call)
        if call.admitted and not _changes(call):
            return
        peer = origin_of(call)
        if peer is None or (call.peer is LOCAL_PEER and not call.admitted):
            return
        try:
            self._take(call, peer, error)
        except Exception as defect:  # noqa: BLE001 - a defect here must not cost the caller its answer
            _log.exception(
                "a line of the audit log could not be made: %s of %s", call.where, peer.name, exc_info=defect
            )

    def entry_of_begun(self, call: Call) -> AuditEntry | None:
        """Return what is to be kept of a request that is under way, None when nothing is: `record` will not either."""
        if not call.admitted or not _changes(call) or (peer := origin_of(call)) is None:
            return None
        try:
            return self._entry(call, peer, None, refused=False)
        except Exception as defect:  # noqa: BLE001 - as in `record`
            _log.exception("a line of the audit log could not be made: %s", call.where, exc_info=defect)
            return None

    def note(self, who: str, topic: str, method: str, error: str = "", text: str = "") -> None:
        """Keep something that changes the daemon and came as no request, such as a signal.

        Args:
            who: What it came from.
            topic: The topic of the request that would have done the same.
            method: Its method.
            error: The name of what it ended with; empty when it was done.
            text: The sentence to that.
        """
        now = self._clock.wall()
        entry = AuditEntry(at=now, who=who, topic=topic, method=method, result=error or DONE, text=_cut(text), last=now)
        kept = _Kept(entry, 0.0)
        kept.waits = False
        self._await(kept)

    def _take(self, call: Call, peer: Peer, error: OstlerError | None) -> None:
        refused = error is not None and not call.begun
        now = self._clock.monotonic()
        key = self._kind(call, peer, error, now) if refused else ()
        if not self._again(key, now):
            self._open(key, now, self._entry(call, peer, error, refused))

    def refused(self, peer: Peer, topic: str, method: str, error: OstlerError) -> None:
        """See `Audit.refused`."""
        now, wall, refusal = self._clock.monotonic(), self._clock.wall(), type(error).__name__
        # By where it came from and not by its key: of those, whoever knocks has as many as it likes.
        key: tuple[object, ...] = (peer.uid, peer.name, refusal, topic, method)
        if peer.uid < 0 and self._window(key) is None:
            key = self._told_apart(key, (-1, ""), now)
        if self._again(key, now):
            return
        entry = AuditEntry(
            at=wall, who=peer.name, uid=peer.uid, pid=peer.pid, key=peer.key, topic=topic, method=method,
            result=refusal, text=_cut(text_of(error.message, MESSAGE_LIMIT)), refused=True, last=wall,
        )  # fmt: skip
        self._open(key, now, entry)

    def _again(self, key: tuple[object, ...], now: float) -> bool:
        """Count a refusal into the entry that there is for it; return False when there is none."""
        window = self._window(key) if key else None
        if window is None or now >= window.until:
            return False
        window.entry = msgspec.structs.replace(window.entry, times=window.entry.times + 1, last=self._clock.wall())
        self._await(window)
        return True

    def _open(self, key: tuple[object, ...], now: float, entry: AuditEntry) -> None:
        """Begin an entry; one with a key counts those that are like it for a while."""
        kept = _Kept(entry, now + WINDOW)
        if key:
            self._room_for(key[:2], now)[key] = kept
        kept.waits = False
        self._await(kept)

    def _kind(self, call: Call, peer: Peer, error: OstlerError | None, now: float) -> tuple[object, ...]:
        """Return what makes two refusals the same. Of names that a peer makes up the first few are told apart."""
        request, refusal = call.request, type(error).__name__
        key: tuple[object, ...] = (peer.uid, peer.key, refusal, request.topic, request.method)
        if self._find(request.topic, request.method) is not None or self._window(key):
            return key
        return self._told_apart(key, (peer.uid, peer.key), now)

    def _told_apart(self, key: tuple[object, ...], whose: tuple[int, str], now: float) -> tuple[object, ...]:
        """Return the key of a refusal with something made up in it: after the first few, one for all the rest."""
        if now >= self._made_up_until:
            self._made_up_until = now + WINDOW
            self._made_up.clear()
        self._made_up[whose] += 1
        return key if self._made_up[whose] <= MADE_UP else (*whose, key[2])

    def _window(self, key: tuple[object, ...]) -> _Kept | None:
        return self._windows.get(key[:2], {}).get(key)

    def _room_for(self, whose: tuple[object, ...], now: float) -> dict[tuple[object, ...], _Kept]:
        """Return the entries of one uid or key that may still grow, with room for one more."""
        mine = self._windows.get(whose, {})
        if len(mine) >= _KINDS_OF_ONE:
            mine = _open_at(now, mine)
            if len(mine) >= _KINDS_OF_ONE:
                del mine[next(iter(mine))]
        elif whose not in self._windows and len(self._windows) >= _ACCOUNTS_LIMIT:
            self._windows = {each: open_ for each, kept in self._windows.items() if (open_ := _open_at(now, kept))}
            if len(self._windows) >= _ACCOUNTS_LIMIT:
                del self._windows[next(iter(self._windows))]
        self._windows[whose] = mine
        return mine

    def _await(self, kept: _Kept) -> None:
        if kept.waits:
            return
        if len(self._waiting) >= self._size:
            self._tell([kept.entry])
            return
        kept.waits = True
        self._waiting.append(kept)
        self._wake.set()

    def _entry(self, call: Call, peer: Peer, error: OstlerError | None, refused: bool) -> AuditEntry:
        request, now = call.request, self._clock.wall()
        context: Context | None = getattr(call, "context", None) or call.parent
        secrets = context.secrets if context is not None else ()
        method = self._find(request.topic, request.method)
        return AuditEntry(
            at=now,
            who=peer.name,
            uid=peer.uid,
            pid=peer.pid,
            key=peer.key,
            topic=request.topic,
            method=request.method,
            arguments=shown_arguments(bytes(request.arguments), method, secrets),
            result=DONE if error is None else type(error).__name__,
            text="" if error is None else _cut(mask_values(text_of(error.message, MESSAGE_LIMIT), secrets)),
            refused=refused,
            request_id=request.request_id,
            trace=context.trace if context is not None else "",
            seconds=self._clock.monotonic() - call.arrived_at if call.arrived_at else 0.0,
            last=now,
        )

    # ---------------------------------------------------------------- what goes out

    async def run(self) -> None:
        """Hand over what waits, for ever: the first at once, then a few batches a second."""
        while True:
            await self._wake.wait()
            await self.flush()
            await asyncio.sleep(_SPACING)

    async def flush(self, *, always: bool = False) -> None:
        """Hand over what waits now; what was handed over before has been written when this returns.

        Args:
            always: Whether to do so when nothing waits, for what comes along with entries.
        """
        # One at a time: an entry whose number is not known yet would be written as another one.
        async with self._writing:
            await self._flush(always)

    async def _flush(self, always: bool) -> None:
        self._wake.clear()
        batch, self._waiting = self._waiting, []
        if not batch and not always:
            return
        for kept in batch:
            kept.waits = False
        entries = [kept.entry for kept in batch]
        try:
            numbers = await self._keep(entries)
        except asyncio.CancelledError:
            self._tell(entries)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is: the lines must not be lost, and this goes on
            self._lost(error, entries)
            return
        if self._away:
            self._away = False
            _log.warning("the audit log is written to the database again")
        self.kept += len(entries)
        for kept, number in zip(batch, numbers, strict=True):
            kept.entry = msgspec.structs.replace(kept.entry, number=number)

    def _lost(self, error: Exception, entries: list[AuditEntry]) -> None:
        if not self._away:
            self._away = True
            _log.error("the audit log cannot be written; its lines stand in this log meanwhile: %s", describe(error))
        self._tell(entries)

    def _tell(self, entries: list[AuditEntry]) -> None:
        self.to_log += len(entries)
        for entry in entries:
            _log.warning("audit: %s", line_of(entry))

    def stats(self) -> dict[str, int]:
        """Return how many entries were kept, went to the log, and wait."""
        return {"kept": self.kept, "to_log": self.to_log, "waiting": len(self._waiting)}


def _open_at(now: float, kept: dict[tuple[object, ...], _Kept]) -> dict[tuple[object, ...], _Kept]:
    return {key: each for key, each in kept.items() if each.until > now}


def _changes(call: Call) -> bool:
    """Return whether a request changes anything; of one that is relayed the other host has said so."""
    relayed = call.context.relayed if hasattr(call, "context") else None
    return call.method.exposure.changes and (relayed is None or relayed.changes)


def origin_of(call: Call) -> Peer | None:
    """Return who is behind a request: its peer, or for one from within the daemon that of the request that made it.

    None when nobody but the daemon itself is.
    """
    peer = call.origin
    return None if peer is LOCAL_PEER else peer


def shown_arguments(raw: bytes, method: Method | None, secrets: tuple[Value, ...] = ()) -> str:
    """Return arguments as JSON text: short ones whole, `***` for secrets and for what the method does not know.

    Args:
        raw: The map as it came; it may be anything.
        method: The method; None when there is none, and then nothing tells what is secret.
        secrets: Values that may not stand in it.
    """
    if len(raw) > _LONGEST_MAP:
        return f"({len(raw)} bytes)"
    try:
        given = _map_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return f"({len(raw)} bytes that are no arguments)"
    known = {argument.name for argument in method.signature.arguments} if method is not None else set()
    hidden = method.signature.secrets if method is not None else frozenset()
    shown = {
        mask_values(name[:64], secrets): _shown(name, value, secrets) if name in known - hidden else MASK
        for name, value in given.items()
    }
    return _cut(msgspec.json.encode(shown, enc_hook=str).decode()) if shown else ""


_map_decoder = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])


def _shown(name: str, raw: msgspec.Raw, secrets: tuple[Value, ...]) -> object:
    size = len(memoryview(raw))
    if size > _LONGEST_VALUE:
        return f"({size} bytes)"
    try:
        value: Any = masked(name, msgspec.msgpack.decode(raw))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError):
        return f"({size} bytes)"
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    return mask_deep(value, secrets) if secrets else value


def line_of(entry: AuditEntry) -> str:
    """Return an entry as one line, for the log."""
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__ if name != "number"}
    return msgspec.json.encode(fields).decode()


def _cut(text: str) -> str:
    """Return a text as it is kept: without the secrets of the process, and not too long."""
    text = sendable(SECRETS.redact(text, arguments=False))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
