import asyncio

import pytest

from ostler.clock import FakeClock
from ostler.errors import MessageTooLarge, NotPermitted
from ostler.messaging import Access, Event, Gap, Publisher
from ostler.messaging.events import EventPattern, Subscription
from ostler.messaging.wire.envelope import Accepted, encode_message
from ostler.types import Peer
from support.links import FakePublisherLink

ROOT, STRANGER = Peer(0, 0, 1, "uid 0"), Peer(4242, 4242, 1, "uid 4242")


def standing(subscription):
    """Return a subscription that has been admitted."""
    question = subscription.prefixes[-1]
    assert subscription.receive(question + b"\0" + encode_message(Accepted(1, 0, 1))) == []
    return subscription


def make_publisher(post=lambda call: call(), **options):
    link, access, size = FakePublisherLink(), Access(own_uid=0), 1000
    publisher = Publisher(link, "here", FakeClock(), access, post, max_message_size=size, **options)
    publisher.start()
    return publisher


@pytest.fixture
def publisher():
    return make_publisher()


def test_a_subscriber_sees_what_was_published(publisher):
    publisher.publish("volume", "created", {"name": "a"})
    (event,) = standing(Subscription(["volume"])).receive(publisher.link.sent[0])
    assert event == Event("volume", "here", "created", {"name": "a"}, 1, publisher.epoch, 1_800_000_000.0)
    assert event.key == "volume.here.created"


def test_numbers_count_each_topic_by_itself(publisher):
    for topic in ("volume", "lamp", "volume"):
        publisher.publish(topic, "x")
    subscription = standing(Subscription([]))
    assert [subscription.receive(data)[0].sequence for data in publisher.link.sent] == [1, 1, 2]


@pytest.mark.parametrize(
    ("pattern", "prefix", "key", "fits"),
    [
        ("", b"", "volume.h.created", True),
        ("*", b"", "volume.h.created", True),
        ("volume", b"volume.", "volume.h.created", True),
        ("volume", b"volume.", "volumes.h.created", False),
        ("volume.", b"volume.", "volume.h.created", True),
        ("volume.h", b"volume.", "volume.h.created", True),
        ("volume.h", b"volume.", "volume.h2.created", False),
        ("volume.*.created", b"volume.", "volume.h.created", True),
        ("volume.*.created", b"volume.", "volume.h.deleted", False),
        ("volume.*.snap*", b"volume.", "volume.h.snapshot.created", True),
        ("vol*", b"vol", "volume.h.created", True),
        ("vol*.created", b"vol", "volume.h.created", True),
        ("*.created", b"", "volume.h.created", True),
        ("volume.h.created", b"volume.", "volume.h.created", True),
        ("a+b", b"a+b.", "aab.h.x", False),
    ],
)
def test_patterns(pattern, prefix, key, fits):
    topic, host, name = key.split(".", 2)
    found = EventPattern(pattern)
    assert found.prefix == prefix
    assert found.matches(Event(topic, host, name, None, 1, 1, 0.0)) is fits
    assert not fits or key.encode().startswith(prefix)


def test_a_gap_is_a_value_and_a_new_epoch_is_one_of_unknown_size(publisher):
    for number in range(5):
        publisher.publish("volume", "created", number)
    subscription = standing(Subscription(["volume"]))
    found = [item for index in (0, 3, 4) for item in subscription.receive(publisher.link.sent[index])]
    assert [item if isinstance(item, Gap) else item.sequence for item in found] == [
        1,
        Gap("volume", "here", 2, 3),
        4,
        5,
    ]
    clock = FakeClock()
    clock.advance(5)
    anew = Publisher(FakePublisherLink(), "here", clock, Access(), lambda call: call())
    anew.start()
    anew.publish("volume", "created")
    assert subscription.receive(anew.link.sent[0])[0] == Gap("volume", "here", 0, 0)


def test_a_gap_is_seen_even_when_the_event_after_it_is_not_wanted(publisher):
    for name in ("a", "b", "b"):
        publisher.publish("volume", name)
    subscription = standing(Subscription(["volume.*.a"]))
    assert len(subscription.receive(publisher.link.sent[0])) == 1
    assert subscription.receive(publisher.link.sent[2]) == [Gap("volume", "here", 2, 2)]


def test_who_has_no_role_is_refused_by_name_and_counted(caplog):
    told = []
    publisher = make_publisher(record_refusal=lambda peer, what, error: told.append((peer, what, error.message)))
    link = publisher.link
    assert link.admit(ROOT)
    assert not link.admit(STRANGER)
    assert not link.admit(STRANGER)
    assert [(peer, what) for peer, what, _ in told] == [(STRANGER, "subscribe")] * 2
    assert "uid 4242 has no role here" in told[0][2]
    subscription = Subscription(["volume"])
    question = subscription.prefixes[-1]
    with pytest.raises(NotPermitted, match="uid 4242 has no role here"):
        subscription.receive(question + b"\0" + link.answer(STRANGER, question)[-1])
    assert not subscription.is_admitted
    subscription.receive(b"!other\0" + link.answer(STRANGER, b"!other")[-1])
    subscription.receive(question + b"\0" + link.answer(ROOT, question)[-1])
    assert subscription.is_admitted
    assert publisher.stats() == {"published": 0, "refused": 2, "garbage": {}}
    assert len([record for record in caplog.records if "is not allowed to subscribe" in record.message]) == 1


@pytest.mark.parametrize(
    "data", [b"", b"volume.h.x", b"volume.h.x\0", b"volume.h.x\0\xc1", b"volume.h.x\0\x92\x02\x90", b"!"]
)
def test_garbage_is_counted_and_dropped(data):
    subscription = Subscription(["volume"])
    assert subscription.receive(data) == []
    assert subscription.invalid_messages <= 1


def test_an_event_that_is_too_large_is_refused_to_its_publisher(publisher):
    with pytest.raises(MessageTooLarge, match=r"the event volume\.here\.created"):
        publisher.publish("volume", "created", "x" * 2000)
    assert publisher.link.sent == []


async def test_other_threads_hand_over_to_the_loop():
    posted = []
    publisher = make_publisher(posted.append)
    await asyncio.to_thread(publisher.publish, "volume", "created")
    assert publisher.link.sent == []
    posted[0]()
    assert len(publisher.link.sent) == 1


def test_what_is_published_after_the_end_is_dropped(publisher):
    publisher.close()
    publisher.publish("volume", "created")
    assert publisher.link.sent == []
    assert publisher.link.closed == 1


def test_a_fanout_is_told_without_its_arguments(publisher):
    publisher.publish_fanout("volume", "refresh", "abc-1")
    (event,) = standing(Subscription(["fanout.volume"])).receive(publisher.link.sent[0])
    assert (event.topic, event.name, event.payload) == ("fanout.volume", "refresh", {"request_id": "abc-1"})
