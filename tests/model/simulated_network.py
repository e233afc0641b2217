"""Links between hosts in one process that a test can cut, or silence, in one direction."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from ostler.errors import ConnectionLost, DaemonNotRunning
from ostler.testing.memory_transport import MemoryTransport
from ostler.types import Peer

HEARTBEAT_TIMEOUT = 4.0
"""Seconds after which a silent connection is given up; the default of `heartbeat_timeout` in [network]."""


class SimulatedNetwork:
    """Who can connect to whom. `blocked` and `silent` hold pairs of the connecting host and the one that listens."""

    def __init__(self):
        self.blocked: set[tuple[str, str]] = set()
        self.silent: set[tuple[str, str]] = set()
        self._connections: dict[tuple[str, str], set[SimulatedConnection]] = defaultdict(set)

    def transport(self, source: str, target: str, listener: MemoryTransport, key: str) -> LinkTransport:
        peer = Peer(name=f"key:{source}", key=key)
        return LinkTransport(self, (source, target), listener.as_peer(peer))

    def cut(self, pair: tuple[str, str]) -> None:
        """End what is open, and refuse what is new."""
        self.blocked.add(pair)
        self.lose(pair, "the link was cut")

    def lose(self, pair: tuple[str, str], why: str) -> None:
        """End what is open; what is new may come about."""
        for connection in list(self._connections[pair]):
            connection.lose(why)

    def heartbeat_timeout(self, pair: tuple[str, str]) -> None:
        """Deliver nothing any more; who is at the ends finds out after `SILENCE`."""
        self.silent.add(pair)
        for connection in list(self._connections[pair]):
            connection.expire_if_silent()

    def restore(self, pair: tuple[str, str]) -> None:
        self.blocked.discard(pair)
        self.silent.discard(pair)
        for connection in list(self._connections[pair]):
            connection.flush()

    def add(self, pair, connection):
        self._connections[pair].add(connection)

    def remove(self, pair, connection):
        self._connections[pair].discard(connection)


class LinkTransport:
    """The transport from one host to another; opens connections for calls only."""

    def __init__(self, network: SimulatedNetwork, pair: tuple[str, str], transport: MemoryTransport):
        self._network, self._pair, self._transport = network, pair, transport
        self.peer, self.limits = transport.peer, transport.limits

    def connect_async(self, on_message, on_lost):
        if self._pair in self._network.blocked:
            raise DaemonNotRunning(f"{self._pair[1]} cannot be connected to", hint="mend the link")
        return SimulatedConnection(self._network, self._pair, self._transport, on_message, on_lost)

    def close(self):
        pass


class SimulatedConnection:
    """One connection; what is sent while it is silent arrives when it is mended in time, and never otherwise."""

    def __init__(self, network, pair, transport, on_message, on_lost):
        self._network, self._pair = network, pair
        self._on_message, self._on_lost = on_message, on_lost
        self._waiting = []
        self._ended = False
        self._expiry = None
        self._inner = transport.connect_async(self._received, self._end)
        network.add(pair, self)
        if pair in network.silent:
            self.expire_if_silent()

    @property
    def _silent(self):
        return self._pair in self._network.silent

    def send(self, data, longest=None):
        if self._ended:
            raise ConnectionLost("the connection has ended")
        if self._silent:
            self._waiting.append((self._inner.send, bytes(data)))
        else:
            self._inner.send(data)

    def _received(self, data):
        if self._ended:
            return
        if self._silent:
            self._waiting.append((self._on_message, data))
        else:
            self._on_message(data)

    def flush(self):
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        waiting, self._waiting = self._waiting, []
        for deliver, data in waiting:
            if not self._ended:
                deliver(data)

    def expire_if_silent(self):
        if self._expiry is None and not self._ended:
            self._expiry = asyncio.get_running_loop().call_later(
                HEARTBEAT_TIMEOUT, self.lose, "nothing was heard on the link"
            )

    def lose(self, why):
        self._inner.close()
        self._end(ConnectionLost(why))

    def _end(self, error):
        if not self._finish():
            self._on_lost(error)

    def _finish(self):
        ended, self._ended = self._ended, True
        self._network.remove(self._pair, self)
        self._waiting.clear()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        return ended

    def is_alive(self):
        return not self._ended

    def close(self):
        self._finish()
        self._inner.close()

    def close_after_fork(self):
        self._finish()
        self._inner.close_after_fork()
