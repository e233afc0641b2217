from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.store.records.journal_records import JournalRecords, start_after


class Row(NamedTuple):
    topic: str
    epoch: int
    sequence: int
    at: float
    data: bytes


def rows(topic, numbers, epoch=1, at=None):
    return [Row(topic, epoch, n, float(n) if at is None else at, f"{topic}{n}".encode()) for n in numbers]


@pytest.fixture
def records(store, clock):
    return JournalRecords(store, clock, "h")


async def test_what_is_appended_can_be_read_from_a_number(records):
    await records.append(rows("volume", range(1, 11)))
    await records.append(rows("lamp", [3, 5]))
    assert await records.last_sequences() == ({"volume": 10, "lamp": 5}, 1)
    assert [tuple(row) for row in await records.topics()] == [("lamp", 3, 5, 1), ("volume", 1, 10, 1)]
    page = await records.since([("volume", 6, 0)], 3)
    assert page.events == [b"volume7", b"volume8", b"volume9"]
    assert page.more
    assert tuple(page.starts[0]) == ("volume", 6, 10, False)
    assert (await records.since([("volume", 9, 0)], 3)).events == [b"volume10"]
    assert not (await records.since([("volume", 10, 0)], 3)).more


async def test_several_topics_come_in_the_order_of_time_and_each_in_that_of_its_numbers(records):
    await records.append(rows("a", [1, 2], at=5.0) + rows("a", [3], at=1.0) + rows("b", [1], at=2.0))
    assert (await records.since([("a", 0, 0), ("b", 0, 0)], 10)).events == [b"b1", b"a1", b"a2", b"a3"]


async def test_what_was_written_already_is_written_again_without_harm(records):
    await records.append(rows("a", [1, 2, 3]))
    await records.append(rows("a", [2, 3, 4]))
    assert len((await records.since([("a", 0, 0)], 10)).events) == 4
    await records.append(rows("a", [2]))
    assert (await records.last_sequences())[0] == {"a": 4}, "the last number never goes back"


async def test_a_page_ends_with_its_bytes(records):
    await records.append([Row("a", 1, n, 0.0, b"x" * 600_000) for n in range(1, 6)])
    page = await records.since([("a", 0, 0)], 10)
    assert len(page.events) == 2
    assert page.more


async def test_a_topic_that_is_not_there_has_nothing(records):
    page = await records.since([("none", 0, 0), ("gone", 7, 3)], 10)
    assert [tuple(start) for start in page.starts] == [("none", 0, 0, False), ("gone", 0, 0, True)]


async def test_the_oldest_go_by_count_and_by_age(records, clock):
    now = clock.wall()
    await records.append(rows("a", range(1, 2501), at=now))
    clock.advance(100)
    await records.append(rows("b", range(1, 11), at=now) + rows("b", range(11, 21), at=clock.wall()))
    await records.trim(count=100, age=1000)
    assert [tuple(row)[:3] for row in await records.topics()] == [("a", 2401, 2500), ("b", 1, 20)]
    await records.trim(count=100, age=50)
    assert [tuple(row)[:3] for row in await records.topics()] == [("a", 2501, 2500), ("b", 11, 20)]
    assert (await records.last_sequences())[0] == {"a": 2500, "b": 20}, "numbers go on from what is gone"


async def test_runs_that_have_no_events_left_are_forgotten(records, store):
    for run in range(1, 6):
        await records.append(rows("a", range(run * 10, run * 10 + 10), epoch=run))
    await records.trim(count=15, age=1e12)
    page = await records.since([("a", 12, 1)], 100)
    assert tuple(page.starts[0]) == ("a", 12, 59, False), "an older run is part of the same count"
    assert len(page.events) == 15
    epochs = store.read(lambda: [row[0] for row in _sql("SELECT epoch FROM event_epochs ORDER BY epoch")])
    assert epochs == [4, 5]


def _sql(text):
    from ostler.store.session import current_session

    return current_session().database.execute_sql(text).fetchall()


@pytest.mark.parametrize(
    ("after", "epoch", "expected"),
    [
        (5, 0, (5, False)),
        (31, 0, (30, True)),
        (5, 100, (5, False)),
        (10, 100, (10, False)),
        (12, 100, (10, True)),  # that run gave out 11 and 12, and its last writes are lost
        (15, 200, (15, False)),
        (40, 200, (20, True)),
        (30, 300, (30, False)),
        (25, 250, (20, True)),  # a run of which nothing is known, after 200
        (99, 400, (30, True)),  # a copy of the database was put back
        (0, 50, (0, False)),
    ],
)
def test_where_a_reader_goes_on(after, epoch, expected):
    epochs = [(100, 1), (200, 11), (300, 21)]
    assert start_after(after, epoch, 30, epochs) == expected


@given(st.data())
def test_whoever_was_there_gets_all_that_came_after_and_nothing_twice(data):
    """Runs of a daemon write events, some lose their last ones; a reader that saw all of one run goes on."""
    epochs, kept, seen, last = [], [], {}, 0
    for epoch in range(1, data.draw(st.integers(1, 6)) + 1):
        given_out = data.draw(st.integers(0, 5))
        written = data.draw(st.integers(0, given_out))
        seen[epoch] = [(epoch, last + n) for n in range(1, given_out + 1)]
        if written:
            epochs.append((epoch, last + 1))
            kept += seen[epoch][:written]
        last += written
    reader = data.draw(st.sampled_from([item for run in seen.values() for item in run] or [(1, 0)]))
    after, anew = start_after(reader[1], reader[0], last, epochs)
    later = [item for item in kept if item[1] > after]
    assert later == [item for item in kept if item > reader], "all that came after it, and nothing before"
    assert anew == (reader not in kept and reader[1] > 0)
