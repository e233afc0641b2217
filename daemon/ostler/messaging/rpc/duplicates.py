"""Requests that may come again: each is run once, and its answer is kept for a while.

Who sends a request with the flag `RETRY` may send it again under the same `request_id`, on another connection too. A
repeat is answered with what the first came to; while that is still under way, the repeat takes its place, and progress
and answer go where it came from. An id says nothing across peers: nobody gets the answers of somebody else.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ostler.errors import AlreadyDone, CallCancelled, Conflict, OstlerError
from ostler.messaging.envelope import CAST, FANOUT, Request, decode_to_client, encode_message, peek
from ostler.messaging.rpc.server import RpcServer, WireCall
from ostler.messaging.rpc.sweeper import Sweeper
from ostler.messaging.transport import ClientId
from ostler.types import Peer

_IDS_PER_ANSWER = 10
"""Ids are kept longer than answers: a repeat that comes late is refused, and not run again."""
_SHARE = 4
"""An answer that takes more than this part of the room is not kept."""

_Key = tuple[object, str]


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
    bytes and age.

    Args:
        server: Whose requests these are; its `keeping` says how much is kept.
    """

    def __init__(self, server: RpcServer) -> None:
        self.answered = 0
        self.joined = 0
        self._server = server
        self._entries: dict[_Key, _Entry] = {}
        # Both in the order in which their requests were done.
        self._done: dict[_Key, None] = {}
        self._answers: dict[_Key, int] = {}
        self._size = 0
        self._sweeper = Sweeper(server.clock, self._sweep)

    def stats(self) -> dict[str, int]:
        """Return the counters: ids, requests under way, answers kept and their bytes; repeats answered, joined."""
        return {
            "ids": len(self._entries),
            "under_way": len(self._entries) - len(self._done),
            "answers": len(self._answers),
            "bytes": self._size,
            "answered": self.answered,
            "joined": self.joined,
        }

    def receive(self, request: Request, peer: Peer, client: ClientId) -> WireCall | None:
        """Answer a request that was here before; return the call of one that is new, which is to be dispatched."""
        if not self._server.link.admission.knows(peer):
            return WireCall(request, peer, client, self._server)  # refused, whatever it may have been answered before
        key = (peer.key or peer.uid, request.request_id)
        print_ = hash((request.topic, request.method, bytes(request.arguments), request.flags & (CAST | FANOUT)))
        entry = self._entries.get(key)
        if entry is None:
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
        self._done[key] = None
        if len(answer) * _SHARE <= self._server.keeping.size:
            entry.answer = answer
            self._answers[key] = len(answer)
            self._size += len(answer)
        self._trim()
        self._sweeper.wanted(now + self._server.keeping.age)

    def close(self) -> None:
        """Sweep no more."""
        self._sweeper.cancel()

    def _trim(self) -> None:
        keeping = self._server.keeping
        while self._answers and (len(self._answers) > keeping.answers or self._size > keeping.size):
            key = next(iter(self._answers))
            self._size -= self._answers.pop(key)
            self._entries[key].answer = None
        while len(self._done) > keeping.answers * _IDS_PER_ANSWER:
            self._drop(next(iter(self._done)))

    def _sweep(self, now: float) -> float | None:
        while self._done:
            key = next(iter(self._done))
            due = self._entries[key].done_at + self._server.keeping.age
            if due > now:
                return due
            self._drop(key)
        return None

    def _drop(self, key: _Key) -> None:
        del self._done[key], self._entries[key]
        self._size -= self._answers.pop(key, 0)


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
        # All attempts together have the time of the first: its deadline stands.
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
