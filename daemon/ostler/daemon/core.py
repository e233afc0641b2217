"""The composition root: builds every part, starts them in order, and stops them in the mirrored order."""

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
from ostler.aio import Inbox, TaskOwner, WorkerPool
from ostler.clock import Clock
from ostler.config.changes import running_values
from ostler.config.layers import RawConfiguration
from ostler.config.options import OptionsModel
from ostler.config.paths import Paths
from ostler.daemon.code_snapshot import CodeSnapshot
from ostler.daemon.control import Control
from ostler.daemon.dump import as_text, task_stacks, thread_stacks
from ostler.daemon.evidence import add_evidence, retry_database
from ostler.daemon.installed_versions import InstalledVersions
from ostler.daemon.lastresort import LastResort
from ostler.daemon.messages import Messages, make_runtime_folder
from ostler.daemon.reload import Reloader
from ostler.daemon.steps import MORE_TIME, Steps
from ostler.daemon.watchdog import Watchdog
from ostler.daemon.watching import Auditor, policy_warnings
from ostler.errors import Draining, ServiceError, describe, is_expected
from ostler.messaging.context import current_account
from ostler.messaging.transport import Transport
from ostler.service import Host, Runtime, Service
from ostler.service.assembly import Assembly
from ostler.service.states import StateKeeper
from ostler.store import Store
from ostler.store.host_identity import settle_identity
from ostler.systemd import Notifier
from ostler.types import DaemonStatus, OptionValue, ServiceState

_log = logging.getLogger(__name__)
_STATUS_EVERY = 1.0
"""Seconds between two STATUS lines while starting or stopping."""
_LEVELS = {
    ServiceState.STARTING: logging.DEBUG,
    ServiceState.DEGRADED: logging.WARNING,
    ServiceState.FAILED: logging.ERROR,
}
_HOOKS_AT_START, _HOOKS_AT_STOP = 60.0, 5.0
"""Seconds that `ostler_started` and `ostler_stopping` of all plugins may take; the last as well a quarter of a stop."""
_PEERS = 1.0
"""Seconds that the start waits for the other hosts, if it has not heard of each by the time all services are up."""
_SECONDS = re.compile(r" for \d+ s")
_GRACE = 5.0
"""Seconds that the last resort leaves to the rest of a stop beyond the stop's own time."""


class Daemon:
    """One daemon, from the validated configuration to the last line of its log.

    All methods run on the loop. Everything that was set up is noted with what undoes it, so that `stop` is right at
    every point of the start.

    Args:
        paths: Where its state and sockets are.
        assembly: The validated configuration with the plugins and the services it names.
        clock: The source of time.
        notifier: Tells systemd.
        reload_from: Reads and validates the configuration anew; told what to call with each step it begins, and handed
            what was read before.
        watchdog_interval: Seconds after which systemd acts without a ping; None when it does not.
        make_transport: Makes what carries the messages, when the start has come to that.
        last_resort: Ends the process when the stop does not come to its end.
    """

    def __init__(
        self,
        paths: Paths,
        assembly: Assembly,
        *,
        clock: Clock,
        notifier: Notifier,
        reload_from: Callable[[Callable[[str], object], RawConfiguration], Assembly],
        watchdog_interval: float | None,
        make_transport: Callable[[], Transport],
        last_resort: LastResort | None = None,
    ) -> None:
        self.paths = paths
        self.assembly = assembly
        self.started_with = assembly.configuration
        self.plugins = assembly.plugins
        self.installed = InstalledVersions(assembly.plugins)
        self.host = assembly.configuration.daemon.host
        self.clock = clock
        self.notifier = notifier
        self.began = clock.wall()
        self.states = StateKeeper(clock, self._state_changed)
        self.steps = Steps("starting")
        self.plugins.step = self.steps
        self.reloader = Reloader(self, reload_from)
        self.tasks = TaskOwner("daemon", on_end=self.fail)
        self.watchdog = Watchdog(
            watchdog_interval, notifier.watchdog, clock, self._evidence_lost, lambda: notifier.status(self.summary())
        )
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.store: Store | None = None
        self.messages: Messages | None = None
        self.runtime: Runtime | None = None
        self.auditor: Auditor | None = None
        self.hung_at_end: list[str] = []
        self.stop_began = 0.0
        self.keep_lock = False
        """Whether the state stays locked until the process ends: what plugins leave behind runs until then."""
        self._make_transport = make_transport
        self._last_resort = last_resort or LastResort(self._hung)
        self._undo: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._hanging: list[str] = []
        self._end = asyncio.Event()
        self._fatal = ""
        self._signals = 0
        self._start_failed = False
        self._stop_until = 0.0
        self._starting: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------- life

    async def run(self) -> int:
        """Start, run until told to stop, stop; returns the exit code. A failed start is logged and stopped likewise."""
        self._starting = asyncio.get_running_loop().create_task(self._start(), name="start")
        self._starting.add_done_callback(self._start_ended)
        await self._wait_for_end()
        self.hung_at_end = await self.stop()
        self._last_resort.disarm()
        if self._fatal:
            _log.critical("the daemon stopped: %s", self._fatal)
        return 1 if self._start_failed or self._fatal else 0

    async def _wait_for_end(self) -> None:
        while not self._end.is_set():
            try:
                await self._end.wait()
            except asyncio.CancelledError:  # a plugin has cancelled all tasks that there are
                fork.leave_if_child()
                _log.error("a plugin has cancelled the daemon's main task; the daemon goes on")
                if (task := asyncio.current_task()) is not None:
                    task.uncancel()

    def _start_ended(self, _: asyncio.Task[None]) -> None:
        if self._end.is_set():  # the stop has cut it off
            return
        self._start_failed = bool(self._start_error())
        if self._start_failed:
            self._end.set()

    @property
    def ending(self) -> bool:
        """Whether a stop was asked for or has begun."""
        return self._end.is_set() or self.states.state in (ServiceState.DRAINING, ServiceState.STOPPED)

    @property
    def stop_left(self) -> float:
        """The seconds left of the time that the stop has; none after a second signal, which waits for nothing."""
        if self._signals > 1:
            return 0.0
        return self.stop_began + self.assembly.configuration.daemon.stop_timeout - self.clock.monotonic()

    def _start_error(self) -> str:
        """Return why the start has failed, which is logged; empty when it has not, or not ended yet."""
        assert self._starting is not None  # noqa: S101 - created by `run`
        if not self._starting.done():
            return ""
        error = ServiceError("it was cancelled") if self._starting.cancelled() else self._starting.exception()
        if error is None:
            return ""
        expected = is_expected(error)
        _log.critical("the daemon could not start: %s", describe(error), exc_info=None if expected else error)
        self.notifier.status(f"could not start: {describe(error)}")
        self._never_started(f"the daemon could not start: {describe(error)}")
        return describe(error)

    def _never_started(self, why: str) -> None:
        """Let go those who wait for the end of the start: a reload, `wait_ready`."""
        if not self.started.done():
            self.started.set_exception(Draining(why))
            self.started.exception()  # looked at: it is no news if nobody waits

    async def _start(self) -> None:
        self.tasks.spawn(self._tell_start(), name="tell systemd how far the start is")
        options = self.assembly.configuration
        inbox = Inbox(asyncio.get_running_loop())
        code = self._read_code()
        store = self.store = await self._open_store()
        self.tasks.keep(partial(retry_database, store), name="try the database again")
        if options.network.rpc:
            from ostler.daemon.addresses import wait_for_addresses

            await wait_for_addresses(options, self.clock, self.steps)
        make_runtime_folder(self.paths.run)
        messages = self.messages = Messages(options, self._make_transport(), self.clock, inbox)
        auditor = self.auditor = Auditor(store, messages.dispatcher, self.clock, options)
        self.tasks.keep(auditor.log.run, name="audit log")
        self.tasks.keep(auditor.watch_begun, name="audit log of what is under way")
        self._note("audit log", auditor.close)
        self._note("sockets", messages.close)
        runtime = self.runtime = Runtime(
            self.assembly.specs,
            Host(self.host, self.clock, inbox, store, messages.dispatcher, messages.client, messages.notifications),
            on_end=self.fail,
            on_change=self._service_changed,
        )
        self._note("services", self._stop_services)
        journaled = {spec.topic for spec in self.assembly.specs if spec.manager.cls.journal_events}
        messages.keep_events(store, journaled, options)
        messages.notifications.configure(options.notifications.model_dump(), self.assembly.sinks)
        messages.start(Control(self, messages.dispatcher))
        await runtime.mark_gone(options.network.peers)
        messages.on_peer = runtime.events.peer
        messages.reach_peers(store, options)
        await self._start_services(runtime, options.daemon.start_timeout)
        await messages.know_peers(_PEERS)
        await self._tell_plugins("ostler_started", _HOOKS_AT_START)
        add_evidence(self.watchdog, store, messages, runtime, self.clock)
        self.tasks.keep(self.watchdog.run, name="watchdog")
        self._note("watchdog", self.watchdog.stop)
        self.states.enter(ServiceState.UP)
        self._hold_code(code)
        self.started.set_result(None)
        self.notifier.ready(self.summary())
        code.pack_in_background()
        _log.info("ready: %s", self.summary(), extra=log.event("ready"))

    def _read_code(self) -> CodeSnapshot:
        """Begin to read the code that may still be imported, while the database is opened."""
        packages = ["ostler", *self.plugins.packages(), *(spec.manager.cls.__module__ for spec in self.assembly.specs)]
        code = CodeSnapshot(["cronsim", *(name.partition(".")[0] for name in packages)])
        code.take_in_background()
        return code

    def _hold_code(self, code: CodeSnapshot) -> None:
        """Serve late imports from what was read: an upgrade may begin as soon as anybody knows that this is ready."""
        if not code.wait(_GRACE):
            _log.warning("the code that runs cannot be read in %g s: restart the daemon after an upgrade", _GRACE)
        code.install()

        async def undo() -> None:
            code.remove()

        self._note("snapshot of the code", undo)

    async def _start_services(self, runtime: Runtime, timeout: float) -> None:
        more = self.tasks.spawn(self._extend(runtime, timeout), name="extend the start while the disk is full")
        try:
            await runtime.start(timeout)
        finally:
            more.cancel()

    async def _extend(self, runtime: Runtime, timeout: float) -> None:
        """Give the services more time for as long as the database cannot be written, which is not their fault."""
        while True:
            await asyncio.sleep(_STATUS_EVERY)
            if self.store is not None and self.store.outage.active:
                runtime.group.extend_start(timeout)

    async def _open_store(self) -> Store:
        options = self.assembly.configuration.store
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
            settle_identity(store, self.host)
            return store

        pool = WorkerPool("ostler-open", 1)
        self.steps("opening the database")
        opening = asyncio.ensure_future(pool.run(open_and_migrate, label="open the database"))
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            # A thread cannot be cancelled, and a migration is not left alone: what it opens has to be closed.
            await asyncio.wait([opening])
            raise
        finally:
            self.steps("")
            pool.close()
            if opening.done() and opening.exception() is None:
                self.store = opening.result()
                self._note("store", self._close_store)
        return opening.result()

    async def _tell_plugins(self, hook: str, limit: float) -> None:
        """Call a hook of all plugins, on a thread: one that hangs must not take the loop with it."""
        pool = WorkerPool("ostler-hooks", 1)
        timeout = asyncio.timeout(limit)
        try:
            async with timeout:
                await pool.run(lambda: self.plugins.notify(hook, host=self.host), label=hook)
        except TimeoutError:
            text = f"{self.steps.now or hook} has not come back within {limit:g} s"
            _log.error("%s; it is left behind", text)
            if hook == "ostler_stopping":
                self._hanging.append(text)
        finally:
            self.steps("")
            pool.close()

    def _note(self, what: str, undo: Callable[[], Awaitable[None]]) -> None:
        self._undo.append((what, undo))

    async def _tell_start(self) -> None:
        while not self.started.done() and self.states.state is ServiceState.STARTING:
            waiting = self.runtime.group.waiting_for() if self.runtime else []
            waiting += [self.steps.now] if self.steps.now else []
            text = f"starting, waiting for {'; '.join(waiting)}" if waiting else "starting"
            self.notifier.extend_timeout(MORE_TIME, text)
            await asyncio.sleep(_STATUS_EVERY)

    # ---------------------------------------------------------------- signals and fatal ends

    def on_signal(self, number: int) -> None:
        """Take note of a signal: the first SIGTERM or SIGINT stops, the second stops fast."""
        self._signals += 1
        name = signal.Signals(number).name
        # First what it does, then what it says: nothing that goes wrong with the log may keep a signal from its work.
        self._end.set()
        if self._signals == 1:
            _log.info("%s: stopping", name)
            return
        self._last_resort.arm(self.assembly.configuration.daemon.fast_stop_timeout)
        if self.runtime is not None:
            self.runtime.group.hurry()
        _log.warning("%s again: stopping without waiting for work in flight", name)

    def fail(self, reason: str) -> None:
        """Stop the daemon because something that should live for ever has ended. On the loop."""
        if self.states.state is ServiceState.DRAINING:
            return
        self._fatal = self._fatal or reason
        self._end.set()
        _log.critical("%s; the daemon stops", reason)

    # ---------------------------------------------------------------- stop

    async def stop(self) -> list[str]:
        """Undo what was set up, last first; returns what hung, a line each. Safe at every point of the start."""
        self.states.enter(ServiceState.DRAINING, self._fatal or "the daemon is being stopped")
        limit = self.assembly.configuration.daemon.stop_timeout
        self.stop_began = self.clock.monotonic()
        self._last_resort.arm(limit + _GRACE)
        until = self._stop_until = asyncio.get_running_loop().time() + limit
        self.notifier.stopping("stopping")
        teller = self.tasks.spawn(self._tell_stop(), name="tell systemd how far the stop is")
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        self._never_started("the daemon is being stopped")
        if self.runtime is not None:
            left = until - asyncio.get_running_loop().time()
            await self._tell_plugins("ostler_stopping", max(0.0, min(_HOOKS_AT_STOP, left / 4)))
        while self._undo:
            what, undo = self._undo.pop()
            self.steps("" if what == "services" else f"the end of {what}")
            try:
                await undo()
            except Exception as error:  # noqa: BLE001 - the rest has to be undone whatever this part does
                _log.error("stopping %s failed: %s", what, describe(error))
        teller.cancel()
        await self.tasks.cancel()
        self.states.enter(ServiceState.STOPPED)
        self.notifier.status("stopped")
        _log.info("stopped", extra=log.event("stopped"))
        return self._hanging

    async def _tell_stop(self) -> None:
        said: set[str] = set()
        ticks = 0
        while True:
            left = self._awaited_by_stop()
            text = f"stopping, waiting for {'; '.join(left)}" if left else "stopping"
            self.notifier.extend_timeout(MORE_TIME, text)
            kinds = {_SECONDS.sub("", line) for line in left} if ticks else set()
            if news := kinds - said:  # each once, when it has lasted for a second
                said |= news
                _log.info("stopping, waiting for %s", "; ".join(sorted(news)))
            ticks += 1
            await asyncio.sleep(_STATUS_EVERY)

    def _awaited_by_stop(self) -> list[str]:
        lines = [line for service in self.services for line in service.unfinished()]
        lines += [f"{each.topic}: {each.step}" for each in self.services if each.step.startswith("stopping ")]
        return lines + ([self.steps.now] if self.steps.now else [])

    async def _stop_services(self) -> None:
        assert self.runtime is not None  # noqa: S101 - noted after it was made
        left = self._stop_until - asyncio.get_running_loop().time()
        self._hanging += await self.runtime.stop(max(0.0, left))
        await self.reloader.stop()

    async def _close_store(self) -> None:
        store = self.store
        assert store is not None  # noqa: S101 - noted after it was opened
        pool = WorkerPool("ostler-close", 1)
        try:
            if hung := await pool.run(
                lambda: store.close(_GRACE, keep_lock=self.keep_lock), label="close the database"
            ):
                self._hanging.append(f"the store: {hung}")
        finally:
            pool.close()

    def _hung(self) -> list[str]:
        return [f"{name}: {' < '.join(reversed(stack[-3:]))}" for name, stack in thread_stacks().items()]

    # ---------------------------------------------------------------- what others ask

    @property
    def services(self) -> list[Service]:
        """The services of this daemon, in the order of their start."""
        return list(self.runtime.group) if self.runtime is not None else []

    def summary(self) -> str:
        """Return one line on the state of the services."""
        rows = [f"{service.topic} {service.states.state}" for service in self.services]
        return ", ".join(rows) or "no services are configured"

    async def status(self) -> DaemonStatus:
        """Return the daemon at one glance."""
        rows = await self.runtime.rows() if self.runtime is not None else []
        trouble = self.store.problems() if self.store is not None else []
        if self.messages is not None:
            trouble += self.messages.trouble()
        if self.runtime is not None:
            trouble += self.runtime.troubles()
        trouble += self.tasks.troubles()
        trouble += self.installed.newer_on_disk()
        where, of_log = log.log_status()
        from ostler.daemon.status import daemon_status

        return daemon_status(self, rows, [*self.watchdog.missing(), *trouble, *of_log], where)

    def dump(self) -> dict[str, Any]:
        """Return what the daemon is doing right now; the configuration is masked."""
        return {
            "daemon": {"host": self.host, "state": str(self.states.state), "why": self.states.why},
            "services": {
                service.topic: {
                    "state": str(service.states.state),
                    "why": service.states.why,
                    "step": service.step,
                    "working": service.unfinished(),
                }
                for service in self.services
            },
            "messages": self.messages.stats() if self.messages is not None else {},
            "audit": self.auditor.log.stats() if self.auditor is not None else {},
            "store": self.store.stats() if self.store is not None else {},
            "watchdog": self.watchdog.missing(),
            "tasks": task_stacks(),
            "threads": thread_stacks(),
            "configuration": {v.path: f"{v.value!r} ({v.origin})" for v in self.running_values()},
        }

    def running_values(self) -> list[OptionValue]:
        """Return every option with the value that is in force: what waits for a restart is as it was at the start."""
        actual: dict[tuple[str, ...], OptionsModel] = {}
        for service in self.services:
            actual["services", service.topic] = service.options
            for name in service.drivers or ():
                actual["services", service.topic, "drivers", name] = service.driver_options(name)
        return running_values(self.started_with, self.assembly.configuration, actual)

    def log_dump(self) -> None:
        """Write the dump to the log: SIGUSR2."""
        _log.warning("dump", extra=log.event("dump") | log.detail(as_text(self.dump())))

    # ---------------------------------------------------------------- changes

    def _evidence_lost(self, text: str) -> None:
        self.notifier.status(f"not well, the watchdog ping is withheld: {text}")
        stacks = as_text(thread_stacks())
        extra = log.event("watchdog") | log.detail(stacks)
        _log.critical("the watchdog ping is withheld: %s", text, extra=extra)

    def apply_live(self, assembly: Assembly) -> None:
        """Put into force what a reload may change in the daemon itself."""
        self.assembly = assembly
        options = assembly.configuration.log
        log.set_up(level=options.level, format=options.format, levels=options.levels)
        if self.store is not None:
            self.store.ages.believe()
        if self.messages is not None:
            self.messages.apply(assembly.configuration)
            chosen = assembly.configuration.notifications.model_dump()
            self.messages.notifications.configure(chosen, assembly.sinks)
        if self.auditor is not None:
            self.auditor.configure(assembly.configuration)
        for warning in policy_warnings(assembly):
            _log.warning("%s", warning)

    def took_over(self, topic: str) -> None:
        """Take note, after one service was started anew, that none of its options waits for a restart any more."""
        assembly, runtime = self.assembly, self.runtime
        service = runtime.group.services.get(topic) if runtime is not None else None
        if service is None or not any(service.spec is spec for spec in assembly.specs):
            return  # it was not begun, and is what it was
        mine = ("services", topic)
        tables = {path: table for path, table in self.started_with.tables.items() if path[:2] != mine}
        tables |= {path: table for path, table in assembly.configuration.tables.items() if path[:2] == mine}
        self.started_with = replace(self.started_with, tables=tables)

    async def reset_services(self, assembly: Assembly, step: Callable[[str], object]) -> list[str]:
        """Bring new options to the services and reset their managers; return what went wrong, a line each."""
        if self.runtime is None:
            return []
        await self.runtime.mark_gone(assembly.configuration.network.peers)
        limit = assembly.configuration.daemon.reload_timeout
        return await self.runtime.reset(assembly.specs, go_on=lambda: not self.ending, step=step, timeout=limit)

    def _state_changed(self) -> None:
        _log.debug("the daemon is %s", self.states.state)

    def _service_changed(self, service: Service) -> None:
        state, why = service.states.state, service.states.why
        text = f"service {service.topic} is {state}{f': {why}' if why else ''}"
        extra = log.extra(service=service.topic)
        if f"service-{state}" in log.MESSAGE_IDS:
            extra |= log.event(f"service-{state}")
        _log.log(_LEVELS.get(state, logging.INFO), "%s", text, extra=extra)
        self.states.complain(f"service {service.topic}", text if state is ServiceState.FAILED else "")
        if self.started.done() and not self.ending:
            self.notifier.status(self.summary())
