"""Connections that were accepted and wait for their user's turn."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Hashable
from time import monotonic

from ostler.aio.round_robin import NORMAL_RANK, DeficitRoundRobin
from ostler.types import Peer

OpenConnection = Callable[[socket.socket, Peer], None]


class AcceptQueue:
    """The accepted connections of all users, opened in turn with what else each of them wants.

    To open a connection costs ten times what it costs to accept it. Who connects a thousand times at once has its own
    connections wait, and not those that stand behind them in the kernel's queue.

    Args:
        scheduler: Who is served when.
        open_connection: Opens a connection, or refuses it.
    """

    def __init__(self, scheduler: DeficitRoundRobin, open_connection: OpenConnection) -> None:
        self._scheduler = scheduler
        self._open_connection = open_connection
        self._queues: dict[Hashable, _AccountQueue] = {}

    def __len__(self) -> int:
        return sum(len(flow.waiting) for flow in self._queues.values())

    def add(self, connected: socket.socket, peer: Peer) -> None:
        """Open a connection at once when nobody waits, else when it is the turn of its user."""
        flow = self._queues.get(peer.account)
        if flow is None:
            flow = self._queues[peer.account] = _AccountQueue(peer.account, self._open_connection, self._forget)
        flow.waiting.append((connected, peer))
        self._scheduler.run_or_queue(flow)

    def close(self) -> None:
        """Close those that wait."""
        for flow in list(self._queues.values()):
            self._scheduler.remove(flow)
            for connected, _ in flow.waiting:
                connected.close()
        self._queues.clear()

    def _forget(self, account: Hashable) -> None:
        self._queues.pop(account, None)


class _AccountQueue:
    """The connections of one user; see `Flow`."""

    rank = NORMAL_RANK

    def __init__(
        self, account: Hashable, open_connection: OpenConnection, on_empty: Callable[[Hashable], None]
    ) -> None:
        self.account = account
        self.waiting: deque[tuple[socket.socket, Peer]] = deque()
        self._open_connection = open_connection
        self._on_empty = on_empty

    def run(self, until: float) -> bool:
        """Open connections until this moment; return whether there are more."""
        while self.waiting:
            self._open_connection(*self.waiting.popleft())
            if monotonic() >= until and self.waiting:
                return True
        self._on_empty(self.account)
        return False
