"""Requests that may come again: each is run once, and its answer is kept for a while.

Who sends a request with the flag `RETRY` may send it again under the same `request_id`, on another connection too. A
repeat is answered with what the first came to; while that is still under way, the repeat takes its place, and progress
and answer go where it came from. An id says nothing across accounts (uids, keys): nobody gets the answers of somebody
else, and nobody makes those of somebody else be forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

import msgspec

from ostler.aio.shares import Shares
from ostler.errors import (
    AlreadyDone,
    Busy,
    CallCancelled,
    Conflict,
    ConnectionLost,
    Draining,
    NotRunning,
    OstlerError,
    TargetNotFound,
)
from ostler.messaging.envelope import CAST, FANOUT, Request, decode_to_client, encode_message, peek
from ostler.messaging.rpc.server import RpcServer, WireCall
from ostler.messaging.rpc.sweeper import Sweeper
from ostler.messaging.transport import ClientId
from ostler.types import Peer

_IDS_PER_ANSWER = 10
"""Ids are kept longer than answers: a repeat that comes late is refused, and not run again."""
_SHARE = 4
"""An answer that takes more than this part of the room is not kept."""

_NOT_TAKEN = (NotRunning, Draining, Busy, TargetNotFound)
"""Errors with which another host says that it has not begun what was relayed to it."""

_Key = tuple[Hashable, str]


class _Entry:
    """One request: its call while that is under way, then its answer, as long as that is kept."""

    __slots__ = ("answer", "call", "done_at", "print")

    def __init__(self, print_: int, call: KeptCall) -> None:
        self.print = print_
        self.call: KeptCall | None = call
        self.answer: bytes | None = None
        self.done_at = 0.0


class Duplicates:
    """The requests of one server that may come again. On the loop's thread only.

    Those under way are never dropped: they are as many as requests may be in flight. The others are bounded by number,
    bytes and age, and shared by accounts (see `Shares`): when an account has its share, its own oldest go.

    Args:
        server: Whose requests these are; its `keeping` says how much is kept.
    """

    def __init__(self, server: RpcServer) -> None:
        self.answered = 0
        self.joined = 0
        self._server = server
        self._entries: dict[_Key, _Entry] = {}
        # In the order in which their requests were done; those of one account as well.
        self._done: dict[_Key, None] = {}
        self._done_of: dict[Hashable, dict[_Key, None]] = {}
        self._answers_of: dict[Hashable, dict[_Key, int]] = {}
        self._keeping = server.keeping
        self._ids = Shares(self._keeping.answers * _IDS_PER_ANSWER)
        self._answers = Shares(self._keeping.answers)
        self._bytes = Shares(self._keeping.size)
        self._sweeper = Sweeper(server.clock, self._sweep)

    def stats(self) -> dict[str, int]:
        """Return the counters: ids, requests under way, answers kept and their bytes; repeats answered, joined."""
        return {
            "ids": len(self._entries),
            "under_way": len(self._entries) - len(self._done),
            "answers": self._answers.total,
            "bytes": self._bytes.total,
            "answered": self.answered,
            "joined": self.joined,
        }

    def receive(self, request: Request, peer: Peer, client: ClientId) -> WireCall | None:
        """Answer a request that was here before; return the call of one that is new, which is to be dispatched."""
        if not self._server.link.admission.knows(peer):
            return WireCall(request, peer, client, self._server)  # refused, whatever it may have been answered before
        key = (peer.account, request.request_id)
        print_ = hash((request.topic, request.method, bytes(request.arguments), request.flags & (CAST | FANOUT)))
        entry = self._entries.get(key)
        if entry is None:
            if not (self._ids.room(peer.account) or self._ids.used(peer.account)):
                self._server.refuse(request, peer, client, _no_room(request, self._ids.limit))
                return None
            call = KeptCall(request, peer, client, self._server, self, key)
            self._entries[key] = _Entry(print_, call)
            return call
        if entry.print != print_:
            self._server.refuse(request, peer, client, _another(request))
        elif entry.call is not None:
            self.joined += 1
            entry.call.join(request, client)
        elif entry.answer is None:
            self._server.refuse(request, peer, client, _not_kept(request))
        else:
            self.answered += 1
            self._server.send(client, addressed(entry.answer, request.id))
        return None

    def forget(self, key: _Key) -> None:
        """Forget a request that was refused: a repeat is a new one."""
        self._entries.pop(key, None)

    def done(self, key: _Key, answer: bytes) -> None:
        """Keep the answer of a request."""
        entry = self._entries.get(key)
        if entry is None or entry.call is None:
            return
        entry.call = None
        entry.done_at = now = self._server.clock.monotonic()
        if self._keeping is not self._server.keeping:
            self._limit()
        account = key[0]
        while not self._ids.room(account) and account in self._done_of:
            self._drop(next(iter(self._done_of[account])))
        self._ids.take(account)
        self._done[key] = None
        self._done_of.setdefault(account, {})[key] = None
        self._keep_answer(key, entry, answer)
        self._sweeper.wanted(now + self._keeping.age)

    def _keep_answer(self, key: _Key, entry: _Entry, answer: bytes) -> None:
        account, size = key[0], len(answer)
        if size * _SHARE > self._keeping.size:
            return
        mine = self._answers_of.setdefault(account, {})
        while mine and not (self._answers.room(account) and self._bytes.room(account, size)):
            self._drop_answer(next(iter(mine)))
        if self._answers.room(account) and self._bytes.room(account, size):
            entry.answer = answer
            self._answers_of.setdefault(account, mine)[key] = size
            self._answers.take(account)
            self._bytes.take(account, size)
        elif not mine:
            self._answers_of.pop(account, None)

    def _limit(self) -> None:
        """Take over other limits, as a reload brings them; what is above them goes at once, the oldest first."""
        keeping = self._keeping = self._server.keeping
        self._ids.limit = keeping.answers * _IDS_PER_ANSWER
        self._answers.limit, self._bytes.limit = keeping.answers, keeping.size
        shares = (self._ids, self._answers, self._bytes)
        while self._done and any(each.total > each.limit for each in shares):
            self._drop(next(iter(self._done)))

    def close(self) -> None:
        """Sweep no more."""
        self._sweeper.cancel()

    def _sweep(self, now: float) -> float | None:
        while self._done:
            key = next(iter(self._done))
            due = self._entries[key].done_at + self._server.keeping.age
            if due > now:
                return due
            self._drop(key)
        return None

    def _drop(self, key: _Key) -> None:
        account = key[0]
        if key in self._answers_of.get(account, ()):
            self._drop_answer(key)
        del self._done[key], self._entries[key], self._done_of[account][key]
        if not self._done_of[account]:
            del self._done_of[account]
        self._ids.give_back(account)

    def _drop_answer(self, key: _Key) -> None:
        account = key[0]
        mine = self._answers_of[account]
        self._bytes.give_back(account, mine.pop(key))
        self._answers.give_back(account)
        self._entries[key].answer = None
        if not mine:
            del self._answers_of[account]


class KeptCall(WireCall):
    """A request that may come again: its answer is kept, and work whose caller has gone goes on for a while."""

    def __init__(
        self, request: Request, peer: Peer, client: ClientId, server: RpcServer, duplicates: Duplicates, key: _Key
    ) -> None:
        super().__init__(request, peer, client, server)
        self._duplicates = duplicates
        self._key = key
        self._registered = False
        self._grace: asyncio.TimerHandle | None = None

    def join(self, request: Request, client: ClientId) -> None:
        """Go on for a repeat: what is to be told goes where that came from."""
        self._stay()
        if self._registered:
            super().ended()
        # All attempts together have the time of the first: its deadline stands. What is relayed is so already.
        if self.asked:
            self.request = msgspec.structs.replace(self.request, id=request.id)
        else:
            self.request = msgspec.structs.replace(request, timeout=self.request.timeout)
        self.client = client
        if self._registered:
            super().registered()

    def reply(self, packed: bytes) -> None:
        """See `Call.reply`."""
        packed = addressed(packed, self.request.id)  # it may have been packed for the attempt before
        self._duplicates.done(self._key, packed)
        super().reply(packed)

    def fail(self, error: OstlerError) -> None:
        """See `Call.fail`."""
        if not self.begun and not self._registered:
            self._duplicates.forget(self._key)  # refused: nothing was done
        elif self.asked and isinstance(error, (ConnectionLost, *_NOT_TAKEN)):
            self._duplicates.forget(self._key)  # a repeat is relayed as well: the other host knows what became of it
        else:
            self._duplicates.done(self._key, self.failure(error))
        super().fail(error)

    def accepted(self, reached: int) -> None:
        """See `Call.accepted`."""
        if reached:
            self._duplicates.done(self._key, self.acceptance(reached))
        else:
            self._duplicates.forget(self._key)
        super().accepted(reached)

    def registered(self) -> None:
        """See `Call.registered`."""
        self._registered = True
        super().registered()

    def ended(self) -> None:
        """See `Call.ended`."""
        self._registered = False
        self._stay()
        super().ended()

    def orphaned(self) -> None:
        """Go on for a while: the caller, who has gone, may come back on another connection."""
        self._stay()
        self._grace = asyncio.get_running_loop().call_later(self.server.keeping.grace, self._unclaimed)

    def _stay(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def _unclaimed(self) -> None:
        self._grace = None
        grace = self.server.keeping.grace
        why = f"{self.where} was cancelled: its caller had gone, and did not come back within {grace:g} s"
        self.server.cancel(self, CallCancelled(why, method=self.where))


def addressed(message: bytes, number: int) -> bytes:
    """Return an answer for the request with this number."""
    if peek(message)[2:] == [number]:
        return message
    answer: Any = decode_to_client(message)
    return encode_message(msgspec.structs.replace(answer, id=number))


def _no_room(request: Request, limit: int) -> Busy:
    return Busy(
        f"{request.topic}.{request.method} cannot be run once only: {limit} requests of others are known by their ids, "
        "and there is no room for more",
        hint="try again later, or send it without `retry`",
        retry_after=5.0,
        limit=limit,
    )


def _another(request: Request) -> Conflict:
    return Conflict(
        f"the request id {request.request_id} was used for another request before",
        hint="a request that is sent again has the same method and arguments as the first time",
        request_id=request.request_id,
        method=f"{request.topic}.{request.method}",
    )


def _not_kept(request: Request) -> AlreadyDone:
    return AlreadyDone(
        f"{request.topic}.{request.method} was done under the request id {request.request_id}, and its answer is not "
        "kept any more",
        hint="see what became of it; it was not run again",
        request_id=request.request_id,
        method=f"{request.topic}.{request.method}",
    )
