"""The audit log as it is kept."""

import msgspec
import pytest

from ostler.store import AuditRecords, Store
from ostler.store.records.audit_records import fair_limit, read_offline
from ostler.types import AuditEntry


def entry(at=100.0, method="create", **values):
    return AuditEntry(at=at, last=at, who="uid 1000", uid=1000, user="bob", topic="volume", method=method, **values)


@pytest.fixture
def opened(tmp_path):
    store = Store.open(tmp_path / "state" / "ostler.db")
    yield store
    store.close()


@pytest.fixture
def records(opened):
    return AuditRecords(opened)


def keep(opened, records, *entries):
    return opened.write(lambda: records.save(entries))


def test_what_was_kept_comes_back_as_it_was(opened, records) -> None:
    first = entry(arguments='{"name":"a"}', result="Busy", text="no room", refused=True, request_id="r", trace="t")
    assert keep(opened, records, first, entry(101.0)) == [1, 2]
    found = records.list()
    assert [row.number for row in found] == [1, 2]
    assert found[0] == AuditEntry(
        **{name: getattr(first, name) for name in first.__struct_fields__ if name != "number"}, number=1
    )


def test_an_entry_with_a_number_is_only_counted_on(opened, records) -> None:
    keep(opened, records, entry())
    keep(opened, records, entry(number=1, times=7, result="changed"), entry(102.0))
    found = records.list()
    assert [(row.times, row.result) for row in found] == [(7, "done"), (1, "done")]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [1, 2, 3, 4]),
        ({"limit": 2}, [3, 4]),
        ({"after": 2}, [3, 4]),
        ({"since": 103.0}, [3, 4]),
        ({"failed": True}, [2]),
        ({"method": "volume.create"}, [1]),
        ({"method": "volume"}, [1, 2, 3, 4]),
        ({"method": "*.del*"}, [2, 3]),
        ({"method": "volume.[d]elete"}, []),
        ({"method": "volume.admin.*"}, [4]),
        ({"who": "bob"}, [1, 2, 3, 4]),
        ({"who": "1000"}, [1, 2, 3, 4]),
        ({"who": "uid 1000"}, [1, 2, 3, 4]),
        ({"who": "eve' OR '1'='1"}, []),
        ({"who": "9" * 40}, []),
        ({"who": ""}, [1, 2, 3, 4]),
    ],
)
def test_filters(opened, records, wanted, numbers) -> None:
    rows = [entry(101.0), entry(102.0, "delete", result="Busy"), entry(103.0, "delete"), entry(104.0, "admin.reset")]
    keep(opened, records, *rows)
    assert [row.number for row in records.list(**wanted)] == numbers


def test_old_ones_and_those_above_the_count_go(opened, records) -> None:
    keep(opened, records, *(entry(float(at)) for at in range(10)))
    opened.write(lambda: records.trim(5, 3.0))
    assert [row.at for row in records.list()] == [5.0, 6.0, 7.0, 8.0, 9.0]
    opened.write(lambda: records.trim(100, 8.0))
    assert [row.at for row in records.list()] == [8.0, 9.0]
    assert keep(opened, records, entry()) == [11]  # a number is never given out twice


def test_it_is_read_without_a_daemon_and_nothing_is_changed(tmp_path) -> None:
    path = tmp_path / "state" / "ostler.db"
    store = Store.open(path)
    keep(store, AuditRecords(store), entry())
    store.close()
    before = path.read_bytes()
    offline = AuditRecords(read_offline(path))
    assert [row.number for row in offline.list()] == [1]
    assert path.read_bytes() == before


def test_one_with_many_entries_does_not_have_those_of_others_removed(opened, records) -> None:
    others = [msgspec.structs.replace(entry(float(uid)), uid=uid, who=f"uid {uid}") for uid in (1, 2, 2)]
    keep(opened, records, *others, *(entry(float(at)) for at in range(100, 200)))
    opened.write(lambda: records.trim(10, 0.0))
    left = records.list(limit=100)
    assert [row.uid for row in left if row.uid != 1000] == [1, 2, 2]
    assert [row.at for row in left if row.uid == 1000] == [float(at) for at in range(193, 200)]


@pytest.mark.parametrize(
    ("counts", "room", "most"),
    [([3, 2], 10, 3), ([], 10, 0), ([100], 10, 10), ([100, 1, 2], 10, 7), ([100, 100, 1], 11, 5), ([5, 5, 5], 2, 0)],
)
def test_the_most_that_each_may_keep(counts, room, most) -> None:
    assert fair_limit(counts, room) == most
    assert sum(min(count, most) for count in counts) <= room
