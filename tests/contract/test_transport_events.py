"""Publish and subscribe, on every transport."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from ostler.clock import SystemClock
from ostler.config import load_text, validate
from ostler.errors import ConnectionLost, DaemonNotRunning, EncodeError, InvalidInput
from ostler.messaging import Context, Event, Gap, exposed
from ostler.messaging.events.async_event_stream import AsyncEventStream
from ostler.messaging.events.event import JournalPage, JournalPosition, JournalTopic
from ostler.messaging.events.subscription import make_subscription
from ostler.messaging.wire.transport import TransportLimits
from ostler.service.event_journal import LazyJournal, journal_page, journal_topics
from ostler.store import Store

# private: _watermark_timer: a timer that goes on without subscribers is noticed by nobody
# private: _feed: how many events wait for a reader that does not read


async def test_what_is_published_after_the_subscription_arrives_in_order(world_of):
    async with world_of() as world, world.client().events("volume") as stream:
        for number in range(100):
            world.publisher.publish("volume", "created", {"n": number})
        found = [await anext(stream) for _ in range(100)]
        assert [event.payload["n"] for event in found] == list(range(100))
        assert [event.sequence for event in found] == list(range(1, 101))
        first = found[0]
        assert (first.topic, first.host, first.name, first.epoch) == (
            "volume", "here", "created", world.publisher.epoch,
        )  # fmt: skip
        assert first.at > 1_700_000_000


async def test_a_pattern_chooses(world_of):
    async with world_of() as world, world.client().events("volume.*.deleted", "lamp") as stream:
        for topic, name in [
            ("volume", "created"), ("volumes", "deleted"), ("volume", "deleted"), ("lamp", "on"), ("lam", "p"),
        ]:  # fmt: skip
            world.publisher.publish(topic, name)
        assert [(await anext(stream)).key for _ in range(2)] == ["volume.here.deleted", "lamp.here.on"]


async def test_no_pattern_chooses_all(world_of):
    async with world_of() as world, world.client().events() as stream:
        async with world.client().events("x"):  # the answer to somebody else is nobody's event
            pass
        world.publisher.publish("a", "b")
        assert (await anext(stream)).key == "a.here.b"


async def test_the_sync_client_sees_them_too(world_of):
    async with world_of() as world:
        client = world.sync_client()
        subscribed = threading.Event()

        def work():
            with client.events("volume") as stream:
                assert stream.next(timeout=0) is None
                subscribed.set()
                first, second = next(stream), next(stream)
                return [first.payload, second.payload]

        task = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.to_thread(subscribed.wait, 5)
        world.publisher.publish("volume", "created", 1)
        world.publisher.publish("volume", "created", 2)
        assert await task == [1, 2]


async def test_any_thread_may_publish_and_so_may_managers(world_of):
    async with world_of() as world, world.client().events() as stream:

        class Lamp:
            @exposed()
            def switch(self, ctx: Context) -> None:
                world.local("lamp").publish("switched", {"on": True})

        world.add("lamp", Lamp())
        await world.client().call("lamp", "switch")
        event = await anext(stream)
        assert (event.key, event.payload) == ("lamp.here.switched", {"on": True})


@pytest.mark.failure_mode("Events", "a subscriber that joins late")
async def test_a_subscriber_that_joins_late_sees_what_comes_from_then_on(world_of):
    async with world_of() as world:
        world.publisher.publish("volume", "created", "before")
        async with world.client().events("volume") as stream:
            world.publisher.publish("volume", "created", "after")
            event = await anext(stream)
            assert (event.payload, event.sequence) == ("after", 2)


@pytest.mark.failure_mode("Events", "a gap is seen")
async def test_a_gap_is_seen(world_of):
    async with world_of() as world, world.client().events("volume.*.created") as stream:
        world.publisher.publish("volume", "created", 1)
        real, world.publisher.link.publish = world.publisher.link.publish, lambda data: None
        world.publisher.publish("volume", "created", 2)
        world.publisher.publish("volume", "deleted", 3)
        world.publisher.link.publish = real
        world.publisher.publish("volume", "created", 4)
        found = [await anext(stream) for _ in range(3)]
        assert found[1] == Gap("volume", "here", 2, 3)
        assert [item.payload for item in found if isinstance(item, Event)] == [1, 4]


@pytest.mark.failure_mode("Events", "one that is slow")
async def test_a_slow_subscriber_costs_only_itself_and_sees_the_gap(world_of):
    async with world_of(limits=TransportLimits(max_queued=100)) as world:
        slow = world.sync_client()
        stream = await asyncio.to_thread(slow.events, "volume")
        received = 0
        async with world.client().events("volume") as quick:
            big = "x" * 20_000
            for _ in range(20):
                for _ in range(50):
                    world.publisher.publish("volume", "created", big)
                for _ in range(50):
                    assert isinstance(await anext(quick), Event)
                    received += 1
            assert received == 1000

            def drain():
                found = []
                while (item := stream.next(timeout=0.2)) is not None:
                    found.append(item)
                return found

            before = await asyncio.to_thread(drain)
            assert 0 < len(before) < 1000
            world.publisher.publish("volume", "created", "last")
            seen = list(before)
            # On a network what had come is read in fits, so that there may be events after a gap, and more gaps.
            while not isinstance(seen[-1], Event) or seen[-1].payload != "last":
                seen.append(await asyncio.to_thread(stream.next, 5))
                assert seen[-1] is not None
            assert any(isinstance(item, Gap) for item in seen)
            spans = [(item.first, item.last) if isinstance(item, Gap) else (item.sequence,) * 2 for item in seen]
            assert [first for first, _ in spans] == [1, *(last + 1 for _, last in spans[:-1])], "nothing in silence"
            assert seen[-1].sequence == 1001


@pytest.mark.failure_mode("Events", "one that vanishes")
async def test_a_subscriber_that_vanishes(world_of):
    async with world_of() as world:
        client = world.client()
        async with client.events("volume") as stays:
            for _ in range(50):
                async with client.events("volume"):
                    pass
            world.publisher.publish("volume", "created")
            assert (await anext(stays)).sequence == 1
            assert world.publisher.link.has_subscribers
        async with asyncio.timeout(5):
            while world.publisher.link.has_subscribers:  # nothing is kept for those who have gone
                world.publisher.publish("volume", "created")
                await asyncio.sleep(0.01)


async def test_a_publisher_that_goes_away_is_known(world_of):
    async with world_of() as world:
        client, sync = world.client(), world.sync_client()
        blocking = await asyncio.to_thread(sync.events, "volume")
        async with client.events("volume") as stream:
            world.publisher.publish("volume", "created")
            world.publisher.close()
            assert (await anext(stream)).sequence == 1, "what came before the end is seen"
            async with asyncio.timeout(2):
                with pytest.raises(ConnectionLost):
                    await anext(stream)
                assert (await asyncio.to_thread(next, blocking)).sequence == 1
                with pytest.raises(ConnectionLost):
                    await asyncio.to_thread(blocking.next, 5)
        with pytest.raises(DaemonNotRunning):
            await client.events("volume")
        world.publisher.publish("volume", "dropped")


async def test_a_stream_that_is_closed_ends(world_of):
    async with world_of() as world:
        client = world.client()
        stream = await client.events("volume")
        task = asyncio.ensure_future(anext(stream, "ended"))
        await asyncio.sleep(0)
        await client.close()
        assert await task == "ended"


@pytest.mark.parametrize("name", ["", "a b", "!secret", "x\0y", ".x"])
async def test_names_that_keys_cannot_have_are_refused(world_of, name):
    async with world_of() as world:
        with pytest.raises(InvalidInput):
            world.publisher.publish("volume", name)
        with pytest.raises(InvalidInput):
            world.publisher.publish(name, "created")
        with pytest.raises(EncodeError, match=r"the payload of event volume\.here\.created"):
            world.publisher.publish("volume", "created", object())


@pytest.mark.failure_mode("Events", "a subscriber that joins late")
async def test_a_late_joiner_gets_the_last_event_of_each_key_and_then_what_comes(world_of):
    async with world_of() as world:
        for number in range(3):
            world.publisher.publish("volume", "a", number)
        world.publisher.publish("volume", "b", 3)
        world.publisher.publish("volumes", "c", 4)
        async with world.client().events("volume", last=True) as stream:
            world.publisher.publish("volume", "a", 5)
            found = [await anext(stream) for _ in range(3)]
            assert [(event.name, event.payload, event.sequence) for event in found] == [
                ("a", 2, 3), ("b", 3, 4), ("a", 5, 5),
            ]  # fmt: skip
        sync = world.sync_client()
        stream = await asyncio.to_thread(lambda: sync.events("*.b", last=True))
        assert (await asyncio.to_thread(stream.next, 5)).payload == 3


@pytest.mark.failure_mode("Events", "a gap is seen")
async def test_a_subscriber_is_told_of_its_loss_though_no_event_comes_any_more(world_of):
    async with world_of(watermark_interval=0.05) as world, world.client().events("volume.*.created", "lamp") as stream:
        world.publisher.publish("volume", "created")
        real, world.publisher.link.publish = world.publisher.link.publish, lambda data: None
        for name in ("created", "deleted"):
            world.publisher.publish("volume", name)
        world.publisher.publish("lamp", "on")  # the first of its topic, lost as well
        world.publisher.link.publish = real
        async with asyncio.timeout(5):
            assert (await anext(stream)).sequence == 1
            gaps = {await anext(stream) for _ in range(2)}
        assert gaps == {Gap("volume", "here", 2, 3), Gap("lamp", "here", 1, 1)}
        world.publisher.publish("volume", "created")
        assert (await anext(stream)).sequence == 4


async def test_nobody_is_told_of_heads_when_nobody_listens(world_of):
    async with world_of(watermark_interval=0.01) as world:
        world.publisher.publish("volume", "created")
        assert world.publisher._watermark_timer is None
        async with world.client().events("volume"):
            world.publisher.publish("volume", "created")
            assert world.publisher._watermark_timer is not None
        for _ in range(200):
            await asyncio.sleep(0.01)
            if world.publisher._watermark_timer is None:
                return
        raise AssertionError("the timer goes on without subscribers")


async def test_an_event_carries_the_request_that_it_happened_in(world_of):
    async with world_of() as world, world.client().events() as stream:

        class Lamp:
            @exposed()
            def switch(self, ctx: Context) -> str:
                world.local("lamp").publish("switched")
                return ctx.request_id

            @exposed()
            async def aswitch(self, ctx: Context) -> str:
                world.local("lamp").publish("switched")
                return ctx.request_id

        world.add("lamp", Lamp())
        for method in ("switch", "aswitch"):
            request_id = await world.client().call("lamp", method)
            event = await anext(stream)
            assert event.request_id == request_id != ""
        world.publisher.publish("lamp", "outside")
        assert (await anext(stream)).request_id == ""


async def test_a_reader_that_never_takes_its_events_does_not_fill_the_memory(world_of):
    subscription, _ = make_subscription(["volume"], None, last=False)
    async with (
        world_of() as world,
        AsyncEventStream(world.transport, subscription, lambda _: None, max_waiting_events=10) as stream,
    ):
        for number in range(50):
            world.publisher.publish("volume", "created", number)
        await asyncio.sleep(0.2)
        assert stream._feed.waiting_count == 10
        found = [await anext(stream) for _ in range(10)]
        world.publisher.publish("volume", "created", "last")
        assert found[-1].sequence == 10
        assert await anext(stream) == Gap("volume", "here", 11, 50)
        assert (await anext(stream)).payload == "last"


class FakeControlTopic:
    """What a daemon answers of its journal."""

    def __init__(self, store):
        self._store = store

    @exposed(role="viewer", changes=False)
    async def event_topics(self, ctx: Context) -> list[JournalTopic]:
        return await journal_topics(self._store, SystemClock(), "here")

    @exposed(role="viewer", changes=False)
    async def events_since(self, ctx: Context, positions: list[JournalPosition], limit: int = 500) -> JournalPage:
        return await journal_page(self._store, SystemClock(), "here", positions, limit)


@pytest.fixture
def journaling(tmp_path):
    """Give a world a journal of the topic `volume`."""
    store = Store.open(tmp_path / "ostler.db", synchronous="NORMAL")

    @asynccontextmanager
    async def keep(world):
        keeping = LazyJournal(world.publisher, store, SystemClock(), ["volume"])
        keeping.apply(validate(load_text(""), {}, {}).events)
        world.add("ostler", FakeControlTopic(store))
        try:
            yield keeping
        finally:
            await keeping.close()

    yield keep
    store.close()


@pytest.mark.failure_mode("Events", "replay from a number over a restart")
async def test_replay_from_a_number_goes_on_live_without_a_seam(world_of, journaling):
    async with world_of() as world, journaling(world):
        for number in range(1, 1201):
            world.publisher.publish("volume", "x", number)
        while not (topics := await world.client().call("ostler", "event_topics")) or topics[0][3] < 1000:
            await asyncio.sleep(0.01)
        async with world.client().events("volume", since=3) as stream:
            seen, sent = [], 1200
            while len(seen) < 1498:
                item = await anext(stream)
                seen.append(item.sequence)
                if len(seen) % 4 == 0 and sent < 1500:
                    sent += 1
                    world.publisher.publish("volume", "x", sent)
                    while sent < 1500 and item.sequence >= 1200:
                        sent += 1
                        world.publisher.publish("volume", "x", sent)
            assert seen == list(range(3, 1501))
        sync = world.sync_client()

        def read():
            with sync.events("volume", since=item) as stream:
                return stream.next(timeout=0.2)

        assert await asyncio.to_thread(read) is None, "nothing came after the last one that was seen"


@pytest.mark.failure_mode("Events", "replay from a number over a restart")
async def test_a_gap_of_a_journaled_topic_can_be_fetched_again(world_of, journaling):
    async with world_of() as world, journaling(world):
        async with (
            world.client().events("volume", refetch=True) as fills,
            world.client().events("volume") as shows,
        ):
            real, link = world.publisher.link.publish, world.publisher.link
            for number in range(1, 11):
                link.publish = (lambda data: None) if 3 < number < 8 else real
                world.publisher.publish("volume", "x", number)
                await asyncio.sleep(0.05)
            assert [(await anext(fills)).sequence for _ in range(10)] == list(range(1, 11))
            found = [await anext(shows) for _ in range(7)]
            assert found[3] == Gap("volume", "here", 4, 7, True)
        stream = await asyncio.to_thread(lambda: world.sync_client().events("volume", since=found[2]))
        missed = await asyncio.to_thread(lambda: [stream.next(5).payload for _ in range(4)])
        assert missed == [4, 5, 6, 7]


async def test_a_subscriber_that_loses_its_role_is_let_go_and_no_other(world_of):
    async with world_of() as world:
        stays, goes = world.client(), world.client()
        async with stays.events("volume") as kept:
            world.publisher.publish("volume", "created", 1)
            assert (await anext(kept)).payload == 1
            world.publisher.link.disconnect_unless(lambda _peer: True)
            async with goes.events("volume") as cut:
                world.publisher.link.disconnect_unless(lambda _peer: False)
                with pytest.raises(world.expulsion_error):
                    await asyncio.wait_for(anext(cut), 5)
            with pytest.raises(world.expulsion_error):
                await asyncio.wait_for(anext(kept), 5)
        async with stays.events("volume") as again:
            world.publisher.publish("volume", "created", 2)
            assert (await anext(again)).payload == 2
