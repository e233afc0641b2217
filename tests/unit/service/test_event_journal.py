import pytest

from ostler.clock import SystemClock
from ostler.config import load_text, validate
from ostler.errors import InvalidInput
from ostler.messaging import Access, Publisher
from ostler.messaging.events import JournalPosition
from ostler.service.event_journal import LazyJournal, journal_page, journal_topics
from ostler.store import Store
from ostler.testing.memory_transport import MemoryTransport


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "ostler.db", synchronous="NORMAL")
    yield store
    store.close()


def options(text):
    return validate(load_text(text), {}, {}).events


def made(store, *topics):
    publisher = Publisher(MemoryTransport().serve_events(), "h", SystemClock(), Access(), lambda call: call())
    publisher.start()
    return publisher, LazyJournal(publisher, store, SystemClock(), topics)


async def numbers(store):
    return {topic.topic: (topic.first, topic.last) for topic in await journal_topics(store, SystemClock(), "h")}


async def test_a_journal_is_made_with_the_first_event_that_needs_one(store):
    publisher, keeping = made(store, "volume")
    keeping.apply(options(""))
    publisher.publish("lamp", "on")
    assert publisher.journal is keeping
    assert "journal" not in publisher.stats()
    publisher.publish("volume", "created")
    assert publisher.stats()["journal"]["waiting"] == 1
    await keeping.close()
    assert await numbers(store) == {"volume": (1, 1)}


async def test_an_operator_adds_topics_and_takes_some_out_and_a_reload_changes_both(store):
    publisher, keeping = made(store, "volume")
    keeping.apply(options('[events]\njournal = ["l*", "!lost", "!volume"]'))
    for topic in ("lamp", "lost", "volume"):
        publisher.publish(topic, "x")
    keeping.apply(options('[events]\njournal = ["lost", "!volume"]\njournal_count = 5'))
    for topic in ("lamp", "lost", "volume"):
        publisher.publish(topic, "x")
    assert publisher.journal.limits.max_events == 5
    await keeping.close()
    assert await numbers(store) == {"lamp": (1, 2), "lost": (1, 1)}, "what waits keeps its place in the order"


async def test_a_page_has_its_limits(store):
    for positions, limit in [([], 0), ([], 1001), ([JournalPosition("a")] * 1001, 10)]:
        with pytest.raises(InvalidInput, match="at most 1000"):
            await journal_page(store, SystemClock(), "h", positions, limit)
    page = await journal_page(store, SystemClock(), "h", [JournalPosition("a")], 10)
    assert (page.events, page.more) == ([], False)
