import logging
import threading

import pytest
from msgspec.msgpack import Decoder

from ostler.clock import FakeClock, SystemClock
from ostler.config.core_sections import NotificationsSection
from ostler.errors import EncodeError, InvalidInput, NotFound
from ostler.messaging import Access, Context, Event, NotificationSink, Notifier, Publisher, serving
from ostler.messaging.events.notifications import Notifications
from support.links import FakePublisherLink

ONE_EVENT = Decoder(Event)
PRIORITIES = tuple(NotificationsSection.model_fields)


class Wire(FakePublisherLink):
    def events(self):
        return [ONE_EVENT.decode(data.partition(b"\0")[2][2:]) for data in self.sent]


class Sink(NotificationSink):
    """Keeps what it is told; `gate` holds it up."""

    def __init__(self):
        self.told = []
        self.opened = []
        self.closed = threading.Event()
        self.changed = threading.Condition()
        self.gate = threading.Event()
        self.gate.set()
        self.error = None

    def open(self, sections):
        self.opened.append(sections)

    def send(self, notification):
        self.gate.wait(10)
        with self.changed:
            self.told.append(notification)
            self.changed.notify_all()
        if self.error is not None:
            raise self.error

    def close(self):
        self.closed.set()

    def wait(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.told) >= count, 10)


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def hub(wire):
    publisher = Publisher(wire, "h", FakeClock(), Access(), lambda call: call())
    publisher.start()
    hub = Notifications(publisher, SystemClock(), {"mail": {"to": "ops"}})
    yield hub
    hub.close()


def test_each_priority_is_an_event_with_its_name_and_the_request(hub, wire):
    hub.configure({priority: ["events"] for priority in PRIORITIES}, {})
    notifier = hub.make_notifier("volume")
    with serving(context := Context("volume", "create", request_id="r-1")):
        context.trace = "00-1-2-01"
        for priority in PRIORITIES:
            getattr(notifier, priority)("create.end", {"name": "a"})
    notifier.info("create.end", ctx=Context("volume", "create", request_id="r-2"))
    events = wire.events()
    assert [event.priority for event in events] == [*PRIORITIES, "info"]
    assert {event.key for event in events} == {"volume.h.create.end"}
    assert {event.request_id for event in events[:-1]} == {"r-1"}
    assert events[0].trace == "00-1-2-01"
    assert events[-1].request_id == "r-2"


def test_the_configuration_chooses_who_hears_of_what(hub, wire, caplog):
    sink = Sink()
    hub.configure({"info": [], "error": ["log", "mine"], "audit": ["mine"], "debug": ["gone"]}, {"mine": lambda: sink})
    notifier = hub.make_notifier("volume")
    with caplog.at_level(logging.DEBUG):
        notifier.info("create.end")
        notifier.error("create.error", {"name": "a"})
        notifier.debug("nobody")
        notifier.audit("delete.end", [1], ctx=Context("volume", "delete", request_id="r-3"))
    sink.wait(2)
    assert wire.sent == []
    lines = [(record.levelname, record.message) for record in caplog.records if record.name == "ostler.notification"]
    assert lines == [("ERROR", 'error volume.create.error {"name":"a"}')]
    assert [(told.priority, told.event_type, told.payload, told.request_id) for told in sink.told] == [
        ("error", "create.error", {"name": "a"}, ""), ("audit", "delete.end", [1], "r-3"),
    ]  # fmt: skip
    assert sink.told[0].publisher_id == "volume.h"
    assert sink.opened == [{"mail": {"to": "ops"}}]
    hub.close()
    assert sink.closed.wait(10)


def test_a_sink_that_raises_goes_on_and_is_said_once(hub, caplog):
    sink = Sink()
    hub.configure({"info": ["mine"]}, {"mine": lambda: sink})
    sink.error = SystemExit(3)
    for number in range(3):
        hub.make_notifier("volume").info("x", number)
    sink.wait(3)
    sink.error = None
    hub.make_notifier("volume").info("x", 3)
    sink.wait(4)
    assert len([record for record in caplog.records if "sink mine failed" in record.message]) == 1


def test_a_sink_that_cannot_be_opened_is_tried_again(hub, caplog):
    sink, tries = Sink(), []

    def make():
        tries.append(1)
        if len(tries) < 3:
            raise NotFound("no mail server")
        return sink

    hub.configure({"info": ["mine"]}, {"mine": make})
    for number in range(5):
        hub.make_notifier("volume").info("x", number)
    sink.wait(1)
    assert "no mail server" in caplog.text


def test_a_sink_that_hangs_harms_nobody_and_what_it_loses_is_counted(hub, wire, caplog):
    sink, other = Sink(), Sink()
    hub.configure({"info": ["events", "hangs", "other"]}, {"hangs": lambda: sink, "other": lambda: other})
    sink.gate.clear()
    for number in range(1200):
        hub.make_notifier("volume").info("x", number)
        if number % 500 == 0:
            other.wait(number)
    other.wait(1000)
    assert len(wire.sent) == 1200
    stats = hub.stats()["hangs"]
    assert stats["dropped"] >= 199
    assert stats["waiting"] <= 1000
    assert len([record for record in caplog.records if "is too slow" in record.message]) == 1
    sink.gate.set()
    sink.wait(1000)


def test_a_payload_that_is_no_json_is_told_all_the_same(hub, wire, caplog):
    caplog.set_level(logging.INFO)
    hub.configure({"info": ["events", "log"]}, {})
    hub.make_notifier("volume").info("moved", {("a", 1): "b"})
    assert "info volume.moved {('a', 1): 'b'}" in caplog.text
    assert len(wire.sent) == 1


def test_what_is_no_notification_is_an_error_at_the_door(hub, wire):
    sink = Sink()
    hub.configure({"info": ["events", "mine"]}, {"mine": lambda: sink})
    with pytest.raises(InvalidInput):
        hub.make_notifier("volume").info("two words")
    with pytest.raises(EncodeError, match="notification x of volume"):
        hub.make_notifier("volume").info("x", object())
    with pytest.raises(EncodeError):
        hub.make_notifier("volume").error("x", object())
    assert wire.sent == []
    assert sink.told == []


def test_a_notifier_without_a_hub_tells_nobody():
    # Passing is the assertion: it does not raise, and there is nobody to be told.
    Notifier().info("x", object())
