"""A host that is renamed, and records of another machine."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path

import pytest

from ostler.clock import FakeClock
from ostler.store import CapabilityRecords, ServiceRecords, Store
from ostler.store.records.host_identity import adopt_host_name, hmac_sha256, machine_id
from ostler.store.records.journal_records import JournalRecords
from ostler.store.records.periodic_records import PeriodicRecords, PeriodicRun
from ostler.types import CapabilityReport

ALPHA, BETA = "a" * 32, "b" * 32


class Row:
    """An event of the topic `lamp`."""

    topic, epoch, at = "lamp", 1, 1.0

    def __init__(self, number: int, data: bytes) -> None:
        self.sequence, self.data = number, data


def records(store: Store, clock: FakeClock, host: str) -> ServiceRecords:
    return ServiceRecords(store, clock, host)


def fill(store: Store, clock: FakeClock, host: str) -> None:
    """Write what a host leaves: a service that was disabled, what it can do, runs, and an event."""
    services = records(store, clock, host)
    services.register("lamp", "lamp", "1.0")
    services.set_enabled("lamp", host, enabled=False, reason="the disk is dying", requester="root")
    CapabilityRecords(store, clock).save(CapabilityReport(topic="lamp", host=host, backends={}, reported_at=1.0))
    PeriodicRecords(store, host).save([PeriodicRun("lamp", "poll", 7)])
    asyncio.run(JournalRecords(store, clock, host).append([Row(1, host.encode())]))


def test_a_renamed_host_keeps_what_the_operator_said_its_journal_and_its_runs(store, clock, caplog):
    adopt_host_name(store, "alpha", ALPHA)
    fill(store, clock, "alpha")
    adopt_host_name(store, "alpha", ALPHA)
    assert caplog.text == ""
    adopt_host_name(store, "ip-10-0-0-7", ALPHA)
    (row,) = records(store, clock, "ip-10-0-0-7").list()
    assert (row.host, row.here, row.enabled, row.disabled_reason) == ("ip-10-0-0-7", True, False, "the disk is dying")
    assert [report.host for report in CapabilityRecords(store, clock).list()] == ["ip-10-0-0-7"]
    assert [run.runs for run in PeriodicRecords(store, "ip-10-0-0-7").list()] == [7]
    page = asyncio.run(JournalRecords(store, clock, "ip-10-0-0-7").since([("lamp", 0, 0)], 10))
    assert page.events == [b"alpha"]
    assert caplog.text.count("this host was renamed from alpha to ip-10-0-0-7") == 1
    adopt_host_name(store, "ip-10-0-0-7", ALPHA)
    assert caplog.text.count("was renamed") == 1


def test_what_stood_under_the_new_name_gives_way(store, clock):
    adopt_host_name(store, "alpha", ALPHA)
    fill(store, clock, "beta")
    fill(store, clock, "alpha")
    records(store, clock, "beta").set_enabled("lamp", "beta", enabled=True)
    adopt_host_name(store, "beta", ALPHA)
    (row,) = records(store, clock, "beta").list()
    assert not row.enabled
    assert asyncio.run(JournalRecords(store, clock, "beta").since([("lamp", 0, 0)], 10)).events == [b"alpha"]
    assert len(PeriodicRecords(store, "beta").list()) == 1


def test_records_of_another_machine_are_said_and_not_taken_over(store, clock, caplog):
    adopt_host_name(store, "alpha", ALPHA)
    fill(store, clock, "alpha")
    adopt_host_name(store, "gamma", BETA)
    assert "are from another machine (alpha)" in caplog.text
    assert "`ostler service delete` removes them" in caplog.text
    assert [row.host for row in records(store, clock, "gamma").list()] == ["alpha"]
    caplog.clear()
    adopt_host_name(store, "gamma", BETA)
    assert caplog.text == ""


def test_a_copy_that_has_the_same_name_is_said(store, caplog):
    adopt_host_name(store, "alpha", ALPHA)
    adopt_host_name(store, "alpha", BETA)
    assert "are from another machine (alpha)" in caplog.text


def test_without_an_id_of_the_machine_the_state_directory_is_the_identity(store, clock, caplog):
    adopt_host_name(store, "4f2a", "")
    fill(store, clock, "4f2a")
    adopt_host_name(store, "9b31", "")
    assert [row.host for row in records(store, clock, "9b31").list()] == ["9b31"]
    adopt_host_name(store, "9b31", ALPHA)
    assert "another machine" not in caplog.text


def test_the_id_is_that_of_the_machine_and_does_not_give_it_away(tmp_path: Path):
    path = tmp_path / "machine-id"
    path.write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    made = machine_id(path)
    assert made == machine_id(path)
    assert len(made) == 32
    assert made[12] == "4"
    assert made != path.read_text().strip()
    path.write_text("4d1219c7c4c5404aaa1f6d2a48adfda4\n")
    assert machine_id(path) != made


def test_the_sum_is_that_of_the_standard():
    assert hmac_sha256(b"k" * 16, b"text") == hmac.digest(b"k" * 16, b"text", "sha256")


@pytest.mark.parametrize("text", ["", "uninitialized\n", "0" * 32, "abc", "\xff"])
def test_a_machine_without_an_id(tmp_path: Path, text: str):
    path = tmp_path / "machine-id"
    path.write_text(text)
    assert machine_id(path) == ""
    assert machine_id(tmp_path / "none") == ""
