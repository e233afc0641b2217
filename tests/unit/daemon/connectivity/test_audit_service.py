"""The audit log between the dispatcher and the store."""

import asyncio
import threading

import pytest

from ostler.clock import FakeClock
from ostler.config import load_text, validate
from ostler.daemon.connectivity.audit_service import AuditService
from ostler.store import Store
from ostler.store.retention_clock import RetentionClock
from ostler.types import AuditEntry

# private: _write_entries, _user_names: what the audit log calls, whose batches have a time of their own
# private: _close_interrupted, _write_in_flight: single steps of a task without an end


class FakeStore:
    """Runs what is to be written at once."""

    retention_clock = RetentionClock(FakeClock())

    async def awrite(self, work, label):
        return work()

    def kv(self, namespace):
        return None


class Registry:
    def find_method(self, topic, name):
        return None


class Records:
    def __init__(self):
        self.kept = []

    def save(self, entries):
        entries = list(entries)
        self.kept += entries
        return list(range(len(entries)))

    def trim(self, count, before, ages):
        pass


def make_auditor(**more):
    made = AuditService(FakeStore(), Registry(), FakeClock(), validate(load_text(""), {}, {}), **more)
    made.records = Records()
    return made


@pytest.fixture
def auditor():
    return make_auditor()


def entry(uid, number=0):
    return AuditEntry(number=number, at=1.0, who=f"uid {uid}", uid=uid, topic="lamp", method="switch")


async def test_entries_get_the_name_of_their_user(auditor):
    await auditor._write_entries([entry(0), entry(-1), entry(2**30), entry(0, number=7)])
    await auditor.close()
    assert [row.user for row in auditor.records.kept] == ["root", "", "", ""]


async def test_a_user_database_that_hangs_holds_up_neither_the_loop_nor_who_writes():
    answers, asked = threading.Event(), []
    auditor = make_auditor(
        find_user_name=lambda uid: (asked.append(uid), answers.wait(10), f"user{uid}")[2], lookup_wait=0.01
    )

    async with asyncio.timeout(5):
        await auditor._write_entries([entry(4001)])
        await auditor._write_entries([entry(4002)])
        assert [row.user for row in auditor.records.kept] == ["", ""]
        assert asked == [4001]
        answers.set()
        while 4001 not in auditor._user_names:
            await asyncio.sleep(0.001)
        await auditor._write_entries([entry(4001)])
        await auditor.close()
    assert auditor.records.kept[-1].user == "user4001"


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "ostler.db", clock=FakeClock(), busy_timeout=0.05)
    yield opened
    opened.close()


@pytest.fixture
def kept_auditor(store):
    def make():
        return AuditService(store, Registry(), FakeClock(), validate(load_text(""), {}, {}))

    return make


def test_what_was_under_way_at_a_crash_ends_as_interrupted_with_the_next_daemon(kept_auditor, store, caplog):
    async def main():
        crashed = kept_auditor()
        crashed.in_flight.new_entries = lambda list_calls: {
            f"{crashed.in_flight.key_prefix}.1": entry(4001),
            f"{crashed.in_flight.key_prefix}.2": entry(-1),
        }
        await crashed._write_in_flight(lambda moment: ())
        crashed.in_flight.requeue_ended([f"{crashed.in_flight.key_prefix}.2"])  # this one ended, the other did not
        await crashed._write_entries([entry(-1)])

        later = kept_auditor()
        later.in_flight.new_entries = lambda list_calls: {f"{later.in_flight.key_prefix}.1": entry(4003)}
        await later._write_in_flight(lambda moment: ())
        assert await later._close_interrupted()
        return await later.read_flushed(later.records.list)

    rows = asyncio.run(main())
    assert [(row.uid, row.result) for row in rows] == [(-1, "done"), (4001, "interrupted")]
    assert "the daemon ended while the request was in progress; it was received at 1970" in rows[1].text
    assert len(store.kv("ostler/audit-begun").items()) == 1, "that of the daemon that runs"
    assert "1 requests were in progress when the daemon last ended" in caplog.text


async def test_what_is_not_an_entry_is_removed_and_harms_nobody(kept_auditor, store):
    await asyncio.to_thread(store.kv("ostler/audit-begun").set, "x", {"at": "never"})
    auditor = kept_auditor()
    assert await auditor._close_interrupted()
    assert auditor.records.list() == []
    assert store.kv("ostler/audit-begun").items() == {}
