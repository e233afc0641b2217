"""What the kernel knows of this process."""

import os

from ostler.daemon.process.process_facts import descriptors, process_facts, versions
from ostler.redaction import SECRETS


def test_the_open_files_are_among_the_descriptors(tmp_path):
    path = tmp_path / "open file"
    read_end, write_end = os.pipe()
    with path.open("w"):
        found = descriptors()
    os.close(read_end)
    os.close(write_end)
    assert str(path) in found["files"]
    assert found["kinds"]["pipe"] >= 2
    assert found["open"] <= found["limit"]


def test_many_descriptors_are_counted_and_not_all_named(tmp_path):
    opened = [(tmp_path / str(number)).open("w") for number in range(150)]
    found = descriptors()
    for each in opened:
        each.close()
    assert len(found["files"]) == 100
    assert found["open"] >= 150


def test_memory_and_time_are_those_of_this_process():
    found = process_facts()
    assert found["pid"] == os.getpid()
    assert found["memory"]["VmRSS"] > 10_000_000
    assert found["cpu"]["user"] > 0


def test_a_secret_on_the_command_line_is_masked(monkeypatch):
    monkeypatch.setattr("sys.argv", ["ostler", "run", "--set", "password=hunter2hunter2"])  # that of another program
    SECRETS.add("hunter2hunter2")
    assert process_facts()["command"] == "ostler run --set password=***"


def test_the_versions_are_of_what_runs_and_not_of_what_builds():
    found = versions()
    assert found["packages"]["msgspec"]
    assert "pytest" not in found["packages"]
    assert found["sqlite"].count(".") == 2
