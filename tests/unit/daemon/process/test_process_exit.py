"""The end of the process, with an exit that does not happen."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import threading

import pytest

from ostler.daemon.process.process_exit import (
    ATEXIT_STEP,
    THREADS_STEP,
    ExitOutcome,
    ProcessExit,
    close_loop,
    remaining_children,
    remaining_threads,
)

pytestmark = pytest.mark.usefixtures("signals_as_before")


def ended(outcome: ExitOutcome, **steps) -> list[int]:
    codes: list[int] = []
    # The children of other tests are not ours.
    ProcessExit(outcome, exit_process=codes.append, steps=steps, find_children=tuple).run(asyncio.new_event_loop())
    return codes


def test_an_end_without_left_overs_says_nothing_and_has_the_code_of_the_daemon(caplog) -> None:
    done = []
    assert ended(ExitOutcome(78, []), threads=lambda: done.append("threads"), atexit=lambda: done.append("atexit")) == [
        78
    ]
    assert done == ["threads", "atexit"]
    assert "left behind" not in caplog.text


def test_what_hung_in_the_stop_is_said(caplog) -> None:
    assert ended(ExitOutcome(0, ["driver disk of volume"])) == [0]
    assert "still running at the end of the stop: driver disk of volume" in caplog.text


@pytest.mark.failure_mode("Processes", "threads, executors and `atexit` of plugins that do not end")
def test_a_thread_that_does_not_end_is_named_and_left(caplog) -> None:
    codes: queue.Queue[int] = queue.Queue()
    free = threading.Event()
    thread = threading.Thread(target=free.wait, name="forgotten", daemon=False)
    thread.start()
    try:
        end = ProcessExit(
            ExitOutcome(3, [], 0.0),
            exit_process=lambda code: (codes.put(code), free.set()),
            steps={THREADS_STEP: thread.join},
        )
        end.run(asyncio.new_event_loop())
    finally:
        free.set()
        thread.join()
    assert codes.get(timeout=5) == 3
    assert codes.empty()  # once
    assert (
        "still running at the end of the stop: thread forgotten (threading.Event.wait), at threading.py" in caplog.text
    )


@pytest.mark.failure_mode("Processes", "threads, executors and `atexit` of plugins that do not end")
def test_atexit_that_does_not_come_back_is_named(caplog) -> None:
    free = threading.Event()
    end = ProcessExit(
        ExitOutcome(0, [], 0.0),
        exit_process=lambda _code: free.set(),
        steps={ATEXIT_STEP: lambda: free.wait(10) or None},
    )
    end.run(asyncio.new_event_loop())
    assert "still running at the end of the stop: a function registered with atexit, at threading.py" in caplog.text


def test_a_signal_ends_the_wait(caplog) -> None:
    codes: list[int] = []
    end = ProcessExit(
        ExitOutcome(0, [], 100.0),
        exit_process=codes.append,
        steps={ATEXIT_STEP: lambda: os.kill(os.getpid(), signal.SIGTERM)},
    )
    end.run(asyncio.new_event_loop())
    assert codes == [0]


def test_a_task_that_will_not_be_cancelled_does_not_hold_up_the_loop() -> None:
    loop = asyncio.new_event_loop()

    async def stubborn() -> None:
        while not over:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    over: list[bool] = []
    task = loop.create_task(stubborn(), name="stubborn")
    loop.call_soon(loop.stop)
    loop.run_forever()
    taken: list[bool] = []
    left = close_loop(loop, 0.02, lambda: taken.append(True))
    assert left == ["task stubborn"]
    assert taken == [True]
    assert loop.is_closed()
    task._log_destroy_pending = False
    over.append(True)


def test_children_that_run_are_named_and_those_that_have_ended_are_not() -> None:
    running, over = subprocess.Popen(["sleep", "67"]), subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, over.pid, os.WEXITED | os.WNOWAIT)
        left = list(remaining_children())
        assert f"process {running.pid} (sleep 67)" in left
        assert not [line for line in left if f"process {over.pid} " in line]
    finally:
        running.kill()
        running.wait()
        over.wait()


def test_daemon_threads_keep_nothing() -> None:
    free = threading.Event()
    threading.Thread(target=free.wait, name="harmless", daemon=True).start()
    assert not [line for line in remaining_threads() if "harmless" in line]
    free.set()
