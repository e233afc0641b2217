"""Ages, when the wall clock is set."""

import pytest

from ostler.clock import FakeClock
from ostler.store import AuditRecords, Store
from ostler.store.records.journal_records import JournalRecords
from ostler.store.retention_clock import RetentionClock
from ostler.types import AuditEntry

DAY = 86400.0


def entry(at):
    return AuditEntry(at=at, last=at, who="uid 1000", uid=1000, topic="volume", method="create")


def test_time_goes_on_as_the_boot_clock_says_when_the_wall_clock_is_set_ahead(caplog):
    clock = FakeClock()
    ages, began = RetentionClock(clock), clock.wall()
    clock.advance(100)
    assert ages.now() == began + 100
    clock.set_wall(began + 400 * DAY)
    clock.advance(50)
    assert ages.now() == began + 150
    assert ages.now() == began + 150
    assert caplog.text.count("the wall clock was set forward by 400.0 days") == 1
    assert "set forward by 400.0 days" in ages.problems()[0]
    ages.trust_wall_clock()
    assert ages.now() == clock.wall()
    assert ages.problems() == []


def test_a_clock_that_is_set_back_makes_nothing_older():
    clock = FakeClock()
    ages, began = RetentionClock(clock), clock.wall()
    clock.set_wall(began - 400 * DAY)
    assert ages.now() == began - 400 * DAY
    clock.set_wall(began)
    assert ages.now() == began


def test_when_most_is_too_old_at_once_a_tenth_goes_after_a_day_and_that_is_told(caplog):
    clock = FakeClock()
    ages, before = RetentionClock(clock), clock.wall() - DAY
    assert ages.removal_limit("lamps", 50, 100, before) == 50
    assert ages.problems() == []
    assert ages.removal_limit("lamps", 100, 100, before) == 0
    assert ages.removal_limit("lamps", 100, 300, before) == 0, "what came since does not make it believable"
    clock.advance(DAY)
    assert ages.removal_limit("lamps", 100, 100, before) == 10
    assert ages.removal_limit("lamps", 90, 90, before) == 9
    assert caplog.text.count("expired by the wall clock") == 1
    (line,) = ages.problems()
    assert line.startswith("81 lamps have expired by the wall clock; they are kept for the first day, then")
    assert ages.removal_limit("lamps", 1, 1, before) == 1
    assert ages.problems() == []


def test_what_has_become_too_old_while_the_daemon_ran_goes_at_once():
    clock = FakeClock()
    ages = RetentionClock(clock)
    clock.advance(2 * DAY)
    assert ages.removal_limit("lamps", 100, 100, ages.now() - DAY) == 100
    assert ages.problems() == []


def test_the_way_back_from_a_boot_with_a_clock_far_ahead():
    clock = FakeClock()
    right = clock.wall()
    clock.set_wall(right + 3650 * DAY)
    ages = RetentionClock(clock)
    assert ages.removal_limit("lamps", 100, 100, ages.now() - 90 * DAY) == 0
    clock.set_wall(right)
    assert ages.now() == right
    assert ages.removal_limit("lamps", 0, 100, ages.now() - 90 * DAY) == 0
    assert ages.problems() == []


def test_a_clock_that_began_in_1970_and_was_set_right_is_believed():
    clock = FakeClock(wall=30.0)
    ages = RetentionClock(clock)
    clock.set_wall(1_800_000_000.0)
    assert ages.now() == 1_800_000_000.0
    assert ages.problems() == []


@pytest.fixture
def opened(tmp_path):
    clock = FakeClock()
    store = Store.open(tmp_path / "ostler.db", clock=clock, synchronous="NORMAL")
    yield store, clock
    store.close()


def test_an_audit_log_all_of_which_is_too_old_by_the_clock_is_not_removed_at_once(opened):
    store, clock = opened
    records = AuditRecords(store)
    store.write(lambda: records.save([entry(clock.wall()) for _ in range(100)]))
    clock.set_wall(clock.wall() + 400 * DAY)
    store.write(lambda: records.trim(1000, store.retention_clock.now() - 90 * DAY, store.retention_clock))
    assert len(records.list(limit=1000)) == 100
    store.retention_clock.trust_wall_clock()
    store.write(lambda: records.trim(1000, store.retention_clock.now() - 90 * DAY, store.retention_clock))
    assert len(records.list(limit=1000)) == 100
    assert "100 entries of the audit log have expired" in store.retention_clock.problems()[0]
    clock.advance(DAY)
    store.write(lambda: records.trim(1000, store.retention_clock.now() - 90 * DAY, store.retention_clock))
    assert len(records.list(limit=1000)) == 90
    assert "90 entries of the audit log have expired" in store.retention_clock.problems()[0]


class Row:
    topic, epoch, data = "lamp", 1, b"x"

    def __init__(self, number, at):
        self.sequence, self.at = number, at


async def test_a_journal_all_of_which_is_too_old_by_the_clock_is_not_removed_at_once(opened):

    store, clock = opened

    records = JournalRecords(store, clock, "node1")
    await records.append([Row(number, clock.wall()) for number in range(1, 101)])
    clock.set_wall(clock.wall() + 400 * DAY)
    await records.trim(1000, 7 * DAY)
    assert (await records.topics())[0].first == 1
    store.retention_clock.trust_wall_clock()
    await records.trim(1000, 7 * DAY)
    assert (await records.topics())[0].first == 1
    clock.advance(DAY)
    await records.trim(1000, 7 * DAY)
    assert (await records.topics())[0].first == 11
    await records.append([Row(number, clock.wall()) for number in range(101, 301)])
    await records.trim(1000, 7 * DAY)
    assert (await records.topics())[0].first == 101, "less than half: what is old goes"
    await records.trim(50, 7 * DAY)
    assert (await records.topics())[0].first == 251
