from __future__ import annotations

import asyncio
import sqlite3

import pytest

from ostler.errors import DriverError
from ostler.manager import Manager
from ostler.messaging import Context, exposed
from ostler.types import CapabilityReport

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


LAMP = '[services.lamp]\nmanager = "lamp"\n'
DRIVER = LAMP + '[services.lamp.drivers.desk]\ndriver = "gpio"\n'
SCHEDULER = '[services.scheduler]\nmanager = "scheduler"\n'
SLOW = 'driver = "gpio"\ncall_timeout = "1h"\n'
THREE = f"{DRIVER}[services.lamp.drivers.far]\n{SLOW}[services.lamp.drivers.floor]\n{SLOW}"


@pytest.fixture
def told():
    return []


@pytest.fixture
def scheduler(told):
    class Scheduler(Manager):
        @exposed(role="operator")
        async def update_capabilities(self, ctx: Context, report: CapabilityReport) -> None:
            told.append(report)

    return Scheduler


def offered(reports):
    return [sorted(report.backends) for report in reports]


class Lock:
    """Holds the database locked, as another program would."""

    def __init__(self, store) -> None:
        self._connection = sqlite3.connect(store.path, isolation_level=None)
        self._connection.execute("BEGIN EXCLUSIVE")

    def release(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


async def test_capabilities_are_kept_and_sent_to_schedulers(bench, told, scheduler) -> None:
    async with bench(DRIVER + SCHEDULER, scheduler=scheduler) as b:
        await b.runtime.start()
        await asyncio.sleep(70)
        assert (told[-1].topic, sorted(told[-1].backends), told[-1].enabled) == ("lamp", ["desk"], True)
        (report,) = await b.store.aread(b.runtime.capability_records.list)
        assert (report.topic, report.backends, report.stale) == ("lamp", {"desk": {"free_bytes": 5}}, False)


async def test_a_disabled_service_is_sent_as_disabled_at_once_and_after_a_restart(bench, told, scheduler) -> None:
    async with bench(DRIVER + SCHEDULER, scheduler=scheduler) as b:
        await b.runtime.start()
        await asyncio.sleep(5)
        records = b.runtime.service_records
        await b.store.awrite(
            lambda: records.set_enabled("lamp", "node1", enabled=False, reason="moving", requester="a")
        )
        b.runtime.capability_reporter.trigger("lamp")
        await asyncio.sleep(1)
        assert (sorted(told[-1].backends), told[-1].enabled) == (["desk"], False)
    del told[:]
    async with bench(DRIVER + SCHEDULER, scheduler=scheduler) as b:
        await b.runtime.start()
        await asyncio.sleep(70)
        assert {report.enabled for report in told} == {False}


@pytest.mark.parametrize("answer", ["capabilities raise", "no table"])
async def test_capabilities_that_cannot_be_had_degrade_the_service_until_they_can(bench, manager, answer) -> None:
    good = {"desk": {"free_bytes": 5}}

    class Odd(manager):
        answer = None

        async def capabilities(self):
            if self.answer == "capabilities raise":
                raise OSError("no idea")
            return 17 if self.answer == "no table" else good

    async with bench('[services.lamp]\nmanager = "odd"\n', odd=Odd) as b:
        await b.runtime.start()
        b.service().manager.answer = answer
        await asyncio.sleep(70)
        assert b.state() == "degraded"
        assert "capabilities of service lamp" in b.why()
        b.service().manager.answer = None
        await asyncio.sleep(70)
        assert b.state() == "up"


async def test_one_backend_that_does_not_answer_does_not_hide_the_others(bench, trouble) -> None:
    config = DRIVER + 'capability_timeout = "5s"\n[services.lamp.drivers.floor]\ndriver = "gpio"\n'
    async with bench(config) as b:
        trouble.hang("capabilities of desk")
        await b.runtime.start()
        await asyncio.sleep(70)
        (report,) = await b.store.aread(b.runtime.capability_records.list)
        assert list(report.backends) == ["floor"]
        assert b.state() == "degraded"
        assert "driver desk is stuck" in b.why()


@pytest.mark.failure_mode("Plugins", "capabilities that are odd, very large or cannot be read")
async def test_capabilities_that_cannot_be_kept_do_not_make_the_state_flap(bench, manager) -> None:
    class Odd(manager):
        asked = 0

        async def capabilities(self):
            type(self).asked += 1
            return {"desk": {"checked": object()}}

    async with bench('[services.lamp]\nmanager = "odd"\n', odd=Odd) as b:
        await b.runtime.start()
        await asyncio.sleep(300)
        assert b.state() == "degraded"
        assert "not plain JSON" in b.why()
        assert Odd.asked < 12


@pytest.mark.failure_mode("Plugins", "capabilities that are odd, very large or cannot be read")
@pytest.mark.parametrize("each", [1, 2], ids=["each time another text", "each second time"])
async def test_capabilities_that_raise_other_texts_are_asked_for_with_pauses(bench, manager, each) -> None:
    class Odd(manager):
        asked = 0

        async def capabilities(self):
            type(self).asked += 1
            if self.asked % each == 0:
                raise OSError(f"no idea, try {self.asked}")
            return {"desk": {"free_bytes": 5}}

    async with bench('[services.lamp]\nmanager = "odd"\n', odd=Odd) as b:
        await b.runtime.start()
        await asyncio.sleep(300)
        assert 5 < Odd.asked < 30


async def test_a_change_is_known_to_the_scheduler_at_once(bench, told, scheduler, manager) -> None:
    class Lamp(manager):
        free = 5

        def backend_capabilities(self, name):
            return {"free_bytes": self.free}

    async with bench(DRIVER + SCHEDULER, scheduler=scheduler, lamp=Lamp) as b:
        await b.runtime.start()
        await asyncio.sleep(5)
        first = told[-1]
        b.service().manager.free = 7
        b.service().manager.capabilities_changed("desk")
        await asyncio.sleep(0.1)
        assert told[-1].backends == {"desk": {"free_bytes": 7}}
        assert told[-1].sequence > first.sequence
        assert told[-1].instance == first.instance
        assert told[-1].ages["desk"] < 0.1


async def test_a_change_while_a_backend_is_being_asked_has_it_asked_again(bench, told, scheduler, trouble) -> None:
    async with bench(DRIVER + SCHEDULER, scheduler=scheduler) as b:
        gate = trouble.hang("capabilities of desk")
        await b.runtime.start()
        await asyncio.sleep(1)
        b.service().manager.capabilities_changed()
        await asyncio.sleep(1)
        assert trouble.begun.count("capabilities of desk") == 1
        gate.set()
        await asyncio.sleep(1)
        assert trouble.begun.count("capabilities of desk") == 2


async def test_at_the_end_of_the_start_the_scheduler_knows_what_is_offered(bench, told, scheduler) -> None:
    async with bench(DRIVER + SCHEDULER, scheduler=scheduler) as b:
        await b.runtime.start()
        assert offered(told)[-1] == ["desk"]


@pytest.mark.parametrize("how", ["stuck", "not working", "stopped"])
async def test_what_cannot_be_used_is_withdrawn_at_once_and_that_is_kept(bench, told, scheduler, trouble, how) -> None:
    config = DRIVER + 'call_timeout = "2s"\ninit_timeout = "2s"\n'
    async with bench(config + SCHEDULER, scheduler=scheduler) as b:
        await b.runtime.start()
        await asyncio.sleep(1)
        assert offered(told)[-1] == ["desk"]
        if how == "stuck":
            trouble.hang("work desk")
            with pytest.raises(DriverError):
                await b.service().drivers.call("desk", "work")
        elif how == "not working":
            trouble.errors["is_working of desk"] = OSError("read-only file system")
            await b.service().check_health()
        else:
            await b.service().drain(1)
        await asyncio.sleep(1.5)
        assert told[-1].backends == {}
        expected = {"stuck": "stuck", "not working": "read-only", "stopped": "draining"}[how]
        assert expected in told[-1].withheld["desk"]
        (kept,) = await b.store.aread(b.runtime.capability_records.list)
        assert (kept.backends, kept.sequence) == ({}, told[-1].sequence)


async def test_a_driver_that_comes_back_is_asked_before_it_is_offered_again(bench, told, scheduler, trouble) -> None:
    async with bench(DRIVER + 'call_timeout = "2s"\n' + SCHEDULER, scheduler=scheduler) as b:
        await b.runtime.start()
        gate = trouble.hang("work desk")
        with pytest.raises(DriverError):
            await b.service().drivers.call("desk", "work")
        await asyncio.sleep(1)
        asked = trouble.begun.count("capabilities of desk")
        gate.set()
        await asyncio.sleep(1)
        assert offered(told)[-1] == ["desk"]
        assert trouble.begun.count("capabilities of desk") == asked + 1


async def test_slow_backends_hide_no_other_and_their_answers_count_when_they_come(
    bench, told, scheduler, trouble
) -> None:
    async with bench(THREE + SCHEDULER, scheduler=scheduler) as b:
        gate = trouble.hang("capabilities of far")
        trouble.gates["capabilities of floor"] = gate
        await b.runtime.start()
        assert offered(told)[-1] == ["desk"]
        assert "have not been received yet" in told[-1].withheld["far"]
        await asyncio.sleep(90)
        assert "the capabilities of backend far did not arrive within 1min" in b.why()
        assert trouble.begun.count("capabilities of far") == 1
        gate.set()
        await asyncio.sleep(1)
        assert offered(told)[-1] == ["desk", "far", "floor"]
        assert 85 < told[-1].ages["far"] < 95
        assert b.state() == "up"


async def test_statistics_that_take_longer_than_a_call_may_are_taken(bench, told, scheduler, trouble) -> None:
    async with bench(DRIVER + 'call_timeout = "20s"\n' + SCHEDULER, scheduler=scheduler) as b:
        gate = trouble.hang("capabilities of desk")
        await b.runtime.start()
        await asyncio.sleep(90)
        assert b.service().drivers.status("desk").state == "ready"
        gate.set()
        await asyncio.sleep(1)
        assert offered(told)[-1] == ["desk"]


async def test_nothing_to_report_is_no_fault(bench, told, scheduler, manager) -> None:
    class Silent(manager):
        def capabilities(self):
            return None

    async with bench('[services.lamp]\nmanager = "silent"\n' + SCHEDULER, scheduler=scheduler, silent=Silent) as b:
        await b.runtime.start()
        await asyncio.sleep(70)
        assert b.state() == "up"
        assert told == []


async def test_an_empty_table_is_a_withdrawal(bench, told, scheduler, manager) -> None:
    class Pool(manager):
        answer = {"pool": {"free_bytes": 5}}

        def capabilities(self):
            return self.answer

    async with bench('[services.lamp]\nmanager = "pool"\n' + SCHEDULER, scheduler=scheduler, pool=Pool) as b:
        await b.runtime.start()
        assert offered(told)[-1] == ["pool"]
        b.service().manager.answer = {}
        b.service().manager.capabilities_changed()
        await asyncio.sleep(0.2)
        assert offered(told)[-1] == []
        assert [report.backends for report in b.runtime.capability_reporter.live_reports()] == [{}]


async def test_one_odd_backend_of_a_table_is_left_out_by_name(bench, told, scheduler, manager) -> None:
    class Pool(manager):
        def capabilities(self):
            return {"good": {"free_bytes": 5}, "odd": {"free_bytes": float("inf")}, "none": None}

    async with bench('[services.lamp]\nmanager = "pool"\n' + SCHEDULER, scheduler=scheduler, pool=Pool) as b:
        await b.runtime.start()
        assert offered(told)[-1] == ["good"]
        assert "not plain JSON" in told[-1].withheld["odd"]
        assert b.why().startswith("the capabilities of backend odd are not plain JSON")


async def test_a_lease_is_over_with_the_first_answer_to_a_question_asked_after_it(
    bench, told, scheduler, trouble
) -> None:
    async with bench(DRIVER + 'call_timeout = "1h"\n' + SCHEDULER, scheduler=scheduler) as b:
        await b.runtime.start()
        gate = trouble.hang("capabilities of desk")
        b.service().manager.capabilities_changed("desk")
        await asyncio.sleep(1)
        b.service().manager.capabilities_changed("desk", lease="l1")
        await asyncio.sleep(1)
        assert told[-1].leases == {"l1": False}
        # What is being measured now may not know of it, as it was asked before.
        trouble.gates["capabilities of desk"] = second = type(gate)()
        gate.set()
        await asyncio.sleep(1)
        assert told[-1].leases == {"l1": False}
        second.set()
        await asyncio.sleep(1)
        assert {"l1": True} in [report.leases for report in told]
        await asyncio.sleep(61)
        b.service().manager.capabilities_changed("desk")
        await asyncio.sleep(1)
        assert told[-1].leases == {}


async def test_what_was_not_taken_is_given_back_without_a_look_at_the_backend(bench, told, scheduler, trouble) -> None:
    async with bench(DRIVER + SCHEDULER, scheduler=scheduler) as b:
        await b.runtime.start()
        asked = trouble.begun.count("capabilities of desk")
        b.service().manager.capabilities_changed(lease="l1", released=True)
        await asyncio.sleep(0.1)
        assert told[-1].leases == {"l1": True}
        assert trouble.begun.count("capabilities of desk") == asked


async def test_a_flush_waits_for_what_has_changed_and_no_longer_than_it_may(bench, told, scheduler, trouble) -> None:
    async with bench(DRIVER + SCHEDULER, scheduler=scheduler) as b:
        await b.runtime.start()
        reporter, before = b.runtime.capability_reporter, len(told)
        reporter.on_change("lamp", "desk")
        assert await reporter.flush(1.0)
        assert len(told) > before
        trouble.hang("capabilities of desk")
        reporter.on_change("lamp", "desk")
        assert not await reporter.flush(1.0)


async def test_what_is_offered_is_known_while_the_database_is_not(bench, told, scheduler) -> None:
    async with bench(DRIVER + SCHEDULER, scheduler=scheduler) as b:
        await b.runtime.start()
        await asyncio.sleep(1)
        lock = Lock(b.store)
        b.service().manager.capabilities_changed()
        await asyncio.sleep(0.2)
        assert told[-1].ages["desk"] < 0.2
        lock.release()
