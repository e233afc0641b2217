"""The datagrams that systemd gets."""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostler.systemd import FakeNotifier, ServiceNotifier, SystemdNotifier
from ostler.systemd.notify import MAX_DATAGRAM, encode_datagram


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket that listens as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


@pytest.fixture
def notifier(supervisor: socket.socket) -> Iterator[SystemdNotifier]:
    notifier = SystemdNotifier()
    yield notifier
    notifier.close()


def test_ready_and_its_status_are_one_datagram(supervisor, notifier):
    notifier.ready("two services up")
    assert supervisor.recv(MAX_DATAGRAM) == b"READY=1\nSTATUS=two services up"


def test_reloading_and_monotonic_usec_are_one_datagram(supervisor, notifier):
    notifier.reloading(1_234_567_890, "reading the configuration")
    expected = b"RELOADING=1\nMONOTONIC_USEC=1234567890\nSTATUS=reading the configuration"
    assert supervisor.recv(MAX_DATAGRAM) == expected


def test_each_phrase_is_what_systemd_knows(supervisor, notifier):
    notifier.status("waiting for store")
    notifier.stopping()
    notifier.extend_timeout(2.5, "waiting for volume")
    notifier.watchdog()
    notifier.send(WATCHDOG="trigger")
    assert [supervisor.recv(MAX_DATAGRAM) for _ in range(5)] == [
        b"STATUS=waiting for store",
        b"STOPPING=1",
        b"EXTEND_TIMEOUT_USEC=2500000\nSTATUS=waiting for volume",
        b"WATCHDOG=1",
        b"WATCHDOG=trigger",
    ]


def test_a_status_in_any_script_arrives_as_utf_8(supervisor, notifier):
    notifier.status("Speicher läuft, 日本語")
    assert supervisor.recv(MAX_DATAGRAM).decode() == "STATUS=Speicher läuft, 日本語"


def test_a_status_of_several_lines_cannot_become_other_fields(supervisor, notifier):
    notifier.status("bad name 'a\nREADY=1\r\nb'")
    assert supervisor.recv(MAX_DATAGRAM) == b"STATUS=bad name 'a READY=1 b'"


def test_a_status_shows_nothing_hostile_to_a_terminal(supervisor, notifier):
    notifier.status("lamp\x1b[2J\u202e\x9b failed")
    assert supervisor.recv(MAX_DATAGRAM) == b"STATUS=lamp\\x1b[2J\\u202e\\x9b failed"


def test_a_status_that_is_too_long_is_cut_and_ready_still_arrives(supervisor, notifier):
    notifier.ready("ä" * 5000)
    datagram = supervisor.recv(10_000)
    assert len(datagram) <= MAX_DATAGRAM
    assert datagram.startswith(b"READY=1\nSTATUS=")
    assert datagram.decode().endswith("ä…")


@pytest.mark.parametrize("length", range(MAX_DATAGRAM - 20, MAX_DATAGRAM + 20))
def test_no_length_of_status_exceeds_a_datagram(length):
    assert len(encode_datagram({"READY": 1, "STATUS": "x" * length})) <= MAX_DATAGRAM


def test_text_that_is_no_valid_unicode_is_sent_all_the_same(supervisor, notifier):
    notifier.status("file \udcff")
    assert supervisor.recv(MAX_DATAGRAM) == b"STATUS=file \\udcff"


def test_the_socket_is_taken_out_of_the_environment_of_child_processes(notifier):
    assert notifier.connected
    assert "NOTIFY_SOCKET" not in os.environ


@pytest.mark.failure_mode("Machine", "started without systemd")
def test_without_systemd_it_does_nothing(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = SystemdNotifier()
    notifier.ready("well")
    notifier.watchdog()
    notifier.close()
    assert not notifier.connected


# sdnotify leaves the socket that could not connect to the garbage collector, which closes it with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_socket_that_nobody_bound_is_said_once_and_harms_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notifier = SystemdNotifier()
    notifier.ready()
    assert not notifier.connected
    assert len(caplog.records) == 1


def test_a_supervisor_that_went_away_is_said_once(supervisor, notifier, caplog):
    supervisor.close()
    with caplog.at_level(logging.WARNING):
        notifier.watchdog()
        notifier.watchdog()
    assert len(caplog.records) == 1


def test_the_fake_records_what_the_real_one_sends():
    fake = FakeNotifier()
    notifier: ServiceNotifier = fake
    notifier.status("starting")
    notifier.ready("up")
    notifier.reloading(5)
    notifier.watchdog()
    assert fake.datagrams == [
        {"STATUS": "starting"},
        {"READY": "1", "STATUS": "up"},
        {"RELOADING": "1", "MONOTONIC_USEC": "5"},
        {"WATCHDOG": "1"},
    ]
    assert fake.statuses == ["starting", "up"]
    assert fake.count("WATCHDOG") == 1
