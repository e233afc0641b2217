"""What has come of one key and waits for its turn: ZeroMQ has one queue for all, so each gets one of its own here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from time import monotonic
from typing import TYPE_CHECKING

from ostler.aio.round_robin import FIRST, NORMAL, DeficitRoundRobin

if TYPE_CHECKING:
    from ostler.messaging.zmq.sessions import Session

_MOST = 4000
"""Messages of one key that wait at most."""
_COST = 256
"""Bytes that a message which waits is charged beside its own."""

Handle = Callable[["Session", bytes], None]


class Backlog:
    """The messages of one account that wait: a flow. On the loop's thread only.

    Args:
        session: A connection of the account.
        turns: Whose turn it is.
        handle: Handles one message; must not raise.
        privileged: Whether the account is served before others.
    """

    def __init__(self, session: Session, turns: DeficitRoundRobin, handle: Handle, *, privileged: bool) -> None:
        self.account: Hashable = session.account
        self.rank = FIRST if privileged else NORMAL
        self._turns = turns
        self._handle = handle
        self._next: tuple[Session, bytes] | None = None
        self.waiting: deque[tuple[Session, bytes]] = deque()

    def put(self, session: Session, data: bytes) -> bool:
        """Have a message handled at once, or when it is its turn; return False when there is no room for it to wait."""
        if self.waiting:
            return self._keep(session, data)
        self._next = (session, data)
        if self._turns.work(self) and self._next is not None:
            self._next = None
            return self._keep(session, data)
        return True

    def run(self, until: float) -> bool:
        """See `Flow`."""
        if self._next is not None:
            (session, data), self._next = self._next, None
            self._handle(session, data)
        waiting = self.waiting
        while waiting and monotonic() < until:
            session, data = waiting.popleft()
            if session.memory is None:
                continue  # it has gone: nobody waits for the answer
            session.queued -= len(data) + _COST
            session.memory.release(len(data) + _COST)
            self._handle(session, data)
        return bool(waiting)

    def set_rank(self, *, privileged: bool) -> None:
        """Serve it before others, or no more."""
        rank = FIRST if privileged else NORMAL
        if rank != self.rank:
            self._turns.remove(self)
            self.rank = rank
            if self.waiting:
                self._turns.queue(self)

    def drop(self, session: Session) -> None:
        """Take back what a connection that has gone was charged for what waits of it, and is dropped in its turn."""
        queued, session.queued = session.queued, 0
        if queued and session.memory is not None:
            session.memory.release(queued)

    def _keep(self, session: Session, data: bytes) -> bool:
        memory = session.memory
        if memory is None or len(self.waiting) >= _MOST or not memory.room(len(data) + _COST):
            return False
        session.queued += len(data) + _COST
        memory.add(len(data) + _COST)
        self.waiting.append((session, data))
        return True
