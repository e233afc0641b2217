"""What is remembered of plugins over restarts."""

import logging
import os

import pytest

from ostler.errors import PluginError
from ostler.plugins import in_memory_plugin
from ostler.plugins.plugin_records import (
    CRASH_LIMIT,
    CRASH_PERIOD,
    FILE_NAME,
    PluginCrash,
    PluginRecords,
    add_crash,
    disable,
    enable,
    read_records,
)


def crash(at, version="1.0", plugin="lamp"):
    return PluginCrash(plugin=plugin, at=at, version=version, what="Segmentation fault, at gpio.py:3 in switch")


def test_without_a_file_nothing_is_remembered(tmp_path):
    assert read_records(tmp_path) == PluginRecords()
    assert read_records(tmp_path / "none") == PluginRecords()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"holds": 3}', b"\xff\xfe", b'{"holds":{"a":{"why":1}}}'])
def test_a_damaged_file_is_said_and_harms_nothing(tmp_path, caplog, content):
    (tmp_path / FILE_NAME).write_bytes(content)
    assert read_records(tmp_path) == PluginRecords()
    if content != b"[]":
        assert "no plugin counts as disabled or quarantined" in caplog.text


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_not_a_regular_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / FILE_NAME)
    assert read_records(tmp_path) == PluginRecords()


def test_one_that_was_disabled_stays_so_in_each_version_until_it_is_enabled(tmp_path):
    disable(tmp_path / "new", "lamp", "it leaks", 7.0)
    hold = read_records(tmp_path / "new").hold_of("lamp", "9.9")
    assert (hold.why, hold.since, hold.is_quarantine) == ("it leaks", 7.0, False)
    assert enable(tmp_path / "new", "lamp") == hold
    assert read_records(tmp_path / "new").hold_of("lamp", "9.9") is None
    assert enable(tmp_path / "new", "lamp") is None


def test_so_many_crashes_within_a_day_quarantine_that_version(tmp_path):
    results = [add_crash(tmp_path, crash(100.0 + n), 100.0 + n) for n in range(CRASH_LIMIT)]
    assert results == [False] * (CRASH_LIMIT - 1) + [True]
    records = read_records(tmp_path)
    assert "the daemon crashed 3 times in its code within a day" in records.hold_of("lamp", "1.0").why
    assert records.hold_of("lamp", "1.1") is None
    assert len(records.recent_crashes("lamp", "1.0", 100.0)) == CRASH_LIMIT
    assert enable(tmp_path, "lamp").is_quarantine
    assert read_records(tmp_path) == PluginRecords()


def test_crashes_of_another_day_version_or_plugin_do_not_count(tmp_path):
    now = 10 * CRASH_PERIOD
    for other in (crash(now - CRASH_PERIOD - 1), crash(now, "0.9"), crash(now, plugin="torch"), crash(now)):
        assert add_crash(tmp_path, other, now) is False
    assert add_crash(tmp_path, crash(now), now) is False
    assert add_crash(tmp_path, crash(now), now) is True


def test_of_very_many_crashes_the_last_are_kept(tmp_path):
    for number in range(150):
        add_crash(tmp_path, crash(float(number), plugin=f"p{number}"), 0.0)
    kept = read_records(tmp_path).crashes
    assert (len(kept), kept[-1].plugin) == (100, "p149")


def test_a_directory_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PluginError, match=r"plugins\.json cannot be written: Not a directory"):
        disable(tmp_path / "file", "lamp", "", 0.0)


def test_a_quarantined_plugin_is_not_imported_and_listed_with_why_and_since(load, plugin, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    for _ in range(CRASH_LIMIT):
        add_crash(tmp_path, crash(50.0, ""), 50.0)
    host = load([("lamp", plugin()), ("torch", plugin())], records=read_records(tmp_path))
    lamp, torch = host.statuses()
    assert (lamp.state, lamp.since, torch.state) == ("quarantined", 50.0, "loaded")
    assert lamp.why.startswith("the daemon crashed 3 times")
    assert list(host.left_out()) == ["lamp"]
    assert host.problems() == []


def test_a_required_or_bundled_plugin_that_is_quarantined_is_a_problem(load, plugin, tmp_path):
    for _ in range(CRASH_LIMIT):
        add_crash(tmp_path, crash(50.0, ""), 50.0)
    records = read_records(tmp_path)
    host = load([("lamp", plugin())], records=records, required=["lamp"])
    assert "the required plugin lamp is quarantined: the daemon crashed" in host.problems()[0].what
    bundled = in_memory_plugin("lamp", plugin())._replace(is_bundled=True)
    host = load([bundled], records=records)
    assert "the bundled plugin lamp is quarantined: the daemon crashed" in host.problems()[0].what
    assert load([bundled], is_safe=True).statuses()[0].state == "loaded"
