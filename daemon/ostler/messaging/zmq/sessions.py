"""Who has proved to hold which key over which connection, and what that connection makes the daemon hold."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING

from ostler.messaging.shares import PeerShares, make_shares
from ostler.messaging.zmq.curve import KEY_LENGTH
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.memory_accounts import MemoryAccount
    from ostler.messaging.zmq.backlog import Backlog
    from ostler.messaging.zmq.connections import Connection, Traffic

CONGESTED = 1024 * 1024
"""Bytes that wait in ZeroMQ's queues for one connection, above which nothing more is made for it."""
CONNECTION_COST = 64 * 1024
"""Bytes that a connection is charged for itself, and for small messages that have not come whole."""
FRAME_LEAST, FRAME_MOST = 35, 42
"""Bytes that CURVE and framing add to a message on the wire, at least and at most. What is counted wrong because of
that is put right when it is looked how much waits: the other way round it would add up."""
_DRIFT = 200
"""Bytes a second that heartbeats may add to what was received, beside messages."""
_PEERS_LIMIT = 4096
_LAST_WORDS = 0.05
"""Seconds until a connection is cut whose peer has lost its role."""


class Session:
    """One connection that was let in. On the loop's thread only; `unsent` may be read on any.

    ZeroMQ does not say how much waits in its queues. The kernel says how much it has received and been given to send;
    what is missing of the messages that we have sent, and what there is beyond those that we have got, is in between.

    Args:
        number: Names it; no other has the same.
        peer: Whose key it has proved to hold.
        memory: Who is charged.
    """

    def __init__(self, number: int, peer: Peer, memory: MemoryAccount | None) -> None:
        self.number = number
        self.peer = peer
        self.account: Hashable = peer.account
        self.memory = memory
        self.connection: Connection | None = None
        self.confirmed = False
        """Whether a message has come that says which connection it is; until then it may be another one's."""
        self.closed = memory is None
        self.cut = False
        self.on_gone: Callable[[Session], None] = _nothing
        self.on_drained: Callable[[Session], None] = _nothing
        self.client: bytes | None = None
        """Its routing id."""
        self.backlog: Backlog | None = None
        """Where its messages wait for their turn."""
        self.queued = 0
        """Bytes that it is charged for messages that wait."""
        self.lap = 0
        """The pass of the reader in which something of this connection was left waiting last."""
        self.heard = 0
        """Bytes on the wire of the messages that have come."""
        self.sent = 0
        """Bytes on the wire of the messages that were sent."""
        self.sent_limit = CONGESTED
        """How much may be `sent` until it is looked how much of it waits."""
        self.unsent = 0
        self.congested = False
        self.looked_for = False
        """Whether it will be looked soon if it is congested still."""
        self.stalled_since: float | None = None
        self.prefixes: dict[bytes, int] = {}
        """What it has subscribed to, with what that is charged."""
        self._taken = 0
        self._taken_before = -1
        self._looked_at = 0.0
        self._charged_in = 0
        self._charged_out = 0

    def measure(self, traffic: Traffic) -> None:
        """Find out how much of what was sent waits, and charge it."""
        unsent = self.sent - (traffic.taken - self._taken)
        if unsent < 0:  # heartbeats and the handshake are no messages of ours
            self._taken -= unsent
            unsent = 0
        self.unsent = unsent
        self.sent_limit = self.sent - unsent + CONGESTED
        before, self.congested = self.congested, unsent > CONGESTED
        self._charged_out = self._charge(self._charged_out, unsent + traffic.waiting)
        if before and not self.congested:
            self.on_drained(self)

    def stalls(self, traffic: Traffic, now: float) -> float:
        """Return for how many seconds the other side has taken nothing of what waits for it."""
        moved = traffic.taken - traffic.waiting
        if not traffic.waiting or moved != self._taken_before:
            self.stalled_since = now
        self._taken_before = moved
        return now - self.stalled_since if self.stalled_since is not None else 0.0

    def measure_partial(self, traffic: Traffic, now: float) -> bool:
        """Find out how much has come of messages that are not here yet, and charge it; return whether there is room."""
        held = traffic.received - self.heard
        slack = int(_DRIFT * (now - self._looked_at)) if self._looked_at else CONNECTION_COST // 2
        self._looked_at = now
        if held > 0:
            self.heard += min(held, slack)
            held -= min(held, slack)
        else:
            self.heard, held = traffic.received, 0
        more = held - self._charged_in
        room = more <= 0 or self.memory is None or self.memory.room(more)
        self._charged_in = self._charge(self._charged_in, held)
        return room

    def charge(self, prefix: bytes, cost: int) -> None:
        """Charge a subscription, once."""
        if self.memory is not None and prefix not in self.prefixes:
            self.prefixes[prefix] = cost
            self.memory.add(cost)

    def uncharge(self, prefix: bytes) -> None:
        """Take back the charge of a subscription."""
        cost = self.prefixes.pop(prefix, 0)
        if self.memory is not None and cost:
            self.memory.release(cost)

    def release(self) -> None:
        """Give back what it was charged. May be called twice."""
        self.closed = True
        memory, self.memory = self.memory, None
        if memory is None:
            return
        memory.release(CONNECTION_COST + self._charged_in + self._charged_out + sum(self.prefixes.values()))
        self._charged_in = self._charged_out = 0
        self.prefixes.clear()
        memory.close()

    def end(self) -> None:
        """Cut the connection; what has come of it and was not handled yet is dropped."""
        self.cut = True
        if self.connection is not None:
            self.connection.shut_down()

    def _charge(self, before: int, now: int) -> int:
        if self.memory is None:
            return 0
        if now <= CONNECTION_COST:
            now = 0
        if now > before:
            self.memory.add(now - before)
        elif now < before:
            self.memory.release(before - now)
        return now


class Sessions:
    """The connections that were let in at one door. On the loop's thread only.

    Each gets a name of its own as its user id, so that each message says which connection it came over: the routing id
    is what its client wishes it to be. Which descriptor it has is not known when it is let in. It is taken to be the
    next one from that address that was told so, until its first message says which it is.

    Args:
        names: The names of public keys; others are shown by their first characters.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.shares: PeerShares = make_shares()
        self.of_key: Counter[str] = Counter()
        """How many connections each key has."""
        self._names = names
        self.by_user: dict[str, Session] = {}
        """The connections that stand, by their user ids."""
        self._pending: dict[str, deque[Session]] = {}
        self._known: dict[str, Peer] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self.by_user)

    def admit(self, key: str, address: str, *, privileged: bool) -> str:
        """Take in a connection that has proved a key; return its user id."""
        self._number += 1
        peer = self.peer_of(key)
        memory = self.shares.memory.open(peer.account, peer, privileged=privileged)
        memory.add(CONNECTION_COST)
        session = Session(self._number, peer, memory)
        user = f"{key}{self._number}"
        self.by_user[user] = session
        self.of_key[key] += 1
        self._pending.setdefault(address, deque()).append(session)
        return user

    def of(self, user: str) -> Session:
        """Return the session of a message; that of one that has gone is made anew, and closed."""
        found = self.by_user.get(user)
        if found is None:
            found = Session(0, self.peer_of(user[:KEY_LENGTH]) if len(user) > KEY_LENGTH else _NOBODY, None)
        return found

    def peer_of(self, key: str) -> Peer:
        """Return who has a key."""
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _PEERS_LIMIT:
                self._known.clear()
            found = self._known[key] = Peer(name=f"key:{self._names.get(key) or f'{key[:8]}…'}", key=key)
        return found

    def admitted(self, connection: Connection) -> None:
        """Take note of a connection that was told that it has been let in."""
        pending = self._pending.get(connection.address)
        if not pending or connection.session is not None:
            return
        session = pending.popleft()
        connection.session, session.connection = session, connection
        if session.cut:  # it lost its role meanwhile
            session.end()
        if not pending:
            del self._pending[connection.address]

    def confirm(self, session: Session, connection: Connection | None) -> None:
        """Take note of the connection that the first message of a session came over."""
        session.confirmed = True
        if connection is None or session.connection is connection:
            return
        other = connection.session
        if other is not None and other.confirmed:
            return  # the descriptor belongs to a later connection by now
        before = session.connection
        connection.session, session.connection = session, connection
        if before is not None:
            before.session = other
        else:
            self._found(connection.address, session, other)
        if other is not None:
            other.connection = before
        if session.cut:
            session.end()

    def _found(self, address: str, session: Session, other: Session | None) -> None:
        """Look no more for the connection of a session, but for that of the other one that it was taken for."""
        pending = self._pending.get(address)
        if pending is None or session not in pending:
            return
        if other is not None:
            pending[pending.index(session)] = other
        else:
            pending.remove(session)
        if not pending:
            del self._pending[address]

    def disconnected(self, connection: Connection, handshakes: int) -> None:
        """Forget a connection that has gone; `handshakes` are under way from its address."""
        session = connection.session
        if session is not None:
            self._forget(session)
            return
        pending = self._pending.get(connection.address)
        while pending and len(pending) > handshakes:
            self._forget(pending.popleft())
        if pending is not None and not pending:
            del self._pending[connection.address]

    def end_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """Cut the connections of peers that are not allowed any more."""
        for session in list(self.by_user.values()):
            if not allowed(session.peer):
                session.cut = True
                # What it was told last is in ZeroMQ's queues still.
                asyncio.get_running_loop().call_later(_LAST_WORDS, session.end)

    def _forget(self, session: Session) -> None:
        key = session.peer.key
        if self.by_user.pop(f"{key}{session.number}", None) is None:
            return
        self.of_key[key] -= 1
        if not self.of_key[key]:
            del self.of_key[key]
        session.on_gone(session)
        session.release()


def _nothing(_session: Session) -> None:
    """Stand in until somebody wants to be told."""


_NOBODY = Peer()
