"""From the command line to a daemon that can be started: loads the configuration, and chooses the real ends."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ostler import log
from ostler.clock import SystemClock
from ostler.daemon.connectivity.messaging_stack import make_socket_transport
from ostler.daemon.daemon import Daemon
from ostler.daemon.load_configuration import load_configuration
from ostler.daemon.startup.directories import secure_directories
from ostler.daemon.startup.quarantine import examine_crashes
from ostler.daemon.startup.start_checks import check_start
from ostler.daemon.startup.step_tracker import LoadingMonitor, StepTracker
from ostler.errors import StartRefused
from ostler.messaging.wire.request_context import request_log_fields
from ostler.plugins.plugin_directory import activate_plugins
from ostler.service.left_out import part_of
from ostler.systemd import ServiceNotifier, SystemdNotifier, listen_fds, watchdog_interval

if TYPE_CHECKING:
    from ostler.config.paths import Paths
    from ostler.daemon.process.crash_record import CrashReport
    from ostler.daemon.process.fork_guard import ForkGuard
    from ostler.service.resolve import ResolvedConfiguration

_log = logging.getLogger(__name__)


def build_daemon(
    paths: Paths,
    overrides: list[str],
    guard: ForkGuard,
    defer_signal: Callable[[int], None],
    *,
    is_safe: bool = False,
    earlier_crashes: Sequence[CrashReport] = (),
) -> Daemon:
    """Return the daemon of this process, which is not started yet. On the main thread, in the loop.

    Args:
        paths: Where its configuration, state and sockets are.
        overrides: Values of the command line, each `table.key=VALUE`.
        guard: Is told of the sockets and ports, which a forked child must not keep.
        defer_signal: Called with signals that arrive meanwhile.
        is_safe: Whether only plugins that come with Ostler are loaded.
        earlier_crashes: How earlier processes of this daemon crashed.

    Raises:
        ConfigurationError: The configuration cannot be used, with all problems.
        OstlerError: A directory cannot be used.
    """
    notifier, steps = SystemdNotifier(), StepTracker("starting")
    examine_crashes(earlier_crashes, paths.state_dir)
    load = partial(
        load_configuration, paths, overrides, on_step=steps, is_safe=is_safe, may_leave_out=lambda _part: True
    )
    resolved = _load(load, paths, notifier, steps, defer_signal)
    fds = listen_fds(os.environ)
    guard.add_sockets(fds.values())
    guard.add_ports(resolved.configuration.network.ports())
    return Daemon(
        paths,
        resolved,
        clock=SystemClock(),
        notifier=notifier,
        step_tracker=steps,
        load_configuration=lambda step, before: _load_again(paths, overrides, resolved, step, before),
        watchdog_interval=watchdog_interval(os.environ),
        make_transport=lambda: make_socket_transport(paths, resolved.configuration, fds),
        keep_lock=True,
        sockets=fds,
    )


def _load_again(
    paths: Paths,
    overrides: list[str],
    running: ResolvedConfiguration,
    on_step: Callable[[str], object],
    before: ResolvedConfiguration,
) -> ResolvedConfiguration:
    """Read and check everything for a reload, with the plugins that are installed now. Blocks."""
    activate_plugins(paths)  # the set that is current now; what is imported stays
    left_out = {part_of(line) for line in before.broken}
    return load_configuration(
        paths,
        overrides,
        plugins=running.plugins,
        previous=before.configuration.raw,
        on_step=on_step,
        may_leave_out=left_out.__contains__,
    )


def _load(
    load: Callable[[], ResolvedConfiguration],
    paths: Paths,
    notifier: ServiceNotifier,
    steps: StepTracker,
    defer_signal: Callable[[int], None],
) -> ResolvedConfiguration:
    # Here code of plugins runs for the first time, and may never return.
    with LoadingMonitor(steps, notifier, defer_signal):
        resolved = load()
        steps("checking directories and database")
        secure_directories(paths)
        try:
            check_start(paths, resolved, read_content=False)  # the store reports what it warns of
        except StartRefused as error:
            notifier.status(f"could not start: {error.problems[0]}")
            raise
        steps("")
    options = resolved.configuration.log
    log.set_up(level=options.level, format=options.format, levels=options.levels, about=request_log_fields)
    for warning in resolved.warnings:
        _log.warning("%s", warning)
    return resolved
