"""Deduplicates requests that may be retried: each runs once, and its answer is stored for a while.

A client that sends a request with the flag `RETRY` may send it again with the same `request_id`, also on another
connection. A repeat is answered with the result of the first; while that is still in progress, progress and answer go
to the connection of the repeat. Ids are separate for each account (uid, key): no account gets the
answers of another, or causes them to be evicted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

import msgspec

from ostler.aio.fair_quota import FairQuota
from ostler.errors import (
    Busy,
    Cancelled,
    Conflict,
    ConnectionLost,
    DaemonNotRunning,
    Draining,
    MethodNotFound,
    OstlerError,
    ResultExpired,
    ServiceNotFound,
)
from ostler.messaging.rpc.in_flight import DeadlineTimer
from ostler.messaging.rpc.rpc_server import RpcServer, WireCall
from ostler.messaging.wire.envelope import CAST, FANOUT, Request, decode_to_client, encode_message, peek_header
from ostler.messaging.wire.transport import ClientId
from ostler.time_text import format_seconds
from ostler.types import Peer

_IDS_PER_RESULT = 10
"""Ids are stored longer than answers: a late repeat is refused, and not run again."""
_MAX_SIZE_DIVISOR = 4
"""An answer that takes more than this part of the space is not stored."""

_NOT_STARTED_ERRORS = (DaemonNotRunning, Draining, Busy, ServiceNotFound, MethodNotFound)
"""Errors with which another host says that it has not started a relayed request."""

_Key = tuple[Hashable, str]


class _Entry:
    """One request: its call while that is in progress, then its answer, as long as that is stored."""

    __slots__ = ("call", "done_at", "fingerprint", "reply")

    def __init__(self, print_: int, call: DedupedCall) -> None:
        self.fingerprint = print_
        self.call: DedupedCall | None = call
        self.reply: bytes | None = None
        self.done_at = 0.0


class DedupCache:
    """The requests of one server that may be retried. On the loop's thread only.

    Those in progress are never dropped: their number is bounded by the limit of requests in flight. The others are
    bounded by number, bytes and age, and shared by accounts (see `FairQuota`): when an account has used its share, its
    own oldest are evicted.

    Args:
        server: Whose requests these are; its `keeping` says how much is kept.
    """

    def __init__(self, server: RpcServer) -> None:
        self.repeats_answered = 0
        self.repeats_attached = 0
        self._server = server
        self._entries: dict[_Key, _Entry] = {}
        # In the order in which their requests were done; those of one account as well.
        self._done: dict[_Key, None] = {}
        self._done_of: dict[Hashable, dict[_Key, None]] = {}
        self._results_of: dict[Hashable, dict[_Key, int]] = {}
        self._dedup_limits = server.dedup_limits
        self._ids = FairQuota(self._dedup_limits.max_results * _IDS_PER_RESULT)
        self._results = FairQuota(self._dedup_limits.max_results)
        self._bytes = FairQuota(self._dedup_limits.max_bytes)
        self._expiry_timer = DeadlineTimer(server.clock, self._expire)

    def stats(self) -> dict[str, int]:
        """Return the counters: ids, requests in progress, answers kept and their bytes; repeats answered, joined."""
        return {
            "ids": len(self._entries),
            "under_way": len(self._entries) - len(self._done),
            "answers": self._results.total,
            "bytes": self._bytes.total,
            "answered": self.repeats_answered,
            "joined": self.repeats_attached,
        }

    def receive(self, request: Request, peer: Peer, client: ClientId) -> WireCall | None:
        """Answer a request that was received before; return the call of a new one, which is to be dispatched."""
        if not self._server.is_authorised(peer):
            return WireCall(request, peer, client, self._server)  # refused, whatever it may have been answered before
        key = (peer.account, request.request_id)
        print_ = hash((request.topic, request.method, bytes(request.arguments), request.flags & (CAST | FANOUT)))
        entry = self._entries.get(key)
        if entry is None:
            if not (self._ids.has_room(peer.account) or self._ids.used(peer.account)):
                self._server.refuse(request, peer, client, _no_room_error(request, self._ids.limit))
                return None
            call = DedupedCall(request, peer, client, self._server, self, key)
            self._entries[key] = _Entry(print_, call)
            return call
        if entry.fingerprint != print_:
            self._server.refuse(request, peer, client, _id_conflict_error(request))
        elif entry.call is not None:
            self.repeats_attached += 1
            entry.call.attach(request, client)
        elif entry.reply is None:
            self._server.refuse(request, peer, client, _result_expired_error(request))
        else:
            self.repeats_answered += 1
            self._server.send(client, with_request_number(entry.reply, request.id))
        return None

    def forget(self, key: _Key) -> None:
        """Forget a request that was refused: a repeat is a new one."""
        self._entries.pop(key, None)

    def store_result(self, key: _Key, answer: bytes) -> None:
        """Keep the answer of a request."""
        entry = self._entries.get(key)
        if entry is None or entry.call is None:
            return
        entry.call = None
        entry.done_at = now = self._server.clock.monotonic()
        if self._dedup_limits is not self._server.dedup_limits:
            self._apply_limits()
        account = key[0]
        while not self._ids.has_room(account) and account in self._done_of:
            self._drop(next(iter(self._done_of[account])))
        self._ids.acquire(account)
        self._done[key] = None
        self._done_of.setdefault(account, {})[key] = None
        self._store_reply(key, entry, answer)
        self._expiry_timer.schedule(now + self._dedup_limits.ttl)

    def _store_reply(self, key: _Key, entry: _Entry, answer: bytes) -> None:
        account, size = key[0], len(answer)
        if size * _MAX_SIZE_DIVISOR > self._dedup_limits.max_bytes:
            return
        mine = self._results_of.setdefault(account, {})
        while mine and not (self._results.has_room(account) and self._bytes.has_room(account, size)):
            self._drop_reply(next(iter(mine)))
        if self._results.has_room(account) and self._bytes.has_room(account, size):
            entry.reply = answer
            self._results_of.setdefault(account, mine)[key] = size
            self._results.acquire(account)
            self._bytes.acquire(account, size)
        elif not mine:
            self._results_of.pop(account, None)

    def _apply_limits(self) -> None:
        """Take over other limits, as a reload brings them; what is above them goes at once, the oldest first."""
        keeping = self._dedup_limits = self._server.dedup_limits
        self._ids.limit = keeping.max_results * _IDS_PER_RESULT
        self._results.limit, self._bytes.limit = keeping.max_results, keeping.max_bytes
        shares = (self._ids, self._results, self._bytes)
        while self._done and any(each.total > each.limit for each in shares):
            self._drop(next(iter(self._done)))

    def close(self) -> None:
        """Stop the timer."""
        self._expiry_timer.cancel()

    def _expire(self, now: float) -> float | None:
        while self._done:
            key = next(iter(self._done))
            due = self._entries[key].done_at + self._server.dedup_limits.ttl
            if due > now:
                return due
            self._drop(key)
        return None

    def _drop(self, key: _Key) -> None:
        account = key[0]
        if key in self._results_of.get(account, ()):
            self._drop_reply(key)
        del self._done[key], self._entries[key], self._done_of[account][key]
        if not self._done_of[account]:
            del self._done_of[account]
        self._ids.release(account)

    def _drop_reply(self, key: _Key) -> None:
        account = key[0]
        mine = self._results_of[account]
        self._bytes.release(account, mine.pop(key))
        self._results.release(account)
        self._entries[key].reply = None
        if not mine:
            del self._results_of[account]


class DedupedCall(WireCall):
    """A request that may be retried: its answer is stored, and it continues for a while without its caller."""

    def __init__(
        self, request: Request, peer: Peer, client: ClientId, server: RpcServer, dedup_cache: DedupCache, key: _Key
    ) -> None:
        super().__init__(request, peer, client, server)
        self._dedup_cache = dedup_cache
        self._key = key
        self._is_registered = False
        self._orphan_timer: asyncio.TimerHandle | None = None

    def attach(self, request: Request, client: ClientId) -> None:
        """Continue for a repeat: progress and answer go to its connection."""
        self._cancel_orphan_timer()
        if self._is_registered:
            super().on_ended()
        # All attempts together have the time of the first: its deadline stands. What is relayed is so already.
        if self.requested_method:
            self.request = msgspec.structs.replace(self.request, id=request.id)
        else:
            self.request = msgspec.structs.replace(request, timeout=self.request.timeout)
        self.client = client
        if self._is_registered:
            super().on_registered()

    def send_reply(self, packed: bytes) -> None:
        """See `Call.reply`."""
        packed = with_request_number(packed, self.request.id)  # it may have been packed for the attempt before
        self._dedup_cache.store_result(self._key, packed)
        super().send_reply(packed)

    def send_error(self, error: OstlerError) -> None:
        """See `Call.fail`."""
        if not self.is_started and not self._is_registered:
            self._dedup_cache.forget(self._key)  # refused: nothing was done
        elif self.requested_method and isinstance(error, (ConnectionLost, *_NOT_STARTED_ERRORS)):
            self._dedup_cache.forget(self._key)  # a repeat is relayed as well: the other host knows what became of it
        else:
            self._dedup_cache.store_result(self._key, self.encode_error(error))
        super().send_error(error)

    def send_accepted(self, reached: int) -> None:
        """See `Call.accepted`."""
        if reached:
            self._dedup_cache.store_result(self._key, self.encode_accepted(reached))
        else:
            self._dedup_cache.forget(self._key)
        super().send_accepted(reached)

    def on_registered(self) -> None:
        """See `Call.registered`."""
        self._is_registered = True
        super().on_registered()

    def on_ended(self) -> None:
        """See `Call.ended`."""
        self._is_registered = False
        self._cancel_orphan_timer()
        super().on_ended()

    def on_client_gone(self) -> None:
        """Continue for a while: the caller, which has disconnected, may come back on another connection."""
        self._cancel_orphan_timer()
        self._orphan_timer = asyncio.get_running_loop().call_later(
            self.server.dedup_limits.orphan_grace, self._on_orphan_timeout
        )

    def _cancel_orphan_timer(self) -> None:
        if self._orphan_timer is not None:
            self._orphan_timer.cancel()
            self._orphan_timer = None

    def _on_orphan_timeout(self) -> None:
        self._orphan_timer = None
        self.is_caller_gone = True
        grace = format_seconds(self.server.dedup_limits.orphan_grace)
        why = f"{self.full_name} was cancelled: its caller disconnected and did not come back within {grace}"
        self.server.cancel(self, Cancelled(why, method=self.full_name))


def with_request_number(message: bytes, number: int) -> bytes:
    """Return an answer for the request with this number."""
    if peek_header(message)[2:] == [number]:
        return message
    answer: Any = decode_to_client(message)
    return encode_message(msgspec.structs.replace(answer, id=number))


def _no_room_error(request: Request, limit: int) -> Busy:
    return Busy(
        f"{request.topic}.{request.method} cannot be deduplicated: the ids of {limit} other requests are stored, "
        "and there is no room for more",
        hint="try again later, or send it without `retry`",
        retry_after=5.0,
        limit=limit,
    )


def _id_conflict_error(request: Request) -> Conflict:
    return Conflict(
        f"the request id {request.request_id} was already used for another request",
        hint="a retried request must have the same method and arguments as the first time",
        request_id=request.request_id,
        method=f"{request.topic}.{request.method}",
    )


def _result_expired_error(request: Request) -> ResultExpired:
    return ResultExpired(
        f"{request.topic}.{request.method} was completed under the request id {request.request_id}, but its answer is "
        "no longer stored",
        hint="check what it did; it was not run again",
        request_id=request.request_id,
        method=f"{request.topic}.{request.method}",
    )
