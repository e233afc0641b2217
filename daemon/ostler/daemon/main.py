"""`ostler run`: from the command line to the exit code."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ostler import fork, log
from ostler.aio.optional_thread import start_optional_thread
from ostler.config.paths import Paths
from ostler.daemon.banner import print_banner
from ostler.daemon.process.crash_record import CrashRecorder
from ostler.daemon.process.fork_guard import ForkGuard
from ostler.daemon.process.loop_monitor import LoopMonitor, TurnSelector
from ostler.daemon.process.process_exit import ExitOutcome, ProcessExit
from ostler.daemon.process.process_limits import raise_descriptor_limit, shorten_switch_interval
from ostler.daemon.process.shutdown_watchdog import LOG_FLUSH_TIMEOUT
from ostler.daemon.process.signal_guard import SignalGuard
from ostler.errors import ConfigurationError, OstlerError, StartRefused, error_line, is_a
from ostler.plugins.plugin_directory import activate_plugins
from ostler.printable import printable

if TYPE_CHECKING:
    from ostler.daemon.daemon import Daemon

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def end_process(outcome: ExitOutcome, loop: asyncio.AbstractEventLoop) -> None:
    """End the process; see `ProcessExit`."""
    ProcessExit(outcome).run(loop)


def run_daemon(
    paths: Paths,
    overrides: Sequence[str] = (),
    log_level: str | None = None,
    *,
    is_safe: bool = False,
    end: Callable[[ExitOutcome, asyncio.AbstractEventLoop], None] = end_process,
) -> int:
    """Run a daemon until it is told to stop. On the main thread.

    Args:
        paths: Where its configuration, state and sockets are.
        overrides: Values of the command line, each `table.key=VALUE`.
        log_level: A log level that wins over the configuration's.
        is_safe: Whether only plugins that come with Ostler are loaded.
        end: Ends the process; a test hands in one that does not.

    Returns:
        The exit code, if the process continues: 0 after a stop that was asked for, 1 when it failed, 78 when the
        configuration cannot be used.
    """
    crashes = CrashRecorder(paths.state_dir)
    _prepare_process(crashes)
    log.set_up(level=log_level or "info")
    log_guard = log.start_guard()
    activate_plugins(paths)
    log.install_excepthooks()
    if log_level:
        overrides = [*overrides, f'log.level="{log_level}"']
    by_hand = not os.environ.keys() & {"NOTIFY_SOCKET", "INVOCATION_ID"}  # systemd sets these
    guard = ForkGuard(paths)
    guard.install()
    selector = TurnSelector()
    loop = asyncio.SelectorEventLoop(selector)
    monitor = LoopMonitor(selector, loop)
    guard.add_loop(loop)
    try:
        outcome = _run_to_outcome(
            loop, _run(paths, list(overrides), guard, greet=by_hand, is_safe=is_safe, crashes=crashes, monitor=monitor)
        )
        fork.exit_if_child(sys.exc_info()[1])
        crashes.close()
        end(outcome, loop)
        log.flush(LOG_FLUSH_TIMEOUT)
    finally:
        crashes.close()
        guard.remove()
        log_guard.stop()
    return outcome.code


def _prepare_process(crashes: CrashRecorder) -> None:
    """Set what the process that started this one could have set otherwise, before anything else is done."""
    # Until the loop has its handler a SIGHUP would kill the process, which systemd counts as a clean exit. What it
    # asks for is done anyhow: the configuration has not been read yet.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A blocked loop cannot report itself: the SIGABRT of systemd's watchdog has the stacks of all threads written.
    # As any crash: to a file that the next start logs, which then knows whose code ran; if that cannot be, as here.
    faulthandler.enable(sys.__stderr__ or 2)
    crashes.open()
    raise_descriptor_limit()
    shorten_switch_interval()
    os.umask(os.umask(0o022) | 0o022)  # never inherited


def _run_to_outcome(loop: asyncio.AbstractEventLoop, daemon: Coroutine[Any, Any, ExitOutcome]) -> ExitOutcome:
    """Run the daemon; whatever happens, the process ends as it does after every other stop."""
    try:
        return _run_until_stopped(loop, loop.create_task(daemon, name="daemon"))
    except KeyboardInterrupt:
        return ExitOutcome(130, [])
    except BaseException as error:  # noqa: BLE001 - SystemExit of a callback of a plugin, for example
        fork.exit_if_child(error)
        _log.critical("the daemon failed: %s", error_line(error), exc_info=error)
        return ExitOutcome(1, [])


def _run_until_stopped(loop: asyncio.AbstractEventLoop, daemon: asyncio.Task[ExitOutcome]) -> ExitOutcome:
    """Run the loop until the daemon has ended, also when a task of a plugin raises an exception that stops a loop."""
    while True:
        try:
            return loop.run_until_complete(daemon)
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
            fork.exit_if_child(error)
            # Until the loop has its handlers, Ctrl-C is a KeyboardInterrupt; later only a plugin raises one.
            by_signal = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if daemon.done() or loop.is_closed() or (by_signal and is_a(error, KeyboardInterrupt)):
                raise
            # A RuntimeError is asyncio's own, of a loop that was stopped (`loop.stop()`).
            _log.error(
                "a task or callback of a plugin raised %s; the daemon continues", error_line(error), exc_info=error
            )


async def _run(
    paths: Paths,
    overrides: list[str],
    guard: ForkGuard,
    *,
    greet: bool,
    is_safe: bool,
    crashes: CrashRecorder,
    monitor: LoopMonitor,
) -> ExitOutcome:
    # Most of a start: signals are handled and the log works before it is imported.
    from ostler.daemon.build_daemon import build_daemon

    early = _SignalBuffer()
    try:
        daemon = build_daemon(paths, overrides, guard, early.add, is_safe=is_safe, earlier_crashes=crashes.earlier)
    except StartRefused as error:
        for problem in error.problems:
            _log.critical("the daemon could not start: %s", problem)
        return ExitOutcome(error.exit_code, [])
    except ConfigurationError as error:
        # Nothing is running that would have to be stopped, and standard error may be a pipe that nobody reads.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print_problems(error)
        return ExitOutcome(error.exit_code, [])
    except OstlerError as error:
        _log.critical("the daemon could not start: %s", error)
        return ExitOutcome(error.exit_code, [])
    daemon.loop_monitor = monitor
    early.install(asyncio.get_running_loop())
    daemon.tasks.supervise(SignalGuard(_SIGNALS).run, name="signal guard")
    early.forward_to(daemon.on_signal, daemon.reloader.on_sighup, daemon.log_dump)
    # What was imported and declared lives as long as the process: the collector need not look at it again and again.
    # It was off since the first line of the start.
    gc.freeze()
    gc.enable()
    if greet:
        daemon.start_finished.add_done_callback(lambda _started: _print_banner(paths, daemon))
    code = await daemon.run()
    return ExitOutcome(code, daemon.stuck_parts, daemon.stop_time_left)


def _print_banner(paths: Paths, daemon: Daemon) -> None:
    if not daemon.start_finished.cancelled() and daemon.start_finished.exception() is None:
        facts = (paths, daemon.host, [service.topic for service in daemon.services], daemon.summary())
        # Standard output may be a pipe that nobody reads: that must not block the loop.
        start_optional_thread(print_banner, "ostler-banner", *facts)


def print_problems(error: ConfigurationError) -> None:
    """Write every problem of a configuration to standard error, with its line, as a compiler would."""
    from ostler.config.problem_text import problem_lines  # only when a configuration is refused

    count = len(error.problems)
    last = f"ostler: {count} problem{'s' if count != 1 else ''} {error.subject}; nothing was started"
    with suppress(OSError, ValueError):  # a full disk, or a closed output: the exit code reports it nevertheless
        lines = [line for problem in error.problems for line in problem_lines(problem)]
        for line in (*lines, *([f"hint: {error.hint}"] if error.hint else ()), last):
            print(printable(line), file=sys.stderr)  # noqa: T201 - read by people, also before there is a log


class _SignalBuffer:
    """Buffers signals that arrive before there is a daemon to handle them, and hands them over."""

    def __init__(self) -> None:
        self._pending: list[int] = []
        self._handle: Callable[[int], None] = self._pending.append

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Register the daemon's signals with the loop."""
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.add, number)

    def add(self, number: int) -> None:
        """Buffer a signal, or pass it to the daemon when there is one."""
        self._handle(number)

    def forward_to(self, stop: Callable[[int], None], reload: Callable[[], None], dump: Callable[[], None]) -> None:
        """Pass every buffered signal, and all later ones, to the daemon."""

        def take(number: int) -> None:
            if number == signal.SIGHUP:
                reload()
            elif number == signal.SIGUSR2:
                dump()
            else:
                stop(number)

        self._handle = take
        for number in self._pending:
            take(number)
