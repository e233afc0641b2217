"""Reads the metrics of the daemon and of its managers and drivers, a part at a time."""

from __future__ import annotations

import asyncio
import platform
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import ostler
from ostler import log
from ostler.daemon.control.metrics.counter_history import CounterHistory
from ostler.daemon.control.metrics.family_builder import FamilyBuilder
from ostler.daemon.process.process_limits import descriptor_limit, resident_memory
from ostler.messaging.wire.transport import LinkStats
from ostler.types import BreakerState, DriverState, OperationState, PluginState, ServiceState

if TYPE_CHECKING:
    from ostler.daemon.control.monitoring_sources import MonitoringSources
    from ostler.daemon.daemon_parts import DaemonParts
    from ostler.messaging import Endpoint
    from ostler.metrics.families import MetricFamily
    from ostler.service import Service

_DESCRIPTORS = Path("/proc/self/fd")
_TURN_TIME = 0.001
"""Seconds of the loop that are used at once."""
_SERVICE_STATES = tuple(state for state in ServiceState if state is not ServiceState.GONE)
_DRIVER_STATES = tuple(DriverState)
_FINAL_STATES = tuple(state for state in OperationState if state.is_final)
_WATCHED_REFUSALS = dict.fromkeys(("Busy", "NotPermitted"), 0)
"""Those that alerts are about, shown from 0 on: Prometheus does not see that what begins at 1 has grown."""


class MetricCollector:
    """Reads all metrics. On the loop, which it gives back every millisecond.

    Args:
        parts: The parts of the daemon.
        sources: What else is read.
    """

    def __init__(self, parts: DaemonParts, sources: MonitoringSources) -> None:
        self._parts = parts
        self._sources = sources
        self._history = CounterHistory()
        parts.messaging.dispatcher.registry.on_close = self._keep_endpoint
        parts.runtime.metrics.on_remove = self._keep_service

    def _keep_endpoint(self, endpoint: Endpoint) -> None:
        """Remember what was counted of a topic until it was closed."""
        _add_endpoint(FamilyBuilder(self._history), endpoint)

    def _keep_service(self, topic: str) -> None:
        """Remember what was counted of a service until it ended."""
        for service in self._parts.runtime.group:
            if service.topic == topic:
                _add_service(FamilyBuilder(self._history), service)

    async def collect(self) -> list[MetricFamily]:
        """Return all metrics with their values now: those of the daemon, then those of managers and drivers."""
        found = FamilyBuilder(self._history)
        found.add("ostler_loop_lag_seconds", await _measure_lag())
        await self._add_status(found)
        families: list[MetricFamily] = []
        turn_ends = time.monotonic() + _TURN_TIME
        for family in self._read_all(found):
            if family is not None:
                families.append(family)
            if time.monotonic() >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.monotonic() + _TURN_TIME
        return families

    def _read_all(self, found: FamilyBuilder) -> Iterator[MetricFamily | None]:
        """Yield one metric after the other, and None where this may be interrupted as well."""
        yield from self._read_parts(found)
        yield from found.families()
        yield from self._parts.runtime.metrics.read_in_parts()

    def _read_parts(self, found: FamilyBuilder) -> Iterator[None]:
        """Read one part after the other; yields where it may be interrupted."""
        self._add_process(found)
        yield
        self._add_messages(found)
        yield
        self._add_events(found)
        yield
        self._add_store(found)
        yield
        for (topic, reason), count in self._parts.messaging.dispatcher.stray_refusals.items():
            found.add("ostler_requests_refused_total", count, topic, reason)
        for endpoint in self._parts.messaging.dispatcher.endpoints():
            _add_endpoint(found, endpoint)
            yield
        for service in list(self._parts.runtime.group):
            _add_service(found, service)
            yield
        found.source = None
        self._add_work(found)
        yield

    async def _add_status(self, found: FamilyBuilder) -> None:
        status = await self._sources.status.status()
        found.add("ostler_build_info", 1, ostler.__version__, platform.python_version())
        found.add_state("ostler_daemon_state", status.state, _SERVICE_STATES)
        found.add("ostler_problems", len(status.not_well))
        found.add("ostler_restart_pending_changes", len(status.needs_restart))
        found.add("process_start_time_seconds", status.started)
        found.add("ostler_watchdog_stale_signals", len(self._sources.stale_signals()))
        if (reload := status.last_reload) is not None:
            found.add("ostler_reload_successful", reload.ok)
            found.add("ostler_reload_timestamp_seconds", reload.at)
        for plugin in status.plugins:
            if plugin.state is not PluginState.DISABLED:
                found.add("ostler_plugin_loaded", plugin.state is PluginState.LOADED, plugin.name)
                found.add("ostler_plugin_errors_total", plugin.errors, plugin.name)

    def _add_process(self, found: FamilyBuilder) -> None:
        found.add("process_cpu_seconds_total", time.process_time())
        found.add("process_resident_memory_bytes", resident_memory())
        found.add("process_open_fds", _open_files())
        found.add("process_max_fds", descriptor_limit())
        found.add("process_threads", threading.active_count())
        found.add("ostler_log_lines_lost_total", log.lost_line_count())
        if (monitor := self._sources.loop_monitor()) is not None:
            found.add("ostler_loop_blocked_total", monitor.blocked_count)
            found.add("ostler_loop_blocked_seconds_total", monitor.blocked_seconds)
        audit = self._parts.audit_service.log.stats()
        found.add("ostler_audit_entries_total", audit["kept"])
        found.add("ostler_audit_queued_entries", audit["waiting"])

    def _add_messages(self, found: FamilyBuilder) -> None:
        messaging = self._parts.messaging
        rpc, memory = messaging.server.stats(), messaging.quotas.memory_accounts
        found.add("ostler_clients_vanished_total", rpc["vanished"])
        repeated = rpc["duplicates"]
        found.add("ostler_duplicate_requests_total", repeated.get("answered", 0) + repeated.get("joined", 0))
        found.add("ostler_callers_memory_bytes", memory.held_bytes)
        found.add("ostler_callers_memory_limit_bytes", memory.limit)
        found.add("ostler_callers_memory_refused_total", memory.refused_count)
        for socket, link in messaging.link_stats().items():
            found.add("ostler_connections", link.connections, socket)
            found.add("ostler_connections_refused_total", link.refused, socket)
        found.add_counts("ostler_malformed_messages_total", messaging.invalid_messages())
        if messaging.peer_links is not None:
            for host, peer in messaging.peer_links.peers.peers.items():
                found.add("ostler_peer_up", peer.up, host)

    def _add_events(self, found: FamilyBuilder) -> None:
        messaging = self._parts.messaging
        events = messaging.publisher.stats()
        found.add("ostler_events_published_total", events["published"])
        found.add("ostler_events_lost_total", messaging.link_stats().get("events", LinkStats()).lost)
        if (journal := events.get("journal")) is not None:
            found.add("ostler_journal_events_total", journal["kept"])
            found.add("ostler_journal_queued_events", journal["waiting"])
            found.add("ostler_journal_lost_total", journal["lost"])
        for sink, counts in messaging.notifications.stats().items():
            for result, key in (("sent", "told"), ("failed", "failed"), ("dropped", "dropped")):
                found.add("ostler_notifications_total", counts[key], sink, result)
            found.add("ostler_notifications_queued", counts["waiting"], sink)

    def _add_store(self, found: FamilyBuilder) -> None:
        store = self._parts.store
        counts, job = store.stats(), store.current_job()
        found.add("ostler_store_available", not store.outage.is_active)
        found.add("ostler_store_writes_total", counts["writes"])
        found.add("ostler_store_commits_total", counts["commits"])
        found.add("ostler_store_queued_writes", counts["queued"])
        found.add("ostler_store_busy_seconds", job.seconds if job is not None else 0)
        for file, suffix in (("database", ""), ("log", "-wal")):
            found.add("ostler_store_size_bytes", _file_size(store.path.with_name(store.path.name + suffix)), file)

    def _add_work(self, found: FamilyBuilder) -> None:
        runtime = self._parts.runtime
        reporter = runtime.heartbeat_reporter
        found.add("ostler_heartbeats_total", reporter.written_count)
        found.add("ostler_heartbeats_failed_total", reporter.failed_count)
        found.add("ostler_heartbeat_lateness_seconds", reporter.lateness)
        for task in runtime.periodic_scheduler.statuses():
            labels = task.service, task.task
            prefix = "ostler_periodic_task"
            found.add(f"{prefix}_runs_total", task.runs, *labels)
            found.add(f"{prefix}_errors_total", task.errors, *labels)
            found.add(f"{prefix}_skipped_total", task.skipped, *labels)
            found.add(f"{prefix}_consecutive_failures", task.failures, *labels)
            found.add(f"{prefix}_running", task.running_since > 0, *labels)
            found.add(f"{prefix}_last_run_timestamp_seconds", task.last_run, *labels)
            found.add(f"{prefix}_last_run_duration_seconds", task.last_seconds, *labels)
            found.add(f"{prefix}_lateness_seconds", task.lateness, *labels)
        for topic, (waiting, running) in runtime.operations.counts().items():
            found.add("ostler_operations", waiting, topic, "waiting")
            found.add("ostler_operations", running, topic, "running")
        ended = runtime.operations.views.ended_counts
        # From 0 on: Prometheus does not see that a counter which begins at 1 has grown.
        for topic, state in sorted({*ended, *product(runtime.operations.counts(), _FINAL_STATES)}):
            found.add("ostler_operations_ended_total", ended[topic, state], topic, state)


async def _measure_lag() -> float:
    """Return the seconds until the loop comes to what is handed to it now."""
    loop = asyncio.get_running_loop()
    reached: asyncio.Future[float] = loop.create_future()
    began = loop.time()
    loop.call_soon(lambda: None if reached.done() else reached.set_result(loop.time() - began))
    return await reached


def _add_endpoint(found: FamilyBuilder, endpoint: Endpoint) -> None:
    topic, stats = endpoint.topic, endpoint.stats()
    found.source = endpoint
    found.add("ostler_requests_in_flight", stats["in_flight"], topic)
    found.add("ostler_requests_queued", stats["queued"], topic)
    found.add_counts("ostler_errors_total", stats["errors"], topic)
    found.add_counts("ostler_requests_refused_total", _WATCHED_REFUSALS | endpoint.refusals, topic)
    for method in endpoint.methods.values():
        if (counted := method.stats).requests:
            found.add("ostler_requests_total", counted.requests, topic, method.name)
            found.add("ostler_requests_failed_total", counted.errors, topic, method.name)
            found.add_latency("ostler_request_duration_seconds", counted, topic, method.name)


def _add_service(found: FamilyBuilder, service: Service) -> None:
    topic, state = service.topic, service.state_tracker.state
    manager = service.spec.manager.cls
    found.source = service
    found.add("ostler_service_info", 1, topic, service.options.manager, manager.rpc_version)
    found.add("ostler_service_up", service.is_running, topic)
    found.add_state("ostler_service_state", state, _SERVICE_STATES, topic)
    found.add("ostler_service_problems", len(service.state_tracker.problems), topic)
    found.add("ostler_service_frozen", service.frozen is not None, topic)
    found.add("ostler_service_threads", service.pool.size, topic)
    found.add("ostler_service_threads_busy", len(service.pool.running_jobs(include_replaced=False)), topic)
    for task in service.background_tasks():
        found.add("ostler_background_task_restarts_total", task.restarts, topic, task.name)
    found.source = service.drivers
    for driver in service.drivers.statuses() if service.drivers is not None else ():
        labels = topic, driver.name
        found.add_state("ostler_driver_state", driver.state, _DRIVER_STATES, *labels)
        found.add("ostler_driver_calls_total", driver.calls, *labels)
        found.add("ostler_driver_errors_total", driver.errors, *labels)
        found.add("ostler_driver_call_seconds_total", driver.seconds, *labels)
        found.add("ostler_driver_consecutive_failures", driver.failures, *labels)
        found.add("ostler_driver_breaker_open", driver.breaker is not BreakerState.CLOSED, *labels)
        found.add("ostler_driver_abandoned_instances", driver.abandoned, *labels)


def _open_files() -> int:
    """Return how many files this process has open."""
    try:
        # Since Linux 6.2 the size of the directory is their number; to list it takes milliseconds for thousands.
        return _DESCRIPTORS.stat().st_size or sum(1 for _ in _DESCRIPTORS.iterdir())
    except OSError:
        return 0


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
