from ostler.messaging.event_links import EventLinks


class End:
    """One publisher's end."""

    def __init__(self, address):
        self.address = address
        self.on_garbage = None
        self.subscribers = False
        self.sent = []
        self.started = 0
        self.closed = 0

    def start(self, admit, answer):
        self.started += 1

    def publish(self, data):
        self.sent.append(data)

    def disconnect_unless(self, allowed):
        self.allowed = allowed

    def close(self):
        self.closed += 1


def test_events_go_to_all_ends_those_that_come_later_included():
    here, there, later = End("here"), End("there"), End("later")
    links = EventLinks(here, there)
    links.on_garbage = told = print
    links.start(None, None)
    links.publish(b"1")
    links.add(later)
    links.publish(b"2")
    assert links.address == "here"
    assert [here.sent, there.sent, later.sent] == [[b"1", b"2"], [b"1", b"2"], [b"2"]]
    assert {end.on_garbage for end in (here, there, later)} == {told}
    assert later.started == 1
    assert not links.subscribers
    later.subscribers = True
    assert links.subscribers


def test_an_end_that_is_removed_is_closed_and_gets_nothing_more():
    here, there = End("here"), End("there")
    links = EventLinks(here, there)
    links.remove(there)
    links.publish(b"1")
    links.disconnect_unless(bool)
    assert here.allowed is bool
    links.close()
    assert (there.sent, there.closed, here.closed) == ([], 1, 1)
