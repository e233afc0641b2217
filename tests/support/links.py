"""Ends of a transport that are held by a test, for what no real transport can show on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ostler.errors import OstlerError
from ostler.messaging.wire.envelope import decode_to_client
from ostler.messaging.wire.transport import ALLOW_ALL, Admission
from ostler.types import Peer


class RecordingHandler:
    """The handler of a server's link, of calls or of events: keeps what it is told, and hands messages to `receive`."""

    def __init__(
        self,
        receive: Callable[[Any, Any, Peer], object] = lambda client, data, peer: None,
        admission: Admission = ALLOW_ALL,
        answer: Callable[[Peer, bytes], list[bytes]] = lambda peer, question: [],
    ) -> None:
        self.receive = receive
        self.admission = admission
        self.answer_question = answer
        self.on_unbuffered: Callable[[Any, bytes, Peer], object] = lambda *what: self.unbuffered.append(what)
        self.invalid: list[str] = []
        self.refused: list[tuple[Peer, OstlerError]] = []
        self.gone: list[Any] = []
        self.drained: list[Any] = []
        self.unbuffered: list[tuple[Any, bytes, Peer]] = []

    def on_message(self, client, data, peer):
        self.receive(client, data, peer)

    def on_batch_end(self):
        pass

    def on_invalid_message(self, peer, reason, description):
        self.invalid.append(reason)

    def on_refused(self, peer, error):
        self.refused.append((peer, error))

    def on_client_gone(self, client):
        self.gone.append(client)

    def on_client_drained(self, client):
        self.drained.append(client)

    def can_spin(self):
        return True

    def may_subscribe(self, peer):
        return True


class FakeServerLink:
    """A server's link whose clients are the test: what is sent to them stands in `sent`, decoded."""

    address = "fake"
    can_send_from_thread = False
    is_core_free = True

    def __init__(self) -> None:
        self.sent: list[tuple[object, Any]] = []
        self.gone: set[object] = set()
        self.closed = 0

    def start(self, handler):
        self.take = handler.on_message

    def send(self, client, data):
        if client in self.gone:
            return False
        self.sent.append((client, decode_to_client(data)))
        return True

    def is_congested(self, client):
        return False

    def memory_account(self, client):
        return None

    def report_invalid(self, client):
        pass

    def cork(self):
        pass

    def uncork(self):
        pass

    def close(self):
        self.closed += 1


class FakePublisherLink:
    """A publisher's link that keeps what is published, in `sent`."""

    address = "fake"
    has_subscribers = False

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = 0

    def start(self, handler):
        self.admit, self.answer = handler.may_subscribe, handler.answer_question

    def publish(self, data):
        self.sent.append(data)

    def close(self):
        self.closed += 1
