"""The composition root: builds every part, starts them in order, and stops them in the mirrored order."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from ostler import log
from ostler.aio import Inbox, TaskOwner, WorkerPool
from ostler.clock import Clock
from ostler.config.paths import Paths
from ostler.daemon.dump import as_text, task_stacks, thread_stacks
from ostler.daemon.lastresort import LastResort
from ostler.daemon.messages import Messages, open_messages
from ostler.daemon.reload import Reloader
from ostler.daemon.status import daemon_status, merge_rows
from ostler.daemon.watchdog import Watchdog
from ostler.errors import OstlerError, StoreError, describe
from ostler.service import CapabilityReporter, Reporter, Service, ServiceGroup, Surroundings
from ostler.service.assembly import Assembly
from ostler.service.states import StateKeeper
from ostler.store import CapabilityRecords, PeriodicRecords, ServiceRecords, Store
from ostler.systemd import Notifier
from ostler.types import DaemonStatus, ServiceState, ServiceStatus

_log = logging.getLogger(__name__)
_STATUS_EVERY = 1.0
"""Seconds between two STATUS lines while starting or stopping."""
_GRACE = 5.0
"""Seconds that the last resort leaves to the rest of a stop beyond the stop's own time."""


class Daemon:
    """One daemon, from the validated configuration to the last line of its log.

    All methods run on the loop. Everything that was set up is noted with what undoes it, so that `stop` is right at every
    point of the start.

    Args:
        paths: Where its state and sockets are.
        assembly: The validated configuration with the plugins and the services it names.
        clock: The source of time.
        notifier: Tells systemd.
        reload_from: Reads and validates the configuration anew.
        leave: Ends the process when a stop hangs.
    """

    parts: Surroundings
    group: ServiceGroup
    reporter: Reporter
    capability_reporter: CapabilityReporter
    capability_records: CapabilityRecords
    messages: Messages

    def __init__(
        self,
        paths: Paths,
        assembly: Assembly,
        *,
        clock: Clock,
        notifier: Notifier,
        reload_from: Callable[[], Assembly],
        watchdog_interval: float | None,
        last_resort: LastResort | None = None,
    ) -> None:
        self.paths = paths
        self.assembly = assembly
        self.plugins = assembly.plugins
        self.host = assembly.configuration.daemon.host
        self.clock = clock
        self.notifier = notifier
        self.began = clock.wall()
        self.states = StateKeeper(clock, self._state_changed)
        self.reloader = Reloader(self, reload_from)
        self.tasks = TaskOwner("daemon", on_end=self.fail)
        self.watchdog = Watchdog(watchdog_interval, notifier.watchdog, clock, self._evidence_lost)
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last_resort = last_resort or LastResort(self._hung)
        self._undo: list[tuple[str, Callable[[], Awaitable[list[str]]]]] = []
        self._end = asyncio.Event()
        self._fatal = ""
        self._signals = 0
        self._starting: asyncio.Task[None] | None = None
        self._group_made = False

    # ---------------------------------------------------------------- life

    async def run(self) -> int:
        """Start, run until told to stop, stop; returns the exit code. A failed start is logged and stopped likewise."""
        loop = asyncio.get_running_loop()
        self._starting = loop.create_task(self._start(), name="start")
        ending = loop.create_task(self._end.wait(), name="wait for the end")
        await asyncio.wait({self._starting, ending}, return_when=asyncio.FIRST_COMPLETED)
        failed = self._start_error()
        if not failed:
            await ending
        ending.cancel()
        hung = await self.stop()
        if self._fatal:
            _log.critical("the daemon stopped: %s", self._fatal)
        self._last_resort.disarm()
        for line in hung:
            _log.error("left behind at the stop: %s", line)
        self._hung_at_end = hung
        return 1 if failed or self._fatal else 0

    @property
    def hung_at_end(self) -> list[str]:
        """What was still running when the stop had come to its end; such threads need a hard exit."""
        return getattr(self, "_hung_at_end", [])

    def _start_error(self) -> str:
        assert self._starting is not None  # noqa: S101 - created by `run`
        if not self._starting.done() or self._starting.cancelled():
            return ""
        error = self._starting.exception()
        if error is None:
            return ""
        expected = isinstance(error, OstlerError)
        _log.critical("the daemon could not start: %s", describe(error), exc_info=None if expected else error)
        self.notifier.status(f"could not start: {describe(error)}")
        return describe(error)

    async def _start(self) -> None:
        self.tasks.spawn(self._tell_start(), name="tell systemd how far the start is")
        loop = asyncio.get_running_loop()
        inbox = Inbox(loop)
        store = await self._open_store()
        records = ServiceRecords(store, self.clock, self.host)
        self.capability_records = CapabilityRecords(store, self.clock)
        self.messages = open_messages(self, inbox)
        self._note("sockets", self._close_messages)
        self.parts = self.messages.surroundings(
            store=store, records=records, runs=PeriodicRecords(store, self.clock), inbox=inbox
        )
        self._make_group(store, records)
        await self.group.start()
        self.plugins.notify("ostler_started", host=self.host)
        self._add_evidence()
        self.tasks.spawn(self.watchdog.run(), name="watchdog", forever=True)
        self._note("watchdog", self._stop_watchdog)
        self.states.enter(ServiceState.UP)
        self.started.set_result(None)
        self.notifier.ready(self.summary())
        _log.info("ready: %s", self.summary(), extra={"event": "ready"})

    async def _open_store(self) -> Store:
        options = self.assembly.configuration.store
        pool = WorkerPool("ostler-open", 1)
        store = await pool.run(
            lambda: Store.open(
                self.paths.database, clock=self.clock, synchronous=options.synchronous,
                busy_timeout=options.busy_timeout, backups=options.backups,
                migrations=self.plugins.migrations(),
            ),
            label="open the database",
        )  # fmt: skip
        pool.close()
        self._note("store", lambda: self._close_store(store))
        return store

    def _make_group(self, store: Store, records: ServiceRecords) -> None:
        self.group = ServiceGroup(self.assembly.specs, self.parts, self._service_changed)
        self._group_made = True
        services = self.group.services.values
        self.reporter = Reporter(services, store, records, self.clock, self.host)
        self.capability_reporter = CapabilityReporter(
            services, store, self.capability_records, self.parts.client, self.clock, self.host
        )
        self._note("reports", self._stop_reports)
        self._note("services", self._stop_services)
        self.tasks.spawn(self.reporter.run(), name="report state", forever=True)
        self.tasks.spawn(self.capability_reporter.run(), name="report capabilities", forever=True)

    def _note(self, what: str, undo: Callable[[], Awaitable[list[str]]]) -> None:
        self._undo.append((what, undo))

    async def _tell_start(self) -> None:
        while not self.started.done() and self.states.state is ServiceState.STARTING:
            waiting = self.group.waiting_for() if self._group_made else ["the database"]
            self.notifier.extend_timeout(max(30.0, 10 * _STATUS_EVERY))
            self.notifier.status("starting, waiting for " + "; ".join(waiting))
            await asyncio.sleep(_STATUS_EVERY)

    # ---------------------------------------------------------------- signals and fatal ends

    def on_signal(self, number: int) -> None:
        """Take note of a signal: the first SIGTERM or SIGINT stops, the second stops fast."""
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals == 1:
            _log.info("%s: stopping", name)
            self._end.set()
        else:
            _log.warning("%s again: stopping without waiting for work in flight", name)
            if self._group_made:
                self.group.hurry()
            self._last_resort.arm(_GRACE)

    def fail(self, reason: str) -> None:
        """Stop the daemon because something that should live for ever has ended. On the loop."""
        if self.states.state is ServiceState.DRAINING:
            return
        self._fatal = self._fatal or reason
        _log.critical("%s; the daemon stops", reason)
        self._end.set()

    # ---------------------------------------------------------------- stop

    async def stop(self) -> list[str]:
        """Undo what was set up, last first; returns what hung, a line each. Safe at every point of the start."""
        self.states.enter(ServiceState.DRAINING, self._fatal or "the daemon is being stopped")
        limit = self.assembly.configuration.daemon.stop_timeout
        self._last_resort.arm(limit + _GRACE)
        self.notifier.stopping("stopping")
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._group_made:
            for problem in self.plugins.notify("ostler_stopping", host=self.host):
                _log.error("%s", problem)
        teller = self.tasks.spawn(self._tell_stop(), name="tell systemd how far the stop is")
        hung: list[str] = []
        while self._undo:
            what, undo = self._undo.pop()
            try:
                hung += await undo()
            except Exception as error:  # noqa: BLE001 - the rest has to be undone whatever this part does
                _log.error("stopping %s failed: %s", what, describe(error))
        teller.cancel()
        await self.tasks.cancel()
        self.states.enter(ServiceState.STOPPED)
        self.notifier.status("stopped")
        _log.info("stopped", extra={"event": "stopped"})
        return hung

    async def _tell_stop(self) -> None:
        while True:
            left = [line for service in self.group for line in service.unfinished()] if self._group_made else []
            text = f"stopping, waiting for {'; '.join(left)}" if left else "stopping"
            self.notifier.extend_timeout(max(10.0, 10 * _STATUS_EVERY))
            self.notifier.status(text)
            await asyncio.sleep(_STATUS_EVERY)

    async def _stop_services(self) -> list[str]:
        hung = await self.group.stop(self.assembly.configuration.daemon.stop_timeout)
        await self.reporter.write(self.group)
        return hung

    async def _stop_reports(self) -> list[str]:
        await self.reporter.stop()
        await self.capability_reporter.stop()
        return []

    async def _stop_watchdog(self) -> list[str]:
        await self.watchdog.stop()
        return []

    async def _close_messages(self) -> list[str]:
        self.messages.close()
        return []

    async def _close_store(self, store: Store) -> list[str]:
        pool = WorkerPool("ostler-close", 1)
        try:
            async with asyncio.timeout(_GRACE):
                await pool.run(store.close, label="close the database")
        except TimeoutError:
            return ["the database's writer thread"]
        finally:
            pool.close()
        return []

    def _hung(self) -> list[str]:
        return [f"{name}: {' < '.join(reversed(stack[-3:]))}" for name, stack in thread_stacks().items()]

    # ---------------------------------------------------------------- what others ask

    def summary(self) -> str:
        """Return one line on the state of the services."""
        rows = [f"{service.topic} {service.states.state}" for service in self.group]
        return ", ".join(rows) or "no services are configured"

    async def service_rows(self) -> list[ServiceStatus]:
        """Return every service, live and from the table; the table is left out while it cannot be read."""
        live = [service.status() for service in self.group]
        down_times = {service.topic: service.options.down_time for service in self.group}
        try:
            table = await self.parts.store.aread(lambda: self.parts.records.list(down_times))
        except StoreError:
            table = []
        return merge_rows(live, table)

    async def status(self) -> DaemonStatus:
        """Return the daemon at one glance."""
        rows = await self.service_rows() if self._group_made else []
        return daemon_status(self, rows, self.watchdog.missing())

    def dump(self) -> dict[str, Any]:
        """Return what the daemon is doing right now; the configuration is masked."""
        services = list(self.group) if self._group_made else []
        return {
            "daemon": {"host": self.host, "state": str(self.states.state), "why": self.states.why},
            "threads": thread_stacks(),
            "tasks": task_stacks(),
            "services": {
                s.topic: {"state": str(s.states.state), "why": s.states.why, "step": s.step} for s in services
            },
            "working": {s.topic: s.unfinished() for s in services},
            "messages": self.messages.stats() if services else {},
            "watchdog": self.watchdog.missing(),
            "configuration": {v.path: f"{v.value!r} ({v.origin})" for v in self.assembly.configuration.values()},
        }

    def log_dump(self) -> None:
        """Write the dump to the log: SIGUSR2."""
        _log.warning("dump\n%s", as_text(self.dump()), extra={"event": "dump"})

    # ---------------------------------------------------------------- evidence

    def _add_evidence(self) -> None:
        self.watchdog.add("the store writes", self._prove_store)
        self.watchdog.add("the RPC socket answers", self.messages.prove)
        for service in self.group:
            if service.options.critical:
                self.watchdog.add(f"service {service.topic} makes progress", lambda s=service: self._prove(s))

    async def _prove_store(self) -> None:
        try:
            await self.parts.store.aping()
        except StoreError as error:
            # The writer thread answered: a full disk or a locked file is not cured by a restart.
            _log.debug("the store answered the watchdog with an error: %s", error)

    async def _prove(self, service: Service) -> None:
        allowed = 2 * service.options.report_interval + service.options.down_time
        idle = self.clock.monotonic() - service.progressed
        if idle > allowed:
            raise OstlerError(f"its checks have not come back for {idle:.0f} s")

    def _evidence_lost(self, text: str) -> None:
        self.notifier.status(f"not well, the watchdog ping is withheld: {text}")
        _log.critical(
            "the watchdog ping is withheld: %s\n%s", text, as_text(thread_stacks()), extra={"event": "watchdog"}
        )

    def _state_changed(self) -> None:
        _log.debug("the daemon is %s", self.states.state)

    def _service_changed(self, service: Service) -> None:
        self.reporter.poke(service)
        state, why = service.states.state, service.states.why
        level = logging.INFO if state is not ServiceState.DEGRADED else logging.WARNING
        _log.log(
            level,
            "service %s is %s%s",
            service.topic,
            state,
            f": {why}" if why else "",
            extra=log.extra(service=service.topic),
        )
        if state in (ServiceState.UP, ServiceState.DEGRADED):
            self.capability_reporter.poke(service.topic)
        if self.started.done() and self.states.state is ServiceState.UP:
            self.notifier.status(self.summary())
