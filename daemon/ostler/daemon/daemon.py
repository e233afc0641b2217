"""The composition root: builds every part, starts them in order, and stops them in reverse order."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from ostler import fork, log
from ostler.aio import LoopQueue, TaskOwner, WorkerPool
from ostler.clock import Clock
from ostler.config.configuration import Configuration
from ostler.config.configuration_diff import effective_values
from ostler.config.layers import RawConfiguration
from ostler.config.options import OptionsModel
from ostler.config.paths import Paths
from ostler.daemon.connectivity.audit_service import AuditService
from ostler.daemon.connectivity.messaging_stack import MessagingStack
from ostler.daemon.control.control_endpoint import ControlEndpoint
from ostler.daemon.liveness_probes import register_probes, retry_store
from ostler.daemon.policy_check import policy_warnings
from ostler.daemon.process.code_snapshot import CodeSnapshot
from ostler.daemon.process.installed_versions import InstalledVersions
from ostler.daemon.process.shutdown_watchdog import ShutdownWatchdog
from ostler.daemon.process.stack_dump import format_dump, task_stacks, thread_stacks
from ostler.daemon.reloader import Reloader
from ostler.daemon.startup.directories import make_runtime_directory
from ostler.daemon.startup.step_tracker import TIMEOUT_EXTENSION, StepTracker
from ostler.daemon.watchdog import Watchdog
from ostler.errors import Draining, ServiceError, error_line, is_expected
from ostler.messaging.rpc.topic_registry import TopicRegistry
from ostler.messaging.wire.request_context import current_account
from ostler.messaging.wire.transport import Transport
from ostler.service import HostServices, Runtime, Service
from ostler.service.resolve import ResolvedConfiguration
from ostler.service.state_tracker import StateTracker
from ostler.store import Store
from ostler.store.records.host_identity import adopt_host_name
from ostler.systemd import ServiceNotifier
from ostler.types import DaemonStatus, OptionValue, ServiceState

_log = logging.getLogger(__name__)
_STATUS_INTERVAL = 1.0
"""Seconds between two STATUS lines while starting or stopping."""
_LOG_LEVEL_BY_STATE = {
    ServiceState.STARTING: logging.DEBUG,
    ServiceState.DEGRADED: logging.WARNING,
    ServiceState.FAILED: logging.ERROR,
}
_START_HOOK_TIMEOUT, _STOP_HOOK_TIMEOUT = 60.0, 5.0
"""Seconds that `ostler_started` and `ostler_stopping` of all plugins may take; the latter at most 1/4 of a stop."""
_PEER_WAIT_TIMEOUT = 1.0
"""Seconds that the start waits for the other hosts, if some have not responded by the time all services are up."""
_DURATION_PATTERN = re.compile(r" for \d+ s")
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
        load_configuration: Reads and validates the configuration again; gets a function to call with each step, and the
            configuration that was read before.
        watchdog_interval: Seconds after which systemd acts without a ping; None when it does not.
        make_transport: Creates the transport, when the start needs it.
        shutdown_watchdog: Ends the process when the stop does not finish.
    """

    def __init__(
        self,
        paths: Paths,
        resolved: ResolvedConfiguration,
        *,
        clock: Clock,
        notifier: ServiceNotifier,
        load_configuration: Callable[[Callable[[str], object], RawConfiguration], ResolvedConfiguration],
        watchdog_interval: float | None,
        make_transport: Callable[[], Transport],
        shutdown_watchdog: ShutdownWatchdog | None = None,
    ) -> None:
        self.paths = paths
        self.resolved = resolved
        self.start_configuration = resolved.configuration
        self.plugins = resolved.plugins
        self.installed_versions = InstalledVersions(resolved.plugins)
        self.host = resolved.configuration.daemon.host
        self.clock = clock
        self.notifier = notifier
        self.started_at = clock.wall()
        self.state_tracker = StateTracker(clock, self._on_state_change)
        self.step_tracker = StepTracker("starting")
        self.plugins.on_step = self.step_tracker
        self.reloader = Reloader(self, load_configuration)
        self.tasks = TaskOwner("daemon", on_end=self.fail)
        self.watchdog = Watchdog(
            watchdog_interval, notifier.watchdog, clock, self._on_liveness_lost, lambda: notifier.status(self.summary())
        )
        self.start_finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.store: Store | None = None
        self.messaging: MessagingStack | None = None
        self.runtime: Runtime | None = None
        self.audit_service: AuditService | None = None
        self.stuck_parts: list[str] = []
        self.stop_started_at = 0.0
        self.should_keep_lock = False
        """Whether the state stays locked until the process ends: leftovers of plugins may run until then."""
        self._make_transport = make_transport
        self._shutdown_watchdog = shutdown_watchdog or ShutdownWatchdog(self._thread_lines)
        self._undo_stack: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._stuck_lines: list[str] = []
        self._stop_requested = asyncio.Event()
        self._fatal_reason = ""
        self._signal_count = 0
        self._has_start_failed = False
        self._stop_deadline = 0.0
        self._start_task: asyncio.Task[None] | None = None

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

    def _on_start_done(self, _: asyncio.Task[None]) -> None:
        if self._stop_requested.is_set():  # the stop has cut it off
            return
        self._has_start_failed = bool(self._start_error())
        if self._has_start_failed:
            self._stop_requested.set()

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for or has begun."""
        return self._stop_requested.is_set() or self.state_tracker.state in (
            ServiceState.DRAINING,
            ServiceState.STOPPED,
        )

    @property
    def stop_time_left(self) -> float:
        """The seconds left of the time that the stop has; none after a second signal, which waits for nothing."""
        if self._signal_count > 1:
            return 0.0
        return self.stop_started_at + self.resolved.configuration.daemon.stop_timeout - self.clock.monotonic()

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
        self.notifier.status(f"could not start: {error_line(error)}")
        self._fail_start_waiters(f"the daemon could not start: {error_line(error)}")
        return error_line(error)

    def _fail_start_waiters(self, why: str) -> None:
        """Release the waiters for the end of the start: a reload, `wait_ready`."""
        if not self.start_finished.done():
            self.start_finished.set_exception(Draining(why))
            self.start_finished.exception()  # retrieved: no warning if nobody waits for it

    async def _start(self) -> None:
        self.tasks.spawn(self._report_start(), name="report the progress of the start to systemd")
        options = self.resolved.configuration
        inbox = LoopQueue(asyncio.get_running_loop())
        code = self._begin_code_snapshot()
        store = self.store = await self._open_store()
        self.tasks.supervise(partial(retry_store, store), name="retry the database")
        if options.network.rpc:
            from ostler.daemon.startup.address_wait import wait_for_addresses

            await wait_for_addresses(options, self.clock, self.step_tracker)
        make_runtime_directory(self.paths.runtime_dir)
        messages = self._open_messaging(store, options, inbox)
        runtime = self.runtime = Runtime(
            self.resolved.specs,
            HostServices(
                self.host, self.clock, inbox, store, messages.dispatcher, messages.client, messages.notifications
            ),
            router=messages.router,
            on_end=self.fail,
            on_change=self._on_service_change,
        )
        self._on_stop("services", self._stop_services)
        journaled = {spec.topic for spec in self.resolved.specs if spec.manager.cls.journal_events}
        messages.enable_journal(store, journaled, options)
        messages.notifications.configure(options.notifications.model_dump(), self.resolved.sinks)
        messages.start(ControlEndpoint(self, messages.dispatcher))
        await runtime.mark_gone(options.network.peers)
        messages.connect_peers(store, options, runtime.state_notifier.notify_peer)
        await self._start_services(runtime, options.daemon.start_timeout)
        await messages.wait_for_peers(_PEER_WAIT_TIMEOUT)
        await self._call_plugin_hooks("ostler_started", _START_HOOK_TIMEOUT)
        register_probes(self.watchdog, store, messages, runtime, self.clock)
        self.tasks.supervise(self.watchdog.run, name="watchdog")
        self._on_stop("watchdog", self.watchdog.stop)
        self.state_tracker.enter(ServiceState.UP)
        self._install_code_snapshot(code)
        self.start_finished.set_result(None)
        self.notifier.ready(self.summary())
        code.compress_in_background()
        _log.info("ready: %s", self.summary(), extra=log.message_id("ready"))

    def _open_messaging(self, store: Store, options: Configuration, inbox: LoopQueue) -> MessagingStack:
        """Bind the sockets, which answer nobody yet, and begin the audit log of what is to come over them."""
        registry = TopicRegistry(self.host)
        auditor = self.audit_service = AuditService(store, registry, self.clock, options)
        messages = self.messaging = MessagingStack(
            options, self._make_transport(), self.clock, inbox, registry, auditor.log
        )
        self.tasks.supervise(auditor.log.run, name="audit log")
        self.tasks.supervise(
            partial(auditor.record_in_flight, messages.dispatcher.in_flight_since),
            name="audit log of requests in progress",
        )
        self._on_stop("audit log", auditor.close)
        self._on_stop("sockets", messages.close)
        return messages

    def _begin_code_snapshot(self) -> CodeSnapshot:
        """Start reading the code that may still be imported, while the database is opened."""
        packages = ["ostler", *self.plugins.packages(), *(spec.manager.cls.__module__ for spec in self.resolved.specs)]
        code = CodeSnapshot(["cronsim", *(name.partition(".")[0] for name in packages)])
        code.read_in_background()
        return code

    def _install_code_snapshot(self, snapshot: CodeSnapshot) -> None:
        """Serve late imports from what was read: an upgrade may start as soon as the daemon is known to be ready."""
        if not snapshot.wait(_STOP_GRACE):
            _log.warning(
                "the running code could not be read within %g s: restart the daemon after an upgrade", _STOP_GRACE
            )
        snapshot.install()

        async def undo() -> None:
            snapshot.remove()

        self._on_stop("snapshot of the code", undo)

    async def _start_services(self, runtime: Runtime, timeout: float) -> None:
        more = self.tasks.spawn(self._extend_start(runtime, timeout), name="extend the start while the disk is full")
        try:
            await runtime.start(timeout)
        finally:
            more.cancel()

    async def _extend_start(self, runtime: Runtime, timeout: float) -> None:
        """Give the services more time for as long as the database cannot be written, which is not their fault."""
        while True:
            await asyncio.sleep(_STATUS_INTERVAL)
            if self.store is not None and self.store.outage.is_active:
                runtime.group.extend_start(timeout)

    async def _open_store(self) -> Store:
        options = self.resolved.configuration.store
        migrations = self.plugins.migrations()

        def open_and_migrate() -> Store:
            store = Store.open(
                self.paths.database,
                clock=self.clock,
                synchronous=options.synchronous,
                busy_timeout=options.busy_timeout,
                backups=options.backups,
                migrations=migrations,
                account=current_account,
                later=True,
            )
            adopt_host_name(store, self.host)
            return store

        pool = WorkerPool("ostler-open", 1)
        self.step_tracker("opening the database")
        opening = asyncio.ensure_future(pool.run(open_and_migrate, label="open the database"))
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            # A thread cannot be cancelled, and a migration must not be left running: what it opens must be closed.
            await asyncio.wait([opening])
            raise
        finally:
            self.step_tracker("")
            pool.close()
            if opening.done() and opening.exception() is None:
                self.store = opening.result()
                self._on_stop("store", self._close_store)
        return opening.result()

    async def _call_plugin_hooks(self, hook: str, limit: float) -> None:
        """Call a hook of all plugins, on a thread: one that hangs must not block the loop."""
        pool = WorkerPool("ostler-hooks", 1)
        timeout = asyncio.timeout(limit)
        try:
            async with timeout:
                await pool.run(lambda: self.plugins.call_hooks(hook, host=self.host), label=hook)
        except TimeoutError:
            text = f"{self.step_tracker.current_step or hook} did not return within {limit:g} s"
            _log.error("%s; no longer waiting for it", text)
            if hook == "ostler_stopping":
                self._stuck_lines.append(text)
        finally:
            self.step_tracker("")
            pool.close()

    def _on_stop(self, what: str, undo: Callable[[], Awaitable[None]]) -> None:
        self._undo_stack.append((what, undo))

    async def _report_start(self) -> None:
        while not self.start_finished.done() and self.state_tracker.state is ServiceState.STARTING:
            waiting = self.runtime.group.start_waits_for() if self.runtime else []
            waiting += [self.step_tracker.current_step] if self.step_tracker.current_step else []
            text = f"starting, waiting for {'; '.join(waiting)}" if waiting else "starting"
            self.notifier.extend_timeout(TIMEOUT_EXTENSION, text)
            await asyncio.sleep(_STATUS_INTERVAL)

    # ---------------------------------------------------------------- signals and fatal ends

    def on_signal(self, number: int) -> None:
        """Record a signal: the first SIGTERM or SIGINT stops, the second stops fast."""
        self._signal_count += 1
        name = signal.Signals(number).name
        # Act first, log second: a problem with the log must not keep a signal from being handled.
        self._stop_requested.set()
        if self._signal_count == 1:
            _log.info("%s received: stopping", name)
            return
        self._shutdown_watchdog.arm(self.resolved.configuration.daemon.fast_stop_timeout)
        if self.runtime is not None:
            self.runtime.group.skip_drain()
        _log.warning("%s received again: stopping without waiting for work in progress", name)

    def fail(self, reason: str) -> None:
        """Stop the daemon because a permanent task has ended. On the loop."""
        if self.state_tracker.state is ServiceState.DRAINING:
            return
        self._fatal_reason = self._fatal_reason or reason
        self._stop_requested.set()
        _log.critical("%s; the daemon stops", reason)

    # ---------------------------------------------------------------- stop

    async def stop(self) -> list[str]:
        """Undo what was set up, last first; returns what hung, a line each. Safe at every point of the start."""
        self.state_tracker.enter(ServiceState.DRAINING, self._fatal_reason or "the daemon is stopping")
        limit = self.resolved.configuration.daemon.stop_timeout
        self.stop_started_at = self.clock.monotonic()
        self._shutdown_watchdog.arm(limit + _STOP_GRACE)
        until = self._stop_deadline = asyncio.get_running_loop().time() + limit
        self.notifier.stopping("stopping")
        teller = self.tasks.spawn(self._report_stop(), name="report the progress of the stop to systemd")
        if self._start_task is not None and not self._start_task.done():
            self._start_task.cancel()
            await asyncio.gather(self._start_task, return_exceptions=True)
        self._fail_start_waiters("the daemon is stopping")
        if self.runtime is not None:
            left = until - asyncio.get_running_loop().time()
            await self._call_plugin_hooks("ostler_stopping", max(0.0, min(_STOP_HOOK_TIMEOUT, left / 4)))
        while self._undo_stack:
            what, undo = self._undo_stack.pop()
            self.step_tracker("" if what == "services" else f"the end of {what}")
            try:
                await undo()
            except Exception as error:  # noqa: BLE001 - the rest must be undone whatever this part does
                _log.error("stopping %s failed: %s", what, error_line(error))
        teller.cancel()
        await self.tasks.cancel()
        self.state_tracker.enter(ServiceState.STOPPED)
        self.notifier.status("stopped")
        _log.info("stopped", extra=log.message_id("stopped"))
        return self._stuck_lines

    async def _report_stop(self) -> None:
        said: set[str] = set()
        ticks = 0
        while True:
            left = self._stop_waits_for()
            text = f"stopping, waiting for {'; '.join(left)}" if left else "stopping"
            self.notifier.extend_timeout(TIMEOUT_EXTENSION, text)
            kinds = {_DURATION_PATTERN.sub("", line) for line in left} if ticks else set()
            if news := kinds - said:  # each is logged once, when it has lasted for a second
                said |= news
                _log.info("stopping, waiting for %s", "; ".join(sorted(news)))
            ticks += 1
            await asyncio.sleep(_STATUS_INTERVAL)

    def _stop_waits_for(self) -> list[str]:
        lines = [line for service in self.services for line in service.in_progress()]
        lines += [f"{each.topic}: {each.step}" for each in self.services if each.step.startswith("stopping ")]
        return lines + ([self.step_tracker.current_step] if self.step_tracker.current_step else [])

    async def _stop_services(self) -> None:
        assert self.runtime is not None  # noqa: S101 - noted after it was made
        left = self._stop_deadline - asyncio.get_running_loop().time()
        self._stuck_lines += await self.runtime.stop(max(0.0, left))
        await self.reloader.stop()

    async def _close_store(self) -> None:
        store = self.store
        assert store is not None  # noqa: S101 - noted after it was opened
        pool = WorkerPool("ostler-close", 1)
        try:
            if hung := await pool.run(
                lambda: store.close(_STOP_GRACE, keep_lock=self.should_keep_lock), label="close the database"
            ):
                self._stuck_lines.append(f"the store: {hung}")
        finally:
            pool.close()

    def _thread_lines(self) -> list[str]:
        return [f"{name}: {' < '.join(reversed(stack[-3:]))}" for name, stack in thread_stacks().items()]

    # ---------------------------------------------------------------- what others ask

    @property
    def services(self) -> list[Service]:
        """The services of this daemon, in the order of their start."""
        return list(self.runtime.group) if self.runtime is not None else []

    def summary(self) -> str:
        """Return one line on the state of the services."""
        rows = [f"{service.topic} {service.state_tracker.state}" for service in self.services]
        return ", ".join(rows) or "no services are configured"

    async def status(self) -> DaemonStatus:
        """Return a summary of the daemon."""
        rows = await self.runtime.rows() if self.runtime is not None else []
        trouble = self.store.problems() if self.store is not None else []
        if self.messaging is not None:
            trouble += self.messaging.problems()
        if self.runtime is not None:
            trouble += self.runtime.problems()
        trouble += self.tasks.problems()
        trouble += self.installed_versions.newer_on_disk()
        where, of_log = log.log_status()
        from ostler.daemon.control.daemon_status import daemon_status

        return daemon_status(self, rows, [*self.watchdog.stale_signals(), *trouble, *of_log], where)

    def dump(self) -> dict[str, Any]:
        """Return what the daemon is doing right now; the configuration is masked."""
        return {
            "daemon": {"host": self.host, "state": str(self.state_tracker.state), "why": self.state_tracker.why},
            "services": {
                service.topic: {
                    "state": str(service.state_tracker.state),
                    "why": service.state_tracker.why,
                    "step": service.step,
                    "working": service.in_progress(),
                }
                for service in self.services
            },
            "messages": self.messaging.stats() if self.messaging is not None else {},
            "audit": self.audit_service.log.stats() if self.audit_service is not None else {},
            "store": self.store.stats() if self.store is not None else {},
            "watchdog": self.watchdog.stale_signals(),
            "tasks": task_stacks(),
            "threads": thread_stacks(),
            "configuration": {v.path: f"{v.value!r} ({v.origin})" for v in self.effective_values()},
        }

    def effective_values(self) -> list[OptionValue]:
        """Return every option with the value in effect: options that need a restart have the value of the start."""
        actual: dict[tuple[str, ...], OptionsModel] = {}
        for service in self.services:
            actual["services", service.topic] = service.options
            for name in service.drivers or ():
                actual["services", service.topic, "drivers", name] = service.driver_options(name)
        return effective_values(self.start_configuration, self.resolved.configuration, actual)

    def log_dump(self) -> None:
        """Write the dump to the log: SIGUSR2."""
        _log.warning("dump", extra=log.message_id("dump") | log.detail(format_dump(self.dump())))

    # ---------------------------------------------------------------- changes

    def _on_liveness_lost(self, text: str) -> None:
        self.notifier.status(f"unhealthy, withholding the watchdog ping: {text}")
        stacks = format_dump(thread_stacks())
        extra = log.message_id("watchdog") | log.detail(stacks)
        _log.critical("withholding the watchdog ping: %s", text, extra=extra)

    def apply_configuration(self, resolved: ResolvedConfiguration) -> None:
        """Apply what a reload may change in the daemon itself."""
        self.resolved = resolved
        options = resolved.configuration.log
        log.set_up(level=options.level, format=options.format, levels=options.levels)
        if self.store is not None:
            self.store.retention_clock.trust_wall_clock()
        if self.messaging is not None:
            self.messaging.apply(resolved.configuration)
            chosen = resolved.configuration.notifications.model_dump()
            self.messaging.notifications.configure(chosen, resolved.sinks)
        if self.audit_service is not None:
            self.audit_service.configure(resolved.configuration)
        for warning in policy_warnings(resolved):
            _log.warning("%s", warning)

    def mark_service_restarted(self, topic: str) -> None:
        """Record, after one service was started again, that none of its options waits for a restart any longer."""
        assembly, runtime = self.resolved, self.runtime
        service = runtime.group.services.get(topic) if runtime is not None else None
        if service is None or not any(service.spec is spec for spec in assembly.specs):
            return  # it was not started, and is unchanged
        mine = ("services", topic)
        tables = {path: table for path, table in self.start_configuration.tables.items() if path[:2] != mine}
        tables |= {path: table for path, table in assembly.configuration.tables.items() if path[:2] == mine}
        self.start_configuration = replace(self.start_configuration, tables=tables)

    async def reset_services(self, resolved: ResolvedConfiguration, on_step: Callable[[str], object]) -> list[str]:
        """Apply new options to the services and reset their managers; return what went wrong, a line each."""
        if self.runtime is None:
            return []
        await self.runtime.mark_gone(resolved.configuration.network.peers)
        limit = resolved.configuration.daemon.reload_timeout
        return await self.runtime.reset(
            resolved.specs, should_continue=lambda: not self.is_stopping, on_step=on_step, timeout=limit
        )

    def _on_state_change(self) -> None:
        _log.debug("the daemon is %s", self.state_tracker.state)

    def _on_service_change(self, service: Service) -> None:
        state, why = service.state_tracker.state, service.state_tracker.why
        text = f"service {service.topic} is {state}{f': {why}' if why else ''}"
        extra = log.extra(service=service.topic)
        if f"service-{state}" in log.MESSAGE_IDS:
            extra |= log.message_id(f"service-{state}")
        _log.log(_LOG_LEVEL_BY_STATE.get(state, logging.INFO), "%s", text, extra=extra)
        self.state_tracker.set_problem(f"service {service.topic}", text if state is ServiceState.FAILED else "")
        if self.start_finished.done() and not self.is_stopping:
            self.notifier.status(self.summary())
