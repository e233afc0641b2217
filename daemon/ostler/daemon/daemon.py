"""The composition root: builds every part, starts them in order, and stops them in reverse order."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ostler import fork, log
from ostler.aio import LoopQueue, TaskOwner, UndoStack
from ostler.daemon.active_configuration import ActiveConfiguration
from ostler.daemon.connectivity.audit_service import AuditService
from ostler.daemon.connectivity.messaging_stack import MessagingStack, make_metric_exporter
from ostler.daemon.control.control_endpoint import ControlEndpoint
from ostler.daemon.control.daemon_status import StatusReporter
from ostler.daemon.control.health_report import HealthReport, health_report
from ostler.daemon.control.monitoring_sources import MonitoringSources
from ostler.daemon.daemon_parts import DaemonParts
from ostler.daemon.liveness_probes import probe_services, register_probes, retry_store
from ostler.daemon.plugin_hooks import call_plugin_hooks
from ostler.daemon.process.code_snapshot import CodeSnapshot
from ostler.daemon.process.installed_versions import InstalledVersions
from ostler.daemon.process.shutdown_watchdog import ShutdownWatchdog
from ostler.daemon.process.stack_dump import format_dump, thread_stacks
from ostler.daemon.progress_reporter import ProgressReporter
from ostler.daemon.reloader import Reloader
from ostler.daemon.startup.address_wait import wait_for_addresses
from ostler.daemon.startup.directories import make_runtime_directory
from ostler.daemon.startup.open_store import open_store
from ostler.daemon.watchdog import Watchdog
from ostler.errors import Draining, ServiceError, error_line, is_expected
from ostler.manager_types import DaemonAddresses
from ostler.messaging.rpc.topic_registry import TopicRegistry
from ostler.operations import OperationLimits, Operations
from ostler.service import HostServices, Runtime
from ostler.service.left_out import left_out_topics
from ostler.service.state_tracker import StateTracker
from ostler.time_text import format_seconds
from ostler.types import ServiceState

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.config.paths import Paths
    from ostler.daemon.control.daemon_dump import DaemonDump
    from ostler.daemon.process.loop_monitor import LoopMonitor
    from ostler.daemon.startup.step_tracker import StepTracker
    from ostler.messaging.wire.transport import Transport
    from ostler.service import Service
    from ostler.service.resolve import ResolvedConfiguration
    from ostler.service.service_group import ServiceGroup
    from ostler.store import Store
    from ostler.systemd import ServiceNotifier

_log = logging.getLogger(__name__)
_OUTAGE_POLL_INTERVAL = 1.0
"""Seconds between two extensions of the start while the database cannot be written."""
_START_HOOK_TIMEOUT, _STOP_HOOK_TIMEOUT = 60.0, 5.0
"""Seconds that `ostler_started` and `ostler_stopping` of all plugins may take; the latter at most 1/4 of a stop."""
_PEER_WAIT_TIMEOUT = 1.0
"""Seconds that the start waits for the other hosts, if some have not responded by the time all services are up."""
_SNAPSHOT_TIMEOUT = 5.0
"""Seconds that the start waits for the running code to be read."""
_STOP_GRACE = 5.0
"""Seconds beyond the stop's own time after which the last resort ends the process."""


class Daemon:
    """One daemon, from the validated configuration to the last line of its log.

    All methods run on the loop. Everything that was set up is recorded with its undo function, so that `stop` is
    correct at every point of the start.

    Args:
        paths: Where its state and sockets are.
        resolved: The validated configuration with the plugins and the services it names.
        clock: The source of time.
        notifier: Notifies systemd.
        step_tracker: The current step; the plugins tell it whose code runs.
        load_configuration: Reads and validates the configuration again; gets a function to call with each step, and the
            configuration that was read before.
        watchdog_interval: Seconds after which systemd acts without a ping; None when it does not.
        make_transport: Creates the transport, when the start needs it.
        shutdown_watchdog: Ends the process when the stop does not finish.
        keep_lock: Whether the state stays locked after the stop, until the process ends: leftovers of plugins may run
            until then.
        sockets: Sockets that systemd handed over, by name.
    """

    def __init__(  # noqa: PLR0913 - the composition root is handed all that is outside of it
        self,
        paths: Paths,
        resolved: ResolvedConfiguration,
        *,
        clock: Clock,
        notifier: ServiceNotifier,
        step_tracker: StepTracker,
        load_configuration: Callable[[Callable[[str], object], ResolvedConfiguration], ResolvedConfiguration],
        watchdog_interval: float | None,
        make_transport: Callable[[], Transport],
        shutdown_watchdog: ShutdownWatchdog | None = None,
        keep_lock: bool = False,
        sockets: Mapping[str, int] | None = None,
    ) -> None:
        self.start_finished: asyncio.Future[DaemonParts] = asyncio.get_running_loop().create_future()
        """The parts of the daemon, once all services have been started; raises when the start has failed."""
        self.active = ActiveConfiguration(resolved)
        self.store: Store | None = None
        """The database, as soon as it is open."""
        self.parts: DaemonParts | None = None
        """The parts, as soon as all are made; their start may be in progress."""
        self.stuck_parts: list[str] = []
        """What hung at the end of the stop, a line each."""
        self.loop_monitor: LoopMonitor | None = None
        """Names what blocks the loop, if that is to be watched."""
        self.tasks = TaskOwner("daemon", on_end=self.fail)
        self.host = resolved.configuration.daemon.host
        self._paths = paths
        self._plugins = resolved.plugins
        self._clock = clock
        self._notifier = notifier
        self._step_tracker = step_tracker
        self._make_transport = make_transport
        self._keep_lock, self._sockets = keep_lock, sockets or {}
        self._started_at = clock.wall()
        self._installed_versions = InstalledVersions(resolved.plugins)
        self._state_tracker = StateTracker(clock, self._on_state_change)
        self._progress = self._make_progress()
        self.reloader = Reloader(
            self.active, load_configuration, self.start_finished, notifier, clock, lambda: self.is_stopping,
            on_applied=self._on_reloaded, status_suffix=self._progress.pending_text,
        )  # fmt: skip
        self.watchdog = self._make_watchdog(watchdog_interval)
        self._shutdown_watchdog = shutdown_watchdog or ShutdownWatchdog(_thread_lines)
        self._undo_stack = UndoStack(_log)
        self._start_task: asyncio.Task[None] | None = None
        self._stop_requested = asyncio.Event()
        self._stop_started_at = 0.0
        self._fatal_reason, self._signal_count = "", 0
        self._has_start_failed = False

    def _make_progress(self) -> ProgressReporter:
        mode = "safe mode" if self._plugins.is_safe else ""
        return ProgressReporter(
            self._notifier, self._step_tracker, self._state_tracker, self._group, self._is_up,
            self.active.pending_restart, mode=mode,
        )  # fmt: skip

    def _make_watchdog(self, interval: float | None) -> Watchdog:
        progress = self._progress
        ping = self._notifier.watchdog
        return Watchdog(interval, ping, self._clock, progress.on_liveness_lost, progress.on_liveness_recovered)

    # ---------------------------------------------------------------- life

    async def run(self) -> int:
        """Start, run until told to stop, stop; returns the exit code. A failed start is logged and stopped likewise."""
        self._start_task = asyncio.get_running_loop().create_task(self._start(), name="start")
        self._start_task.add_done_callback(self._on_start_done)
        await self._wait_for_stop_request()
        self.stuck_parts = await self.stop()
        self._shutdown_watchdog.disarm()
        if self._fatal_reason:
            _log.critical("the daemon stopped: %s", self._fatal_reason)
        return 1 if self._has_start_failed or self._fatal_reason else 0

    async def _wait_for_stop_request(self) -> None:
        while not self._stop_requested.is_set():
            try:
                await self._stop_requested.wait()
            except asyncio.CancelledError:  # a plugin has cancelled all tasks
                fork.exit_if_child()
                _log.error("a plugin cancelled the daemon's main task; the daemon continues")
                if (task := asyncio.current_task()) is not None:
                    task.uncancel()

    def on_signal(self, number: int) -> None:
        """Record a signal: the first SIGTERM or SIGINT stops, the second stops fast."""
        self._signal_count += 1
        name = signal.Signals(number).name
        # Act first, log second: a problem with the log must not keep a signal from being handled.
        self._stop_requested.set()
        if self._signal_count == 1:
            _log.info("%s received: stopping", name)
            return
        self._shutdown_watchdog.arm(self.active.options.daemon.fast_stop_timeout)
        if (group := self._group()) is not None:
            group.skip_drain()
        _log.warning("%s received again: stopping without waiting for work in progress", name)

    def fail(self, reason: str) -> None:
        """Stop the daemon because a permanent task has ended. On the loop."""
        if self._state_tracker.state is ServiceState.DRAINING:
            return
        self._fatal_reason = self._fatal_reason or reason
        self._stop_requested.set()
        _log.critical("%s; the daemon stops", reason)

    # ---------------------------------------------------------------- start

    async def _start(self) -> None:
        self.tasks.spawn(self._progress.report_start(), name="report the progress of the start to systemd")
        options = self.active.options
        code = self._begin_code_snapshot()
        store = await self._open_store()
        await wait_for_addresses(options, self._clock, self._step_tracker)
        make_runtime_directory(self._paths.runtime_dir)
        parts = self.parts = self._make_parts(store)
        await self._open_sockets(parts)
        await self._start_services(parts, options.daemon.start_timeout)
        await parts.messaging.wait_for_peers(_PEER_WAIT_TIMEOUT)
        await call_plugin_hooks(self._plugins, "ostler_started", self.host, _START_HOOK_TIMEOUT, self._step_tracker)
        self._start_watchdog(parts)
        self._state_tracker.enter(ServiceState.UP)
        self._install_code_snapshot(code)
        self.start_finished.set_result(parts)
        for status in self._plugins.statuses():
            parts.runtime.state_notifier.notify_plugin(status)
        self._notifier.ready(self.summary())
        parts.runtime.operations.release_restored()
        code.compress_in_background()
        _log.info("ready: %s", self.summary(), extra=log.message_id("ready"))

    async def _open_store(self) -> Store:
        store = self.store = await open_store(
            self._paths.database,
            self.active.options,
            self._plugins,
            self._clock,
            self._undo_stack,
            on_step=self._step_tracker,
            keep_lock=self._keep_lock,
        )
        self.tasks.supervise(partial(retry_store, store), name="retry the database")
        return store

    def _make_parts(self, store: Store) -> DaemonParts:
        """Create the other parts, each with what it needs; none of them runs yet, but for the audit log."""
        options, loop_queue = self.active.options, LoopQueue(asyncio.get_running_loop())
        registry = TopicRegistry(self.host)
        auditor = AuditService(store, registry, self._clock, options)
        messaging = MessagingStack(options, self._make_transport(), self._clock, loop_queue, registry, auditor.log)
        self.tasks.supervise(auditor.log.run, name="audit log")
        self.tasks.supervise(
            partial(auditor.record_in_flight, messaging.dispatcher.in_flight_since),
            name="audit log of requests in progress",
        )
        self._undo_stack.push("audit log", lambda _seconds: auditor.close())
        self._undo_stack.push("sockets", lambda _seconds: messaging.close())
        host = HostServices(
            self.host,
            self._clock,
            loop_queue,
            store,
            messaging.dispatcher,
            messaging.client,
            self._make_operations(store, messaging),
            messaging.notifications,
            messaging.publisher,
            DaemonAddresses(
                rpc=self._paths.rpc_address,
                events=self._paths.events_address,
                network=messaging.network_address,
                sockets=self._sockets,
            ),
            lambda: messaging.gateway_host(store).gateway(),
            make_metric_exporter=partial(make_metric_exporter, options),
        )
        runtime = Runtime(
            self.active.resolved.specs,
            host,
            router=messaging.router,
            on_end=self.fail,
            on_change=self._progress.on_service_change,
        )
        runtime.gone_age = self.active.options.daemon.gone_age
        self._undo_stack.push("services", partial(self._stop_services, runtime))
        return DaemonParts(store, messaging, auditor, runtime)

    def _make_operations(self, store: Store, messaging: MessagingStack) -> Operations:
        limits = OperationLimits.from_options(self.active.options.operations)
        operations = Operations(
            store, messaging.dispatcher, messaging.client.publish, limits, on_end=self.fail, hold_restored=True
        )
        messaging.dispatcher.set_operations(operations)
        return operations

    async def _open_sockets(self, parts: DaemonParts) -> None:
        """Answer on the topic `ostler`, and connect to the other hosts."""
        store, messaging, _, runtime = parts
        resolved, options = self.active.resolved, self.active.options
        messaging.enable_journal(store, resolved.journaled_topics(), options)
        messaging.notifications.configure(options.notifications.model_dump(), resolved.sinks)
        messaging.start(self._make_control_endpoint(parts))
        await runtime.mark_gone(options.network.peers, left_out_topics(resolved.left_out))
        messaging.connect_peers(store, options, runtime.state_notifier.notify_peer)

    def _make_control_endpoint(self, parts: DaemonParts) -> ControlEndpoint:
        status = StatusReporter(
            self._paths,
            self._started_at,
            self._state_tracker,
            self._plugins,
            parts,
            last_reload=lambda: self.reloader.last_result,
            pending_restart=self.active.pending_restart,
            problem_sources=[
                self.watchdog.stale_signals,
                self.reloader.problems,
                parts.store.problems,
                parts.messaging.problems,
                parts.runtime.problems,
                self.tasks.problems,
                self._installed_versions.newer_on_disk,
                lambda: self.active.resolved.left_out,
                lambda: self.loop_monitor.problems() if self.loop_monitor is not None else (),
            ],
        )
        return ControlEndpoint(
            parts,
            plugins=self._plugins,
            active=self.active,
            reloader=self.reloader,
            make_dump=self._make_dump,
            console=self._make_console(parts) if self.active.options.daemon.console else None,
            start_finished=self.start_finished,
            monitoring=MonitoringSources(status, self.watchdog.stale_signals, lambda: self.loop_monitor, self.health),
        )

    def _make_console(self, parts: DaemonParts) -> object:
        from ostler.daemon.control.console_control import ConsoleControl  # only where it is switched on

        group = parts.runtime.group
        names = {
            "daemon": self, "store": parts.store, "services": group.services, "messaging": parts.messaging,
            "runtime": parts.runtime, "client": parts.messaging.client, "clock": self._clock, "dump": self.dump,
        }  # fmt: skip
        return ConsoleControl(lambda: names, parts.audit_service.log)

    async def _start_services(self, parts: DaemonParts, timeout: float) -> None:
        more = self.tasks.spawn(_extend_start(parts, timeout), name="extend the start while the disk is full")
        try:
            await parts.runtime.start(timeout)
        finally:
            more.cancel()

    def _start_watchdog(self, parts: DaemonParts) -> None:
        register_probes(self.watchdog, parts.store, parts.messaging, parts.runtime, self._clock)
        self.tasks.supervise(self.watchdog.run, name="watchdog")
        self._undo_stack.push("watchdog", lambda _seconds: self.watchdog.stop())
        if (monitor := self.loop_monitor) is not None:
            monitor.plugin_packages = self._plugin_packages
            monitor.start()
            self._undo_stack.push_call("monitor of the loop", monitor.stop)

    def _plugin_packages(self) -> set[str]:
        """Return the top packages of the plugins, managers and drivers in use. Any thread."""
        specs = self.active.resolved.specs
        classes = [spec.manager.cls for spec in specs]
        classes += [loaded.cls for spec in specs for loaded, _ in spec.drivers.values()]
        names = {cls.__module__.partition(".")[0] for cls in classes if cls is not None}
        return {*self._plugins.packages(), *names} - {"ostler"}

    def _on_reloaded(self, parts: DaemonParts) -> None:
        """Follow a reload that has added or removed services."""
        if self.watchdog.is_probing:
            probe_services(self.watchdog, parts.runtime, self._clock)

    def _begin_code_snapshot(self) -> CodeSnapshot:
        """Start reading the code that may still be imported, while the database is opened."""
        specs = self.active.resolved.specs
        packages = ["ostler", *self._plugins.packages(), *(spec.manager.cls.__module__ for spec in specs)]
        code = CodeSnapshot(["cronsim", *(name.partition(".")[0] for name in packages)])
        code.read_in_background()
        return code

    def _install_code_snapshot(self, snapshot: CodeSnapshot) -> None:
        """Serve late imports from what was read: an upgrade may start as soon as the daemon is known to be ready."""
        if not snapshot.wait(_SNAPSHOT_TIMEOUT):
            _log.warning(
                "the running code could not be read within %s: restart the daemon after an upgrade",
                format_seconds(_SNAPSHOT_TIMEOUT),
            )
        snapshot.install()
        self._undo_stack.push_call("snapshot of the code", snapshot.remove)

    def _on_start_done(self, _: asyncio.Task[None]) -> None:
        if self._stop_requested.is_set():  # the stop has cut it off
            return
        self._has_start_failed = bool(self._start_error())
        if self._has_start_failed:
            self._stop_requested.set()

    def _start_error(self) -> str:
        """Return why the start has failed, and log it; empty when it has not failed, or not ended yet."""
        assert self._start_task is not None  # noqa: S101 - created by `run`
        if not self._start_task.done():
            return ""
        error = (
            ServiceError("the start was cancelled") if self._start_task.cancelled() else self._start_task.exception()
        )
        if error is None:
            return ""
        expected = is_expected(error)
        _log.critical("the daemon could not start: %s", error_line(error), exc_info=None if expected else error)
        self._notifier.status(f"could not start: {error_line(error)}")
        self._fail_start_waiters(f"the daemon could not start: {error_line(error)}")
        return error_line(error)

    def _fail_start_waiters(self, why: str) -> None:
        """Release the waiters for the end of the start: a reload, `wait_ready`."""
        if not self.start_finished.done():
            self.start_finished.set_exception(Draining(why))
            self.start_finished.exception()  # retrieved: no warning if nobody waits for it

    # ---------------------------------------------------------------- stop

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for or has begun."""
        return self._stop_requested.is_set() or self._state_tracker.state in (
            ServiceState.DRAINING,
            ServiceState.STOPPED,
        )

    @property
    def stop_time_left(self) -> float:
        """The seconds left of the time that the stop has; none after a second signal, which waits for nothing."""
        if self._signal_count > 1:
            return 0.0
        return self._stop_started_at + self.active.options.daemon.stop_timeout - self._clock.monotonic()

    async def stop(self) -> list[str]:
        """Undo what was set up, last first; returns what hung, a line each. Safe at every point of the start."""
        self._state_tracker.enter(ServiceState.DRAINING, self._fatal_reason or "the daemon is stopping")
        limit = self.active.options.daemon.stop_timeout
        self._stop_started_at = self._clock.monotonic()
        self._shutdown_watchdog.arm(limit + _STOP_GRACE)
        until = asyncio.get_running_loop().time() + limit
        self._notifier.stopping("stopping")
        teller = self.tasks.spawn(self._progress.report_stop(), name="report the progress of the stop to systemd")
        await self._cut_off_start()
        stuck = await self._call_stop_hooks(until - asyncio.get_running_loop().time())
        stuck += await self._undo_stack.run(until - asyncio.get_running_loop().time(), on_step=self._enter_stop_step)
        teller.cancel()
        await self.tasks.cancel()
        self._state_tracker.enter(ServiceState.STOPPED)
        self._notifier.status("stopped")
        _log.info("stopped", extra=log.message_id("stopped"))
        return stuck

    async def _cut_off_start(self) -> None:
        if self._start_task is not None and not self._start_task.done():
            self._start_task.cancel()
            await asyncio.gather(self._start_task, return_exceptions=True)
        self._fail_start_waiters("the daemon is stopping")

    async def _call_stop_hooks(self, time_left: float) -> list[str]:
        if self.parts is None:
            return []
        limit = max(0.0, min(_STOP_HOOK_TIMEOUT, time_left / 4))
        return await call_plugin_hooks(self._plugins, "ostler_stopping", self.host, limit, self._step_tracker)

    def _enter_stop_step(self, step: str) -> None:
        self._step_tracker("" if step == "services" else f"the end of {step}")  # services report their own steps

    async def _stop_services(self, runtime: Runtime, timeout: float) -> list[str]:
        hung = await runtime.stop(max(0.0, timeout))
        await self.reloader.stop()
        return hung

    # ---------------------------------------------------------------- what others ask

    @property
    def services(self) -> list[Service]:
        """The services of this daemon, in the order of their start."""
        return list(self._group() or ())

    def summary(self) -> str:
        """Return one line on the state of the services."""
        return self._progress.summary()

    def health(self) -> HealthReport:
        """Return whether the daemon lives, has started and can work."""
        return health_report(
            self.host,
            self._state_tracker,
            self.services,
            stale=self.watchdog.stale_signals(),
            is_started=self._is_started,
            waiting_for=self._progress.start_waits_for,
        )

    @property
    def _is_started(self) -> bool:
        finished = self.start_finished
        return finished.done() and not finished.cancelled() and finished.exception() is None

    def dump(self) -> dict[str, Any]:
        """Return what the daemon is doing right now, at any point of its life; the configuration is masked."""
        return self._make_dump().collect_now()

    def _make_dump(self) -> DaemonDump:
        from ostler.daemon.control.daemon_dump import DaemonDump  # 60 kB: only where a dump is wanted

        return DaemonDump(
            self._state_tracker, self.active, self.watchdog.stale_signals, lambda: self.store, lambda: self.parts
        )

    def log_dump(self) -> None:
        """Write the dump to the log: SIGUSR2."""
        _log.warning("dump", extra=log.message_id("dump") | log.detail(format_dump(self.dump())))

    def _group(self) -> ServiceGroup | None:
        return self.parts.runtime.group if self.parts is not None else None

    def _is_up(self) -> bool:
        return self.start_finished.done() and not self.is_stopping

    def _on_state_change(self) -> None:
        _log.debug("the daemon is %s", self._state_tracker.state)


async def _extend_start(parts: DaemonParts, timeout: float) -> None:
    """Give the services more time for as long as the database cannot be written, which is not their fault."""
    while True:
        await asyncio.sleep(_OUTAGE_POLL_INTERVAL)
        if parts.store.outage.is_active:
            parts.runtime.group.extend_start(timeout)


def _thread_lines() -> list[str]:
    return [f"{name}: {' < '.join(reversed(stack[-3:]))}" for name, stack in thread_stacks().items()]
