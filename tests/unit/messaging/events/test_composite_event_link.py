from ostler.messaging.events.event_publisher import CompositeEventLink
from support.links import RecordingHandler


class End:
    """One publisher's end."""

    def __init__(self, address):
        self.address = address
        self.has_subscribers = False
        self.sent = []
        self.started_with = []
        self.closed = 0

    def start(self, handler):
        self.started_with.append(handler)

    def publish(self, data):
        self.sent.append(data)

    def disconnect_unless(self, allowed):
        self.allowed = allowed

    def close(self):
        self.closed += 1


def test_events_go_to_all_ends():
    here, there = End("here"), End("there")
    links = CompositeEventLink(here, there)
    handler = RecordingHandler()
    links.start(handler)
    links.publish(b"1")
    assert links.address == "here"
    assert [here.sent, there.sent] == [[b"1"], [b"1"]]
    assert [here.started_with, there.started_with] == [[handler], [handler]]
    assert not links.has_subscribers
    there.has_subscribers = True
    assert links.has_subscribers


def test_peers_are_cut_and_closed_at_all_ends():
    here, there = End("here"), End("there")
    links = CompositeEventLink(here, there)
    links.disconnect_unless(bool)
    assert (here.allowed, there.allowed) == (bool, bool)
    links.close()
    assert (here.closed, there.closed) == (1, 1)
