"""How a crash is recorded for the next start, and what is read from that."""

import os
import subprocess
import sys
import textwrap

import pytest

from ostler.daemon.process.crash_record import CrashRecorder, CrashReport, StackFrame, parse_report
from ostler.daemon.startup.quarantine import examine_crashes, find_culprit
from ostler.plugins import DiscoveredPlugin
from ostler.plugins.plugin_records import read_records

SEGFAULT = """Fatal Python error: Segmentation fault

Thread 0x00007f0000000001 (most recent call first):
  File "/lib/ostler_torch/driver.py", line 5 in burn

Current thread 0x00007f0000000002 [lamp.desk-1] (most recent call first):
  File "/lib/python3.11/ctypes/__init__.py", line 517 in string_at
  File "/lib/ostler_lamp/gpio.py", line 12 in switch
  File "/lib/ostler/driver/driver_executor.py", line 347 in _run

Extension modules: msgspec._core (total: 1)
"""


def crash(tmp_path, code):
    """Run code in a process that records its crashes; return what is found afterwards."""
    program = f"""
import ctypes, os, sys, threading
from pathlib import Path
from ostler.daemon.process.crash_record import CrashRecorder
recorder = CrashRecorder(Path({str(tmp_path / "state")!r}))
assert recorder.open()
{textwrap.dedent(code)}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    recorder = CrashRecorder(tmp_path / "state")
    recorder.open()
    recorder.close()
    return done, recorder.earlier


@pytest.fixture(autouse=True)
def exit_of_this_process():
    """The recorder replaces it, and puts it back."""
    before = os._exit
    yield
    assert os._exit is before


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("ctypes.string_at(0)", "Segmentation fault"),
        ("os.abort()", "Aborted"),
        ("os.kill(os.getpid(), 7)", "Bus error"),
        ("os._exit(3)", "os._exit(3) was called"),
        ("t = threading.Thread(target=lambda: ctypes.string_at(0)); t.start(); t.join()", "Segmentation fault"),
    ],
)
def test_a_crash_is_found_by_the_next_start_with_its_stack(tmp_path, code, how):
    _, (report,) = crash(tmp_path, code)
    assert report.how == how
    assert any(frame.file == "<string>" for frame in report.stack)
    assert report.at > 0
    _, none = crash(tmp_path, "recorder.close()")
    assert none == []


@pytest.mark.parametrize(
    "code",
    ["recorder.close()", "os.kill(os.getpid(), 9)", "recorder.close(); os._exit(3)",
     "pid = os.fork() or ctypes.string_at(0); os.waitpid(pid, 0); recorder.close()",
     "pid = os.fork() or os._exit(1); os.waitpid(pid, 0); recorder.close()"],
)  # fmt: skip
def test_a_regular_end_a_kill_and_a_crashed_child_are_no_crash(tmp_path, code):
    _, found = crash(tmp_path, code)
    assert found == []
    assert not list(tmp_path.rglob("*.txt"))


def test_what_a_living_process_writes_is_left_to_it(tmp_path):
    code = f"""
    import subprocess
    other = "from pathlib import Path; from ostler.daemon.process.crash_record import CrashRecorder; " \\
        "r = CrashRecorder(Path({str(tmp_path / "state")!r})); r.open(); print(len(r.earlier)); r.close()"
    print(subprocess.run([sys.executable, "-c", other], capture_output=True, text=True).stdout, flush=True)
    ctypes.string_at(0)
    """
    done, found = crash(tmp_path, code)
    assert done.stdout.strip() == "0"
    assert len(found) == 1


def test_without_a_usable_directory_a_crash_is_written_to_standard_error(tmp_path):
    (tmp_path / "state").touch()
    recorder = CrashRecorder(tmp_path / "state")
    assert recorder.open() is False
    recorder.close()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert CrashRecorder(shared).open() is False


def test_the_stack_of_the_crashed_thread_is_read_and_no_other():
    report = parse_report(SEGFAULT, 5.0)
    assert (report.how, report.at) == ("Segmentation fault", 5.0)
    assert [str(frame) for frame in report.stack] == [
        "__init__.py:517 in string_at", "gpio.py:12 in switch", "driver_executor.py:347 in _run",
    ]  # fmt: skip
    places = {"lamp": ["/lib/ostler_lamp/"], "torch": ["/lib/ostler_torch/"]}
    assert find_culprit(report, places) == ("lamp", StackFrame("/lib/ostler_lamp/gpio.py", "12", "switch"))
    assert find_culprit(report, {"la": ["/lib/ostler_la"]}) == ("", None)


@pytest.mark.parametrize("text", ["", "\0\0", "Fatal Python error: x", "Current thread\n garbage", "x" * 100_000])
def test_what_is_no_report_of_a_crash_has_no_stack(text):
    assert parse_report(text, 0.0).stack == []


def test_a_crash_is_held_against_its_plugin_and_one_of_the_daemon_against_none(tmp_path, caplog):
    plugin = DiscoveredPlugin("lamp", "json.decoder", lambda: None, "ostler-lamp", "1.2")
    mine = StackFrame(__import__("json").__file__, "3", "loads")
    examine_crashes([CrashReport(9.0, "Aborted", [mine], "text")], tmp_path, [plugin])
    (crash_,) = read_records(tmp_path).crashes
    assert (crash_.plugin, crash_.version, crash_.what) == ("lamp", "1.2", "Aborted, at __init__.py:3 in loads")
    other = StackFrame("/lib/ostler/x.py", "3", "f")
    examine_crashes([CrashReport(9.0, "Aborted", [other], ""), CrashReport(9.0, "x", [], "")], tmp_path, [plugin])
    assert len(read_records(tmp_path).crashes) == 1
    assert "the daemon crashed at " in caplog.text
