from __future__ import annotations

import asyncio

from ostler.clock import SystemClock
from ostler.messaging import Access, Publisher
from ostler.messaging.events.async_event_stream import AsyncEventStream
from ostler.messaging.events.local_event_link import LocalEventLink
from ostler.messaging.events.subscription import Subscription


def publisher_on(link):
    made = Publisher(link, "node1", SystemClock(), Access(own_uid=0), asyncio.get_running_loop().call_soon_threadsafe)
    made.start()
    return made


def stream_of(link, *patterns, **options):
    return AsyncEventStream(link, Subscription(patterns), lambda _stream: None, **options)


async def test_a_subscriber_sees_what_it_asked_for_and_where_it_is():
    link = LocalEventLink()
    publisher = publisher_on(link)
    assert not link.has_subscribers
    async with stream_of(link, "lamp.*.on") as stream:
        assert link.has_subscribers
        for topic, name in (("lamp", "on"), ("volume", "on"), ("lamp", "off")):
            publisher.publish(topic, name, 1)
        assert stream.positions() == []  # one waits
        assert (await anext(stream)).key == "lamp.node1.on"
        assert [(place.topic, place.sequence) for place in stream.positions()] == [("lamp", 2)]
    assert not link.has_subscribers


async def test_what_is_too_much_for_one_is_a_gap_for_it_alone():
    link = LocalEventLink()
    publisher = publisher_on(link)
    async with stream_of(link, "lamp", max_waiting_events=2) as slow, stream_of(link, "lamp") as fast:
        for number in range(5):
            publisher.publish("lamp", "on", number)
        assert slow.waiting_count == 2
        assert [(await anext(fast)).payload for _ in range(5)] == [0, 1, 2, 3, 4]
        assert [(await anext(slow)).payload for _ in range(2)] == [0, 1]
        publisher.publish("lamp", "on", 5)
        gap = await anext(slow)
        assert (gap.first, gap.last) == (3, 5)


async def test_a_closed_publisher_has_no_subscribers():
    link = LocalEventLink()
    publisher = publisher_on(link)
    await stream_of(link, "lamp")
    publisher.close()
    assert not link.has_subscribers
