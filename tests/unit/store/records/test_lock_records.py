import pytest

from ostler.clock import FakeClock
from ostler.errors import StoreError
from ostler.store.records.lock_records import LockRecord, LockRecords
from ostler.store.session import current_session

EXCLUSIVE = LockRecord("volume", "a", "", "", 0, "volume.clone", "r1", 5.0)
SHARED = EXCLUSIVE._replace(shared=1)


@pytest.fixture
def clocks():
    return FakeClock(boot_id="one"), FakeClock(boot_id="two")


@pytest.fixture
def runs(clocks):
    return LockRecords(clocks[0], "node1", "run1"), LockRecords(clocks[1], "node2", "run2")


def test_one_host_at_a_time_has_a_lock(store, runs):
    one, two = runs
    assert store.write(lambda: one.take(EXCLUSIVE)) is None
    other = store.write(lambda: two.take(EXCLUSIVE))
    assert (other.host, other.method, other.request_id, other.since) == ("node1", "volume.clone", "r1", 5.0)
    assert store.write(lambda: two.take(EXCLUSIVE._replace(name="b"))) is None
    store.write(lambda: one.release([("volume", "a"), ("volume", "b")]))
    assert store.write(lambda: two.take(EXCLUSIVE)) is None


def test_hosts_share_a_lock_that_none_of_them_wants_alone(store, runs):
    one, two = runs
    assert store.write(lambda: one.take(SHARED)) is None
    assert store.write(lambda: two.take(EXCLUSIVE)).host == "node1"
    assert store.write(lambda: two.take(SHARED)) is None
    assert [row.host for row in store.read(lambda: one.others(10))] == ["node2"]


def test_a_lock_is_lost_when_it_is_not_renewed(store, runs, clocks):
    one, two = runs
    store.write(lambda: one.take(EXCLUSIVE))
    for clock in clocks:
        clock.advance(20)
    assert store.write(one.renew) == 1
    for clock in clocks:
        clock.advance(20)
    assert store.write(lambda: two.take(EXCLUSIVE)).host == "node1"
    for clock in clocks:
        clock.advance(11)
    assert store.read(lambda: two.others(10)) == []
    assert store.write(lambda: two.take(EXCLUSIVE)) is None
    assert store.write(one.renew) == 0


def test_locks_of_an_earlier_run_of_this_host_do_not_count(store, runs, clocks):
    store.write(lambda: runs[0].take(EXCLUSIVE))
    again = LockRecords(clocks[0], "node1", "run3")
    assert store.read(lambda: again.others(10)) == []
    assert store.write(lambda: again.take(EXCLUSIVE)) is None


def test_the_rows_of_earlier_runs_of_this_host_are_removed_with_the_first_lock(store, runs, clocks):
    store.write(lambda: runs[0].take(EXCLUSIVE))
    store.write(lambda: runs[1].take(EXCLUSIVE._replace(name="b")))
    again = LockRecords(clocks[0], "node1", "run3")
    store.write(lambda: again.take(EXCLUSIVE._replace(name="c")))
    query = "SELECT name FROM locks ORDER BY name"
    assert store.read(lambda: current_session().database.execute_sql(query).fetchall()) == [("b",), ("c",)]


def test_locks_are_used_inside_the_store_only(runs):
    with pytest.raises(StoreError):
        runs[0].renew()
