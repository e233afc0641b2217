"""`ostler run`: from the command line to the exit code."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ostler import fork, log
from ostler.clock import SystemClock
from ostler.config.paths import Paths
from ostler.daemon.forked_child import ForkGuard
from ostler.daemon.lastresort import FLUSH_SECONDS
from ostler.daemon.limits import raise_descriptor_limit, shorten_thread_turns
from ostler.daemon.process_exit import Outcome, ProcessEnd
from ostler.daemon.signal_guard import SignalGuard
from ostler.errors import CONFIGURATION, ConfigurationError, OstlerError, describe, is_a
from ostler.printable import printable

if TYPE_CHECKING:
    from ostler.daemon.core import Daemon

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def end_process(outcome: Outcome, loop: asyncio.AbstractEventLoop) -> None:
    """End the process; see `ProcessEnd`."""
    ProcessEnd(outcome).run(loop)


def run_daemon(
    paths: Paths,
    overrides: Sequence[str] = (),
    log_level: str | None = None,
    *,
    end: Callable[[Outcome, asyncio.AbstractEventLoop], None] = end_process,
) -> int:
    """Run a daemon until it is told to stop. On the main thread.

    Args:
        paths: Where its configuration, state and sockets are.
        overrides: Values of the command line, each `table.key=VALUE`.
        log_level: A log level that wins over the configuration's.
        end: Ends the process; a test hands in one that does not.

    Returns:
        The exit code, if the process goes on: 0 after a stop that was asked for, 1 when it failed, 78 when the
        configuration cannot be used.
    """
    # Until the loop has its handler a SIGHUP would kill the process, which systemd counts as a clean exit. What it
    # asks for is done anyhow: the configuration has not been read yet.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A blocked loop cannot say that it is: the SIGABRT of systemd's watchdog has the stacks of all threads written.
    faulthandler.enable(sys.__stderr__ or 2)
    raise_descriptor_limit()
    shorten_thread_turns()
    # What others may write is never inherited from whoever started this.
    os.umask(os.umask(0o022) | 0o022)
    log.set_up(level=log_level or "info")
    log_guard = log.protect()
    log.install_hooks()
    if log_level:
        overrides = [*overrides, f'log.level="{log_level}"']
    by_hand = not os.environ.keys() & {"NOTIFY_SOCKET", "INVOCATION_ID"}  # systemd sets these
    guard = ForkGuard(paths)
    guard.install()
    loop = asyncio.new_event_loop()
    guard.watch_loop(loop)
    try:
        outcome = _outcome(loop, _run(paths, list(overrides), guard, greet=by_hand))
        fork.leave_if_child(sys.exc_info()[1])
        end(outcome, loop)
        log.flush(FLUSH_SECONDS)
    finally:
        guard.remove()
        log_guard.end()
    return outcome.code


def _outcome(loop: asyncio.AbstractEventLoop, daemon: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run the daemon; whatever happens, the process is to end as it does after every other stop."""
    try:
        return _to_the_end(loop, loop.create_task(daemon, name="daemon"))
    except KeyboardInterrupt:
        return Outcome(130, [])
    except BaseException as error:  # noqa: BLE001 - SystemExit of a callback of a plugin, for example
        fork.leave_if_child(error)
        _log.critical("the daemon failed: %s", describe(error), exc_info=error)
        return Outcome(1, [])


def _to_the_end(loop: asyncio.AbstractEventLoop, daemon: asyncio.Task[Outcome]) -> Outcome:
    """Run the loop until the daemon has ended, also when a task of a plugin raises what stops any loop."""
    while True:
        try:
            return loop.run_until_complete(daemon)
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
            fork.leave_if_child(error)
            # Until the loop has its handlers, Ctrl-C is a KeyboardInterrupt; later only a plugin raises one.
            by_signal = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if daemon.done() or loop.is_closed() or (by_signal and is_a(error, KeyboardInterrupt)):
                raise
            # A RuntimeError is asyncio's own, of a loop that was stopped (`loop.stop()`).
            _log.error("a task or callback of a plugin raised %s; the daemon goes on", describe(error), exc_info=error)


async def _run(paths: Paths, overrides: list[str], guard: ForkGuard, *, greet: bool) -> Outcome:
    early = _EarlySignals()
    try:
        daemon = _compose(paths, overrides, guard, early.keep)
    except ConfigurationError as error:
        # Nothing runs that would have to be stopped, and standard error may be a pipe that nobody reads.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print_problems(error)
        return Outcome(CONFIGURATION, [])
    except OstlerError as error:
        _log.critical("the daemon could not start: %s", error)
        return Outcome(error.exit_code, [])
    daemon.keep_lock = True
    early.install(asyncio.get_running_loop())
    daemon.tasks.keep(SignalGuard(_SIGNALS).run, name="keep the signals")
    early.hand_over(daemon.on_signal, daemon.reloader.request, daemon.log_dump)
    # What was imported and declared lives as long as the process: the collector need not look at it again and again.
    # It was off since the first line of the start.
    gc.freeze()
    gc.enable()
    if greet:
        daemon.started.add_done_callback(lambda _started: _greet(daemon))
    code = await daemon.run()
    return Outcome(code, daemon.hung_at_end, daemon.stop_left)


def _greet(daemon: Daemon) -> None:
    from ostler.daemon.banner import show

    if not daemon.started.cancelled() and daemon.started.exception() is None:
        # Standard output may be a pipe that nobody reads: that is not to hold up the loop.
        threading.Thread(target=show, args=(daemon,), name="ostler-banner", daemon=True).start()


def _compose(paths: Paths, overrides: list[str], guard: ForkGuard, keep: Callable[[int], None]) -> Daemon:
    from ostler.daemon.check import read_configuration
    from ostler.daemon.core import Daemon
    from ostler.daemon.messages import zmq_transport
    from ostler.daemon.places import take_places
    from ostler.daemon.steps import LoadingMonitor, Steps
    from ostler.messaging.context import about_request
    from ostler.systemd import SystemdNotifier, listen_fds, watchdog_interval

    notifier, steps = SystemdNotifier(), Steps("starting")
    # Here code of plugins runs for the first time, and may never come back.
    with LoadingMonitor(steps, notifier, keep):
        assembly = read_configuration(paths, overrides, step=steps)
        take_places(paths)
    options = assembly.configuration.log
    log.set_up(level=options.level, format=options.format, levels=options.levels, about=about_request)
    for warning in assembly.warnings:
        _log.warning("%s", warning)
    fds = listen_fds(os.environ)
    guard.add_sockets(fds.values())
    guard.add_ports(assembly.configuration.network.ports())
    return Daemon(
        paths,
        assembly,
        clock=SystemClock(),
        notifier=notifier,
        reload_from=lambda step, before: read_configuration(
            paths, overrides, plugins=assembly.plugins, before=before, step=step
        ),
        watchdog_interval=watchdog_interval(os.environ),
        make_transport=lambda: zmq_transport(paths, assembly.configuration, fds),
    )


def print_problems(error: ConfigurationError) -> None:
    """Write every problem of a configuration to standard error, one a line, as a compiler would."""
    count = len(error.problems)
    last = f"ostler: {count} problem{'s' if count != 1 else ''} in the configuration; nothing was started"
    with suppress(OSError, ValueError):  # a full disk, or nobody there: the exit code says it all the same
        for line in (*error.problems, *([f"hint: {error.hint}"] if error.hint else ()), last):
            print(printable(str(line)), file=sys.stderr)  # noqa: T201 - read by people, also before there is a log


class _EarlySignals:
    """Keeps signals that arrive before there is a daemon to take them, and hands them over."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._take: Callable[[int], None] = self._kept.append

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop take the daemon's signals from now on."""
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.keep, number)

    def keep(self, number: int) -> None:
        """Keep a signal, or give it to the daemon when there is one."""
        self._take(number)

    def hand_over(self, stop: Callable[[int], None], reload: Callable[[], None], dump: Callable[[], None]) -> None:
        """Give every signal kept so far, and all later ones, to the daemon."""

        def take(number: int) -> None:
            if number == signal.SIGHUP:
                reload()
            elif number == signal.SIGUSR2:
                dump()
            else:
                stop(number)

        self._take = take
        for number in self._kept:
            take(number)
