"""A host that is renamed, and records of another machine."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path

import pytest

from ostler.clock import FakeClock
from ostler.store import CapabilityRecords, ServiceRecords, Store
from ostler.store.host_identity import _hmac_sha256, machine_id, settle_identity
from ostler.store.journal import EventRecords
from ostler.store.periodic_runs import PeriodicRecords, PeriodicRun
from ostler.types import CapabilityReport

ALPHA, BETA = "a" * 32, "b" * 32


class Row:
    """An event of the topic `lamp`."""

    topic, epoch, at = "lamp", 1, 1.0

    def __init__(self, number: int, data: bytes) -> None:
        self.number, self.data = number, data


def records(store: Store, clock: FakeClock, host: str) -> ServiceRecords:
    return ServiceRecords(store, clock, host)


def fill(store: Store, clock: FakeClock, host: str) -> None:
    """Write what a host leaves: a service that was disabled, what it can do, runs, and an event."""
    services = records(store, clock, host)
    services.register("lamp", "lamp", "1.0")
    services.set_enabled("lamp", host, enabled=False, reason="the disk is dying", who="root")
    CapabilityRecords(store, clock).put(CapabilityReport(topic="lamp", host=host, backends={}, reported_at=1.0))
    PeriodicRecords(store, host).save([PeriodicRun("lamp", "poll", 7)])
    asyncio.run(EventRecords(store, clock, host).append([Row(1, host.encode())]))


def test_a_renamed_host_keeps_what_the_operator_said_its_journal_and_its_runs(store, clock, caplog):
    settle_identity(store, "alpha", ALPHA)
    fill(store, clock, "alpha")
    settle_identity(store, "alpha", ALPHA)
    assert caplog.text == ""
    settle_identity(store, "ip-10-0-0-7", ALPHA)
    (row,) = records(store, clock, "ip-10-0-0-7").list()
    assert (row.host, row.here, row.enabled, row.disabled_reason) == ("ip-10-0-0-7", True, False, "the disk is dying")
    assert [report.host for report in CapabilityRecords(store, clock).list()] == ["ip-10-0-0-7"]
    assert [run.runs for run in PeriodicRecords(store, "ip-10-0-0-7").list()] == [7]
    page = asyncio.run(EventRecords(store, clock, "ip-10-0-0-7").since([("lamp", 0, 0)], 10))
    assert page.events == [b"alpha"]
    assert caplog.text.count("this host was named alpha and is ip-10-0-0-7 now") == 1
    settle_identity(store, "ip-10-0-0-7", ALPHA)
    assert caplog.text.count("was named") == 1


def test_what_stood_under_the_new_name_gives_way(store, clock):
    settle_identity(store, "alpha", ALPHA)
    fill(store, clock, "beta")
    fill(store, clock, "alpha")
    records(store, clock, "beta").set_enabled("lamp", "beta", enabled=True)
    settle_identity(store, "beta", ALPHA)
    (row,) = records(store, clock, "beta").list()
    assert not row.enabled
    assert asyncio.run(EventRecords(store, clock, "beta").since([("lamp", 0, 0)], 10)).events == [b"alpha"]
    assert len(PeriodicRecords(store, "beta").list()) == 1


def test_records_of_another_machine_are_said_and_not_taken_over(store, clock, caplog):
    settle_identity(store, "alpha", ALPHA)
    fill(store, clock, "alpha")
    settle_identity(store, "gamma", BETA)
    assert "were made by another machine (alpha)" in caplog.text
    assert "`ostler service forget` removes them" in caplog.text
    assert [row.host for row in records(store, clock, "gamma").list()] == ["alpha"]
    caplog.clear()
    settle_identity(store, "gamma", BETA)
    assert caplog.text == ""


def test_a_copy_that_has_the_same_name_is_said(store, caplog):
    settle_identity(store, "alpha", ALPHA)
    settle_identity(store, "alpha", BETA)
    assert "were made by another machine (alpha)" in caplog.text


def test_without_an_id_of_the_machine_the_state_directory_is_the_identity(store, clock, caplog):
    settle_identity(store, "4f2a", "")
    fill(store, clock, "4f2a")
    settle_identity(store, "9b31", "")
    assert [row.host for row in records(store, clock, "9b31").list()] == ["9b31"]
    settle_identity(store, "9b31", ALPHA)
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
    assert _hmac_sha256(b"k" * 16, b"text") == hmac.digest(b"k" * 16, b"text", "sha256")


@pytest.mark.parametrize("text", ["", "uninitialized\n", "0" * 32, "abc", "\xff"])
def test_a_machine_without_an_id(tmp_path: Path, text: str):
    path = tmp_path / "machine-id"
    path.write_text(text)
    assert machine_id(path) == ""
    assert machine_id(tmp_path / "none") == ""
