"""Who looks after the command as process 1; here in a child that only plays it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from ostler.cli import init_process


def played(work: Callable[[], int], then: Callable[[int], object] = lambda _pid: None) -> int:
    """Be looked after, in a child that plays process 1, and `work` beside it; return the exit code of the former."""
    read, write = os.pipe()
    first = os.fork()
    if not first:
        try:
            init_process.fork_and_supervise()
            os.write(write, b"x")
            os._exit(work())
        finally:
            os._exit(99)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    then(first)
    return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])


@pytest.mark.parametrize("code", [0, 1, 78])
def test_the_exit_code_is_that_of_the_child(code) -> None:
    assert played(lambda: code) == code


def test_a_child_that_is_killed_is_named_and_its_signal_told_as_a_shell_would(capfd) -> None:
    assert played(lambda: os.kill(os.getpid(), signal.SIGKILL) or 0) == 137
    assert "was killed by SIGKILL" in capfd.readouterr().err


def test_a_signal_is_passed_on() -> None:
    def work() -> int:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(10)
        return 0

    assert played(work) == 5


def test_a_signal_without_a_handler_ends_both() -> None:
    assert played(lambda: time.sleep(10) or 0, lambda first: os.kill(first, signal.SIGTERM)) == 143


def test_the_child_has_the_signals_as_they_were() -> None:
    def work() -> int:
        return len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    assert played(work) == 0


def test_what_was_said_for_process_1_is_said_for_the_child(monkeypatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "0")
    monkeypatch.setenv("WATCHDOG_PID", "1")

    def work() -> int:
        return int({os.environ["LISTEN_PID"], os.environ["WATCHDOG_PID"]} != {str(os.getpid())})

    assert played(work) == 0
