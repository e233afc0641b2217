"""The journal between a publisher and the store: what is kept, what goes out when, and what a bad store costs."""

import asyncio

import pytest
from msgspec.msgpack import Decoder

from ostler.errors import StoreUnavailable
from ostler.messaging import Access, Publisher
from ostler.messaging.events import Gap, Subscription
from ostler.messaging.events.event import JOURNALED, JOURNALED_LATE, Event, TopicPatterns
from ostler.messaging.events.journal import Journal, JournalLimits
from ostler.testing.virtual_time import virtual_clock
from ostler.types import LOCAL_PEER
from support.links import FakePublisherLink

pytestmark = pytest.mark.virtual_time


ONE_EVENT = Decoder(Event)


class Records:
    """A store that can be slow, or broken."""

    def __init__(self):
        self.rows = {}
        self.epoch = 0
        self.broken = False
        self.open = asyncio.Event()
        self.open.set()
        self.writes = 0
        self.trims = 0

    async def last_sequences(self):
        await self._wait()
        last = {}
        for topic, number in self.rows:
            last[topic] = max(number, last.get(topic, 0))
        return last, self.epoch

    async def append(self, rows):
        await self._wait()
        self.writes += 1
        for row in rows:
            self.rows[row.topic, row.sequence] = row
            self.epoch = max(self.epoch, row.epoch)

    async def trim(self, count, age):
        self.trims += 1

    async def _wait(self):
        await self.open.wait()
        await asyncio.sleep(0)
        if self.broken:
            raise StoreUnavailable("the database cannot grow")

    def kept(self, topic="volume"):
        return [number for name, number in self.rows if name == topic]


class Trouble:
    def __init__(self):
        self.said = []

    def failed(self, error):
        self.said.append("failed")

    def worked(self):
        if self.said and self.said[-1] == "failed":
            self.said.append("worked")


class World:
    def __init__(self, records=None, **more):
        self.records = records or Records()
        self.trouble = Trouble()
        self.publisher = Publisher(
            FakePublisherLink(), "h", virtual_clock(), Access(own_uid=LOCAL_PEER.uid), lambda call: call()
        )
        self.publisher.start()
        self.journal = Journal(
            self.publisher, self.records, virtual_clock(), self.trouble, JournalLimits(100, 60.0), **more
        )
        self.publisher.set_journal(self.journal, TopicPatterns(["volume"]).matches)

    def publish(self, *payloads, topic="volume"):
        for payload in payloads:
            self.publisher.publish(topic, "x", payload)

    def live(self, topic="volume"):
        """Return number, payload and mark of what has gone out."""
        bodies = [
            data.partition(b"\0")[2] for data in self.publisher.link.sent if data.startswith(f"{topic}.h.x".encode())
        ]
        events = [ONE_EVENT.decode(body[2:]) for body in bodies]
        return [(event.sequence, event.payload, event.journaled) for event in events]


async def settle(seconds=0.1):
    await asyncio.sleep(seconds)


async def test_an_event_is_kept_before_it_goes_out() -> None:
    world = World()
    world.records.open.clear()
    world.publish("a", "b")
    world.publish("plain", topic="lamp")
    await settle()
    assert world.live("lamp") == [(1, "plain", 0)]
    assert world.live() == []
    world.records.open.set()
    await settle()
    assert world.records.kept() == [1, 2]
    assert world.live() == [(1, "a", JOURNALED), (2, "b", JOURNALED)]
    assert world.records.writes == 1, "what comes in the meantime shares a write"


async def test_numbers_go_on_in_the_next_run_and_the_epoch_is_another() -> None:
    first = World()
    first.publish(1, 2)
    await settle()
    await first.journal.close()
    second = World(first.records)
    second.publish(3)
    await settle()
    assert [number for number, _, _ in second.live()] == [3]
    epochs = {row.epoch for row in first.records.rows.values()}
    assert len(epochs) == 2


async def test_a_store_that_fails_holds_nothing_up_and_gets_it_all_later() -> None:
    world = World()
    world.publish(1)
    await settle()
    world.records.broken = True
    world.publish(2, 3)
    await settle()
    world.publish(4)
    assert world.live() == [(1, 1, JOURNALED), (2, 2, JOURNALED_LATE), (3, 3, JOURNALED_LATE), (4, 4, JOURNALED_LATE)]
    assert world.records.kept() == [1]
    await settle(5)
    assert set(world.trouble.said) == {"failed"}
    world.records.broken = False
    await settle(2)
    assert world.records.kept() == [1, 2, 3, 4]
    world.publish(5)
    await settle()
    assert world.live()[4:] == [(5, 5, JOURNALED)]
    assert world.trouble.said[-1] == "worked"


async def test_a_store_that_hangs_lets_events_go_after_two_seconds() -> None:
    world = World()
    world.publish(0)
    await settle()
    world.records.open.clear()
    world.publish(1)
    await settle(0.5)
    world.publish(2)
    assert world.live() == [(1, 0, JOURNALED)]
    await settle(2)
    assert world.live()[1:] == [(2, 1, JOURNALED_LATE), (3, 2, JOURNALED_LATE)]
    world.publish(3)
    assert world.live()[3:] == [(4, 3, JOURNALED_LATE)], "they no longer wait"
    world.records.open.set()
    await settle(1)
    assert world.records.kept() == [1, 2, 3, 4]
    assert len(world.live()) == 4


async def test_a_store_that_cannot_be_read_at_first_makes_a_plain_topic_of_it() -> None:
    world = World()
    world.records.broken = True
    world.publish(1)
    await settle()
    assert world.live() == [(1, 1, 0)]
    world.records.broken = False
    await settle(2)
    world.publish(2)
    await settle()
    assert world.live()[1:] == [(1, 2, JOURNALED)]


async def test_more_than_the_memory_takes_is_missing_in_the_journal_and_counted() -> None:
    world = World(max_late_events=5)
    world.publish(0)
    await settle()
    world.records.broken = True
    world.publish(*range(1, 11))
    await settle()
    world.publish(11)
    world.records.broken = False
    await settle(2)
    assert len(world.live()) == 12
    assert world.records.kept()[-1] == 12
    assert world.journal.stats()["lost"] > 0
    assert len(world.records.kept()) + world.journal.lost_count == 12


async def test_the_end_writes_what_waits_and_sends_it_if_that_cannot_be() -> None:
    world = World()
    world.publish(1)
    await world.journal.close()
    assert world.live() == [(1, 1, JOURNALED)]
    other = World()
    other.publish(1)
    await settle()
    other.records.open.clear()
    other.publish(2)
    await other.journal.close()
    assert other.live() == [(1, 1, JOURNALED), (2, 2, JOURNALED_LATE)]


async def test_a_topic_that_is_journaled_no_longer_goes_on_with_its_numbers() -> None:
    world = World()
    world.publish(1, 2)
    await settle()
    world.publisher.set_journal(world.journal, TopicPatterns([]).matches)
    world.publish(3)
    assert world.live()[2:] == [(3, 3, 0)]
    world.publisher.set_journal(world.journal, TopicPatterns(["*", "!lamp"]).matches)
    world.publish(4)
    world.publish(4, topic="lamp")
    await settle()
    assert world.live()[3:] == [(4, 4, JOURNALED)]
    assert world.records.kept() == [1, 2, 4], "a hole, which whoever reads it sees as a gap"
    assert world.live("lamp") == [(1, 4, 0)]
    subscription = Subscription(["volume"])
    subscription.receive(subscription.prefixes[-1] + b"\0" + world.publisher.link.answer(LOCAL_PEER, b"!x")[-1])
    found = [item for data in world.publisher.link.sent for item in subscription.receive(data)]
    assert not [item for item in found if isinstance(item, Gap)]


async def test_it_is_trimmed_now_and_then_and_not_with_each_event() -> None:
    world = World()
    for number in range(250):
        world.publish(number)
        await asyncio.sleep(0.001)
    await settle()
    assert world.records.writes > 100
    assert world.records.trims == 2
    await settle(3700)
    assert world.records.trims >= 3, "and each hour, for the sake of their age"


@pytest.mark.failure_mode("Plugins", "one that cancels all tasks, stops the loop or exits")
async def test_events_are_kept_when_a_plugin_cancels_all_tasks() -> None:
    world = World()
    world.publish(1)
    await settle()
    world.records.open.clear()
    world.publish(2, 3)
    await settle()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await settle()
    world.records.open.set()
    await settle()
    assert world.records.kept() == [1, 2, 3]
    assert [payload for _, payload, _ in world.live()] == [1, 2, 3]
    await world.journal.close()
