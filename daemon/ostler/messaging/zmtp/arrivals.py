"""Connections that were accepted and wait for their user's turn."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Hashable
from time import monotonic

from ostler.aio.round_robin import NORMAL, DeficitRoundRobin
from ostler.types import Peer

TakeIn = Callable[[socket.socket, Peer], None]


class Arrivals:
    """The accepted connections of all users, opened in turn with what else each of them wants.

    To open a connection costs ten times what it costs to accept it. Who connects a thousand times at once has its own
    connections wait, and not those that stand behind them in the kernel's queue.

    Args:
        turns: Who is served when.
        take_in: Opens a connection, or refuses it.
    """

    def __init__(self, turns: DeficitRoundRobin, take_in: TakeIn) -> None:
        self._turns = turns
        self._take_in = take_in
        self._flows: dict[Hashable, _Arriving] = {}

    def __len__(self) -> int:
        return sum(len(flow.waiting) for flow in self._flows.values())

    def add(self, connected: socket.socket, peer: Peer) -> None:
        """Open a connection at once when nobody waits, else when it is the turn of its user."""
        flow = self._flows.get(peer.account)
        if flow is None:
            flow = self._flows[peer.account] = _Arriving(peer.account, self._take_in, self._forget)
        flow.waiting.append((connected, peer))
        self._turns.work(flow)

    def close(self) -> None:
        """Close those that wait."""
        for flow in list(self._flows.values()):
            self._turns.remove(flow)
            for connected, _ in flow.waiting:
                connected.close()
        self._flows.clear()

    def _forget(self, account: Hashable) -> None:
        self._flows.pop(account, None)


class _Arriving:
    """The connections of one user; see `Flow`."""

    rank = NORMAL

    def __init__(self, account: Hashable, take_in: TakeIn, on_empty: Callable[[Hashable], None]) -> None:
        self.account = account
        self.waiting: deque[tuple[socket.socket, Peer]] = deque()
        self._take_in = take_in
        self._on_empty = on_empty

    def run(self, until: float) -> bool:
        """Open connections until this moment; return whether there are more."""
        while self.waiting:
            self._take_in(*self.waiting.popleft())
            if monotonic() >= until and self.waiting:
                return True
        self._on_empty(self.account)
        return False
