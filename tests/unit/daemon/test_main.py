import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading

import pytest

from ostler.config.paths import Paths
from ostler.daemon import main
from ostler.daemon.process.process_exit import ExitOutcome
from ostler.errors import ConfigurationError, Problem

# private: _SignalBuffer, _run_to_outcome: steps before and after the daemon, without a daemon
# private: _run: what is looked at is on the way to the daemon


def close_only(_outcome, loop) -> None:
    loop.close()


@pytest.fixture(autouse=True)
def hooks_of_this_process(monkeypatch):
    """A daemon takes them over; here they are those of the tests."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    yield
    logging.captureWarnings(False)


async def test_signals_that_come_early_are_kept_and_handed_over_in_their_order() -> None:
    early, got = main._SignalBuffer(), []
    early.install(asyncio.get_running_loop())
    for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM):
        os.kill(os.getpid(), number)
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    early.forward_to(
        lambda number: got.append(("stop", number)), lambda: got.append("reload"), lambda: got.append("dump")
    )
    assert got == ["reload", "dump", ("stop", signal.SIGTERM)]
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0.05)
    assert got[-1] == ("stop", signal.SIGINT)


def test_problems_are_written_one_a_line_as_a_compiler_would(capsys) -> None:
    main.print_problems(
        ConfigurationError([Problem("ostler.toml:3:1", "unknown key"), Problem("ostler.toml:9:2", "no number")])
    )
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("ostler.toml:3:1: unknown key")
    assert lines[-1] == "ostler: 2 problems in the configuration; nothing was started"


@pytest.mark.usefixtures("signals_as_before")
def test_a_configuration_that_cannot_be_used_ends_with_78_and_nothing_is_made(tmp_path, capsys) -> None:
    paths = Paths.find(str(tmp_path), {})
    assert main.run_daemon(paths, ["log.level=7", "stor.x=1"], end=close_only) == 78
    err = capsys.readouterr().err
    assert "--set: log.level" in err
    assert "did you mean" in err
    assert not paths.state_dir.exists()
    assert not paths.runtime_dir.exists()


@pytest.mark.usefixtures("signals_as_before")
def test_a_log_level_of_the_command_line_is_one_more_override(tmp_path, monkeypatch) -> None:
    seen = []

    async def run(paths, overrides, guard, *, greet, is_safe, crashes, monitor):
        seen.append(overrides)
        return ExitOutcome(3, [])

    # What is looked at is on the way to the daemon; that itself would be started.
    monkeypatch.setattr(main, "_run", run)
    assert main.run_daemon(Paths.find(str(tmp_path), {}), ["log.level='info'"], log_level="debug", end=close_only) == 3
    assert seen == [["log.level='info'", 'log.level="debug"']]


@pytest.mark.failure_mode("Plugins", "one that cancels all tasks, stops the loop or exits")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.usefixtures("signals_as_before")
def test_a_task_of_a_plugin_that_exits_does_not_end_the_daemon(kind, caplog) -> None:
    async def exits():
        raise kind("enough")

    async def daemon():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        task = loop.create_task(exits())
        await asyncio.wait([task])
        task.exception()
        await asyncio.sleep(0.01)
        return ExitOutcome(0, [])

    loop = asyncio.new_event_loop()
    try:
        assert main._run_to_outcome(loop, daemon()).code == 0
    finally:
        loop.close()
    assert f"a task or callback of a plugin raised {kind.__name__}: enough" in caplog.text


@pytest.mark.usefixtures("signals_as_before")
def test_the_daemons_own_exit_and_ctrl_c_before_there_are_handlers_end_it(caplog) -> None:
    async def exits():
        raise SystemExit("the daemon itself")

    async def interrupted():
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await asyncio.sleep(10)

    loop = asyncio.new_event_loop()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main._run_to_outcome(loop, exits()).code == 1
        assert main._run_to_outcome(loop, interrupted()).code == 130
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        loop.close()


@pytest.mark.failure_mode("Plugins", "one that cancels all tasks, stops the loop or exits")
def test_a_plugin_that_stops_the_loop_does_not_end_the_daemon(caplog) -> None:
    async def daemon():
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return ExitOutcome(0, [])

    loop = asyncio.new_event_loop()
    try:
        assert main._run_to_outcome(loop, daemon()).code == 0
    finally:
        loop.close()
    assert "Event loop stopped" in caplog.text
