"""Ends of a transport that are held by a test, for what no real transport can show on demand."""

from __future__ import annotations

from typing import Any

from ostler.messaging.wire.envelope import decode_to_client


class FakeServerLink:
    """A server's link whose clients are the test: what is sent to them stands in `sent`, decoded."""

    address = "fake"
    can_send_from_thread = False
    is_core_free = True

    def __init__(self) -> None:
        self.sent: list[tuple[object, Any]] = []
        self.gone: set[object] = set()
        self.closed = 0

    def start(self, receive):
        self.take = receive

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

    def start(self, admit, answer):
        self.admit, self.answer = admit, answer

    def publish(self, data):
        self.sent.append(data)

    def close(self):
        self.closed += 1
