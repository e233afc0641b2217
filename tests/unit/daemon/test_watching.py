"""The audit log between the dispatcher and the store."""

import asyncio
import threading

import pytest

from ostler.clock import FakeClock
from ostler.config import load_text, validate
from ostler.daemon import watching
from ostler.daemon.watching import Auditor
from ostler.store.ages import Ages
from ostler.types import AuditEntry


class Store:
    """Runs what is to be written at once."""

    ages = Ages(FakeClock())

    async def awrite(self, work, label):
        return work()


class Dispatcher:
    def method_at(self, topic, name):
        return None


class Records:
    def __init__(self):
        self.kept = []

    def keep(self, entries):
        self.kept += entries
        return list(range(len(self.kept)))

    def trim(self, count, before, ages):
        pass


@pytest.fixture
def auditor():
    made = Auditor(Store(), Dispatcher(), FakeClock(), validate(load_text(""), {}, {}))
    made.records = Records()
    return made


def entry(uid, number=0):
    return AuditEntry(number=number, at=1.0, who=f"uid {uid}", uid=uid, topic="lamp", method="switch")


def test_entries_get_the_name_of_their_user(auditor):
    async def main():
        await auditor._keep([entry(0), entry(-1), entry(2**30), entry(0, number=7)])
        await auditor.close()

    asyncio.run(main())
    assert [row.user for row in auditor.records.kept] == ["root", "", "", ""]


def test_a_user_database_that_does_not_answer_holds_up_neither_the_loop_nor_who_writes(auditor, monkeypatch):
    answers, asked = threading.Event(), []
    monkeypatch.setattr(watching, "_name_of", lambda uid: (asked.append(uid), answers.wait(10), f"user{uid}")[2])
    monkeypatch.setattr(watching, "_MOMENT", 0.01)

    async def main():
        async with asyncio.timeout(5):
            await auditor._keep([entry(4001)])
            await auditor._keep([entry(4002)])
            assert [row.user for row in auditor.records.kept] == ["", ""]
            assert asked == [4001]
            answers.set()
            while 4001 not in auditor._users:
                await asyncio.sleep(0.001)
            await auditor._keep([entry(4001)])
            await auditor.close()

    asyncio.run(main())
    assert auditor.records.kept[-1].user == "user4001"
