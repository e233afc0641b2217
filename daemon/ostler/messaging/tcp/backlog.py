"""The messages of one key that wait for their turn: ZeroMQ has one queue for all, so each gets one of its own here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from time import monotonic
from typing import TYPE_CHECKING

from ostler.aio.round_robin import HIGH_RANK, NORMAL_RANK, DeficitRoundRobin

if TYPE_CHECKING:
    from ostler.messaging.tcp.sessions import TcpSession

_MAX_MESSAGES = 4000
"""Messages of one key that wait at most."""
_MESSAGE_OVERHEAD = 256
"""Bytes that a message which waits is charged beside its own."""

MessageHandler = Callable[["TcpSession", bytes], None]


class Backlog:
    """The messages of one account that wait: a flow. On the loop's thread only.

    Args:
        session: A connection of the account.
        scheduler: Whose turn it is.
        handle: Handles one message; must not raise.
        privileged: Whether the account is served before others.
    """

    def __init__(
        self, session: TcpSession, scheduler: DeficitRoundRobin, handle: MessageHandler, *, privileged: bool
    ) -> None:
        self.account: Hashable = session.account
        self.rank = HIGH_RANK if privileged else NORMAL_RANK
        self._scheduler = scheduler
        self._handle = handle
        self._next: tuple[TcpSession, bytes] | None = None
        self.messages: deque[tuple[TcpSession, bytes]] = deque()

    def enqueue(self, session: TcpSession, data: bytes) -> bool:
        """Have a message handled at once, or when it is its turn; return False when there is no room for it to wait."""
        if self.messages:
            return self._store(session, data)
        self._next = (session, data)
        if self._scheduler.run_or_queue(self) and self._next is not None:
            self._next = None
            return self._store(session, data)
        return True

    def run(self, until: float) -> bool:
        """See `Flow`."""
        if self._next is not None:
            (session, data), self._next = self._next, None
            self._handle(session, data)
        waiting = self.messages
        while waiting and monotonic() < until:
            session, data = waiting.popleft()
            if session.memory is None:
                continue  # it has gone: nobody waits for the answer
            session.queued_bytes -= len(data) + _MESSAGE_OVERHEAD
            session.memory.release(len(data) + _MESSAGE_OVERHEAD)
            self._handle(session, data)
        return bool(waiting)

    def set_rank(self, *, privileged: bool) -> None:
        """Serve it before others, or no more."""
        rank = HIGH_RANK if privileged else NORMAL_RANK
        if rank != self.rank:
            self._scheduler.remove(self)
            self.rank = rank
            if self.messages:
                self._scheduler.enqueue(self)

    def drop(self, session: TcpSession) -> None:
        """Take back what a connection that has gone was charged for what waits of it, and is dropped in its turn."""
        queued, session.queued_bytes = session.queued_bytes, 0
        if queued and session.memory is not None:
            session.memory.release(queued)

    def _store(self, session: TcpSession, data: bytes) -> bool:
        memory = session.memory
        if memory is None or len(self.messages) >= _MAX_MESSAGES or not memory.has_room(len(data) + _MESSAGE_OVERHEAD):
            return False
        session.queued_bytes += len(data) + _MESSAGE_OVERHEAD
        memory.charge(len(data) + _MESSAGE_OVERHEAD)
        self.messages.append((session, data))
        return True
