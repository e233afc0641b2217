"""From the journal to what is live: each number once, in order, gaps exact, whatever comes when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.errors import InvalidInput
from ostler.messaging.events import Event, Gap, JournalPage, Subscription, Watermark
from ostler.messaging.events.event import (
    JOURNALED,
    JOURNALED_LATE,
    LAST_VALUE,
    WATERMARKS,
    JournalStart,
    JournalTopic,
    encoder,
)
from ostler.messaging.events.replay import GapFill, Replay
from ostler.messaging.events.subscription import make_subscription
from ostler.messaging.wire.envelope import PROTOCOL_VERSION, Accepted, encode_message


def event(number, topic="volume", name="x", epoch=1, kept=JOURNALED):
    return Event(topic, "h", name, None, number, epoch, 0.0, "", "", "", kept)


def frame(item):
    return item.key.encode() + b"\0" + encoder.encode((PROTOCOL_VERSION, item))


def heads(*found):
    return f"{found[0].topic}.h.!".encode() + b"\0" + encoder.encode((WATERMARKS, PROTOCOL_VERSION, list(found)))


def admit(subscription, known=(), last=()):
    """Let the publisher answer: last events, heads, accepted; return what is seen of it."""
    key = subscription.prefixes[-1] + b"\0"
    answer = [encoder.encode((LAST_VALUE, PROTOCOL_VERSION, item)) for item in last]
    answer += [
        encoder.encode((WATERMARKS, PROTOCOL_VERSION, list(known))),
        encode_message(Accepted(PROTOCOL_VERSION, 0, 1)),
    ]
    return [seen for part in answer for seen in subscription.receive(key + part)]


class Journal:
    """What the daemon answers; what is kept is said in numbers."""

    def __init__(self, kept, last, page=3):
        self.kept, self.last, self.page = sorted(kept), last, page

    def answer(self, method, arguments, _kind):
        if method == "event_topics":
            return [JournalTopic("volume", "h", min(self.kept, default=self.last + 1), self.last, 1)]
        (position,) = arguments["positions"]
        limit = min(self.page, arguments["limit"])
        later = [number for number in self.kept if number > position.after]
        start = JournalStart("volume", "h", min(position.after, self.last), self.last, position.after > self.last)
        return JournalPage([start], [event(number) for number in later[:limit]], len(later) > limit)


def told(found):
    return [(item.first, item.last) if isinstance(item, Gap) else item.sequence for item in found]


def as_numbers(found):
    """Return every number that was seen or said to be missing, in the order of the telling."""
    return [
        number
        for item in found
        for number in (range(item.first, item.last + 1) if isinstance(item, Gap) else [item.sequence])
    ]


@given(st.data())
def test_replay_and_live_give_each_number_once_and_in_order_with_exact_gaps(data):
    """Events are committed and then go live; some are trimmed, some are lost on the way; pages come in between."""
    subscription, replay = make_subscription(["volume"], since := data.draw(st.integers(1, 8)), last=False)
    total = data.draw(st.integers(0, 20))
    stood = data.draw(st.integers(0, total))  # what had gone out when the subscription stood
    trimmed = data.draw(st.integers(0, total))
    lost = data.draw(st.sets(st.integers(1, 20)))
    journal = Journal(range(trimmed + 1, stood + 1), stood)
    live = iter(range(stood + 1, total + 1))

    def publish(count):
        for number in [number for _, number in zip(range(count), live, strict=False)]:
            if number > trimmed:
                journal.kept.append(number)
            journal.last = number
            if number not in lost:
                found.extend(subscription.receive(frame(event(number))))

    found = []
    early = data.draw(st.booleans())
    if early:
        publish(data.draw(st.integers(0, 3)))
    found += admit(subscription, [Watermark("volume", "h", stood, 1, JOURNALED)] if stood and not early else [])
    while not replay.is_done:
        found += replay.apply_reply(journal.answer(*replay.next_request()))
        publish(data.draw(st.integers(0, 3)))
    found += subscription.release_held()
    publish(100)
    found += subscription.receive(heads(Watermark("volume", "h", total, 1, JOURNALED)))
    numbers = as_numbers([item for item in found if not isinstance(item, Gap) or item.last])
    first = min(since, total + 1) if since - 1 > total else since
    assert numbers[:1] in ([], [min(first, numbers[0] if numbers else first)])
    assert numbers == list(range(numbers[0], total + 1)) if numbers else since > total
    if since <= stood:
        assert not numbers or numbers[0] == since
        gone = {number for item in found if isinstance(item, Gap) for number in range(item.first, item.last + 1)}
        assert gone <= lost | set(range(1, trimmed + 1))


def test_what_the_journal_no_longer_has_is_a_gap_first():
    subscription, replay = make_subscription(["volume"], 2, last=False)
    admit(subscription, [Watermark("volume", "h", 9, 1, JOURNALED)])
    journal, found = Journal([7, 9], 9), []
    while not replay.is_done:
        found += replay.apply_reply(journal.answer(*replay.next_request()))
    assert told(found) == [(2, 6), 7, (8, 8), 9]
    assert all(item.journaled for item in found)


def test_all_that_was_trimmed_is_one_gap():
    subscription, replay = make_subscription(["volume"], event(4), last=False)
    admit(subscription)
    found = replay.apply_reply(Journal([], 9).answer(*replay.next_request()))
    assert replay.is_done
    assert told(found) == [(5, 9)]


def test_a_journal_that_does_not_know_the_last_event_seen_says_so():
    subscription, replay = make_subscription(["volume"], event(12, epoch=3), last=False)
    admit(subscription)
    start = JournalStart("volume", "h", 5, 7, True)
    found = replay.apply_reply(JournalPage([start], [event(6, epoch=4), event(7, epoch=4)], False))
    assert told(found) == [(0, 0), 6, 7]


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_store_that_is_late_is_no_gap_to_who_saw_its_events_live(epoch):
    since = event(12, epoch=3, kept=JOURNALED_LATE) if epoch else 13
    subscription, replay = make_subscription(["volume"], since, last=False)
    admit(subscription, [Watermark("volume", "h", 14, 3, JOURNALED)])
    found = []
    while not replay.is_done:
        found += replay.apply_reply(Journal(range(1, 11), 10).answer(*replay.next_request()))
    found += subscription.release_held()
    found += subscription.receive(frame(event(15, epoch=3)))
    assert told(found) == [(13, 14), 15]


def test_who_was_away_from_a_plain_topic_learns_how_much_was_missed():
    for head, gap in [
        (Watermark("lamp", "h", 9, 1, 0), [Gap("lamp", "h", 5, 9)]),
        (Watermark("lamp", "h", 4, 1, 0), []),
        (Watermark("lamp", "h", 3, 2, 0), [Gap("lamp", "h", 0, 0)]),
    ]:
        subscription, replay = make_subscription(["lamp"], event(4, "lamp", kept=0), last=False)
        admit(subscription, [head])
        assert replay.apply_reply(JournalPage([], [], False)) == gap
        assert replay.is_done


def test_from_a_number_that_cannot_be_and_with_last_events_is_refused():
    for wrong in (0, -1):
        with pytest.raises(InvalidInput, match="numbered from 1"):
            make_subscription([""], wrong, last=False)
    with pytest.raises(InvalidInput, match="not with both"):
        make_subscription([""], 1, last=True)


def test_a_gap_is_filled_as_far_as_the_journal_has_it():
    subscription = Subscription(["volume"])
    journal = Journal([1, 2, 4, 5, 6, 9, 10], 12, page=2)
    refill, found = GapFill(subscription, Gap("volume", "h", 2, 9, True)), []
    while not refill.is_done:
        found += refill.apply_reply(journal.answer(*refill.next_request()))
    assert told(found) == [2, (3, 3), 4, 5, 6, (7, 8), 9]
    assert not [item for item in found if isinstance(item, Gap) and item.journaled], "asking again would not help"
    lost = GapFill(subscription, Gap("volume", "h", 2, 9, True))
    assert lost.remaining_gap() == [Gap("volume", "h", 2, 9, True)]


def test_last_events_come_first_and_what_came_live_comes_once():
    subscription = Subscription(["volume.*.a", "volume.*.b"], last=True)
    assert b"?l\nvolume." in subscription.prefixes[-1]
    assert subscription.receive(frame(event(8, name="b"))) == []
    last = [event(3, name="a"), event(5, name="c"), event(8, name="b")]
    found = admit(subscription, [Watermark("volume", "h", 8, 1, JOURNALED)], last)
    assert told(found) == [3, 8]
    assert told(subscription.receive(frame(event(10, name="a")))) == [(9, 9), 10]


def test_a_head_tells_of_what_was_lost_at_the_end():
    subscription = Subscription(["volume"])
    admit(subscription, [Watermark("volume", "h", 4, 1, 0)])
    assert subscription.receive(heads(Watermark("volume", "h", 4, 1, 0))) == []
    assert subscription.receive(heads(Watermark("volume", "h", 6, 1, 0))) == [Gap("volume", "h", 5, 6)]
    assert subscription.receive(heads(Watermark("volume", "h", 6, 1, 0))) == []
    assert subscription.receive(heads(Watermark("other", "h", 6, 1, 0))) == [], "a topic that nobody asked for"
    assert told(subscription.receive(frame(event(7, kept=0)))) == [7]


def test_too_many_patterns_are_refused_for_last_events_alone():
    patterns = [f"topic-number-{number}" for number in range(40)]
    assert b"?" not in Subscription(patterns).prefixes[-1]
    with pytest.raises(InvalidInput, match="40 patterns"):
        Subscription(patterns, last=True)


def test_a_run_that_ended_is_no_gap_on_a_journaled_topic():
    subscription = Subscription(["volume"])
    admit(subscription)
    found = [
        item
        for n, epoch in [(1, 1), (2, 1), (3, 2), (5, 3)]
        for item in subscription.receive(frame(event(n, epoch=epoch)))
    ]
    assert told(found) == [1, 2, 3, (4, 4), 5]


def test_the_replay_asks_only_for_topics_that_are_wanted():
    subscription, replay = make_subscription(["lamp.*.on"], 1, last=False)
    assert isinstance(replay, Replay)
    admit(subscription)
    assert replay.apply_reply([JournalTopic("volume", "h", 1, 5, 1)]) == []
    assert replay.is_done
