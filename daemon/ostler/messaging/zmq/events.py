"""The publisher's end of events: an XPUB that looks at each subscription."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq

from ostler.messaging.transport import CONTROL_PREFIX, EVERYBODY, OnGarbage, ignore_garbage
from ostler.messaging.zmq.drain import Drain
from ostler.messaging.zmq.listen import Entrance, Listening
from ostler.messaging.zmq.options import NOBLOCK
from ostler.messaging.zmq.standing import Standing
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.zmq.options import Context

_log = logging.getLogger(__name__)
_EVENTS = int(zmq.EVENTS)
_PREFIX_LIMIT = 512
_LOOK_EVERY = 16
"""After so many events ZeroMQ is made to look how much its subscribers have read."""


class XPubLink:
    """The publisher's end of all its subscribers.

    With XPUB_MANUAL a subscription counts only when we say so, and for the connection it came from.

    Args:
        context: The ZeroMQ context.
        address: Where to listen.
        how: How to.

    Raises:
        OstlerError: The address cannot be taken; see `Entrance`.
    """

    def __init__(self, context: Context, address: str, how: Listening) -> None:
        self.on_garbage: OnGarbage = ignore_garbage
        self.admission = EVERYBODY
        self._socket = context.socket(zmq.XPUB)
        self._closed = False
        self._drain: Drain | None = None
        self._admit: Callable[[Peer], bool] | None = None
        self._answer: Callable[[Peer, bytes], list[bytes]] | None = None
        self._subscribed: Counter[bytes] = Counter()
        self._refused: Counter[bytes] = Counter()
        self._sent = 0
        # The method of the base class without the conveniences on top of it: this runs for each event.
        self._send: Callable[..., Any] = partial(zmq.backend.Socket.send, self._socket)
        self._get: Callable[[int], Any] = partial(zmq.backend.Socket.get, self._socket)
        try:
            self._socket.set(zmq.XPUB_MANUAL, 1)
            self.entrance = Entrance(self._socket, address, how)
        except BaseException:
            self._socket.close(linger=0)
            raise
        self._standing = Standing()
        self.address = self.entrance.address
        self._peers = self.entrance.peers

    @property
    def subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return bool(self._subscribed)

    def start(self, admit: Callable[[Peer], bool], answer: Callable[[Peer, bytes], list[bytes]]) -> None:
        """See `EventLink.start`."""
        self._admit, self._answer = admit, answer
        self._drain = Drain(self._socket, self._take)

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        if self._closed:
            return
        self._sent += 1
        if not self._sent % _LOOK_EVERY:
            # ZeroMQ looks only now and then how much its subscribers have read, and would drop what they have room for.
            self._get(_EVENTS)
        self._send(data, NOBLOCK)  # a subscriber that does not read loses it; XPUB never says Again
        if self._drain is not None:
            self._drain.after_send()

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.disconnect_unless`."""
        self._standing.keep_only(allowed)

    def close(self) -> None:
        """See `EventLink.close`."""
        if self._closed:
            return
        self._closed = True
        self.entrance.close()
        if self._drain is not None:
            self._drain.close()
        self._socket.close()

    def _take(self) -> None:
        frame = self._socket.recv(NOBLOCK, copy=False)
        data = frame.bytes
        try:
            self._subscription(data[:1], data[1:], frame)
        except Exception:  # noqa: BLE001 - a defect of ours must not take the publisher down
            _log.exception("a subscription could not be handled")

    def _subscription(self, verb: bytes, prefix: bytes, frame: zmq.Frame) -> None:
        if verb == b"\0":
            self._socket.set(zmq.UNSUBSCRIBE, prefix)
            self._unsubscribed(prefix)
            return
        peer = self._peers.of(frame)
        if verb != b"\1":
            self.on_garbage(peer, "kind" if verb else "empty", f"{len(prefix) + len(verb)} bytes")
            return
        if len(prefix) > _PREFIX_LIMIT:
            self.on_garbage(peer, "large", f"a subscription of {len(prefix)} bytes, the limit is {_PREFIX_LIMIT}")
            return
        if self._admit is None or self._answer is None:
            return
        if prefix.startswith(CONTROL_PREFIX):
            # Only the one who asked is subscribed to this key, and only for this one answer.
            self._socket.set(zmq.SUBSCRIBE, prefix)
            for part in self._answer(peer, prefix):
                self._send(prefix + b"\0" + part, NOBLOCK)
            self._socket.set(zmq.UNSUBSCRIBE, prefix)
        elif self._admit(peer):
            self._socket.set(zmq.SUBSCRIBE, prefix)
            self._subscribed[prefix] += 1
            self._standing.note(frame.get(zmq.SRCFD), peer)
        else:
            self._refused[prefix] += 1

    def _unsubscribed(self, prefix: bytes) -> None:
        """Take note that one has gone: one of those that were refused, as long as there may be one."""
        counts = self._refused if prefix in self._refused else self._subscribed
        counts[prefix] -= 1
        if counts[prefix] <= 0:
            del counts[prefix]
