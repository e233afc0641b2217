"""What both event streams give their readers, in which order, and when the journal is asked."""

import pytest

from ostler.errors import NotFound
from ostler.messaging.events import Event, Gap, JournalPage, Subscription, Watermark
from ostler.messaging.events.event import JOURNALED, WATERMARKS, JournalStart, encoder
from ostler.messaging.events.subscription import EventFeed, make_subscription
from ostler.messaging.wire.envelope import PROTOCOL_VERSION, Accepted, encode_message


def event(number):
    return Event("volume", "h", "x", None, number, 1, 0.0, "", "", "", JOURNALED)


def live(feed, *numbers):
    for number in numbers:
        feed.receive(event(number).key.encode() + b"\0" + encoder.encode((PROTOCOL_VERSION, event(number))))


def admitted(feed, last):
    key = feed.subscription.prefixes[-1] + b"\0"
    feed.receive(key + encoder.encode((WATERMARKS, PROTOCOL_VERSION, [Watermark("volume", "h", last, 1, JOURNALED)])))
    feed.receive(key + encode_message(Accepted(PROTOCOL_VERSION, 0, 1)))
    return feed


def page(*numbers, more=False):
    return JournalPage(
        [JournalStart("volume", "h", numbers[0] - 1, numbers[-1], False)], list(map(event, numbers)), more
    )


def numbers(feed):
    found = []
    while (item := feed.pop()) is not None:
        found.append((item.first, item.last) if isinstance(item, Gap) else item.sequence)
    return found


def test_live_events_come_in_their_order_and_nobody_is_asked():
    feed = admitted(EventFeed(Subscription(["volume"])), 4)
    live(feed, 5, 6)
    assert feed.waiting_count == 2
    assert feed.next_request() is None
    assert numbers(feed) == [5, 6]
    assert feed.waiting_count == 0


def test_the_journal_comes_before_what_is_live():
    subscription, replay = make_subscription(["volume"], event(2), last=False)
    feed = admitted(EventFeed(subscription, replay), 3)
    live(feed, 4)
    assert feed.pop() is None
    assert feed.next_request()[0] == "events_since"
    feed.apply_reply(page(3))
    assert numbers(feed) == [3, 4]
    assert feed.next_request() is None


def test_who_began_with_the_journal_is_told_that_it_cannot_be_asked():
    subscription, replay = make_subscription(["volume"], event(2), last=False)
    feed = admitted(EventFeed(subscription, replay), 3)
    assert feed.next_request() is not None
    with pytest.raises(NotFound):
        feed.apply_error(NotFound("gone"))
    assert feed.next_request() is not None


def test_the_events_of_a_gap_are_fetched_before_what_came_after_it():
    feed = admitted(EventFeed(Subscription(["volume"]), refetch=True), 1)
    live(feed, 2, 5, 6)
    assert feed.pop().sequence == 2
    assert feed.pop() is None
    assert feed.next_request()[1]["limit"] == 2
    feed.apply_reply(page(3, 4))
    assert numbers(feed) == [3, 4, 5, 6]


def test_a_gap_that_cannot_be_filled_is_seen():
    feed = admitted(EventFeed(Subscription(["volume"]), refetch=True), 1)
    live(feed, 4)
    assert feed.pop() is None
    assert feed.next_request() is not None
    feed.apply_error(NotFound("gone"))
    assert numbers(feed) == [(2, 3), 4]


def test_when_nobody_can_be_asked_any_more_the_gap_stays_and_the_rest_is_given():
    feed = admitted(EventFeed(Subscription(["volume"]), refetch=True), 1)
    live(feed, 4, 8)
    assert feed.pop() is None
    feed.stop_requests()
    assert feed.next_request() is None
    assert numbers(feed) == [(2, 3), 4, (5, 7), 8]


def test_the_error_of_a_subscription_without_an_answer_says_how_long_was_waited():
    assert "within 3s" in str(EventFeed(Subscription(["volume"], timeout=3)).unanswered_error())
