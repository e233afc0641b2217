"""Every metric of the daemon: its name, kind, labels and meaning. `docs/reference.md` is generated from this."""

from __future__ import annotations

from typing import NamedTuple

from ostler.metrics.families import MetricKind


class MetricDeclaration(NamedTuple):
    """A metric of the daemon."""

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    help: str

    @property
    def unit(self) -> str:
        """The base unit that the name ends with."""
        last = self.name.removesuffix("_total").rpartition("_")[2]
        return last if last in ("seconds", "bytes") else ""


_OCTAVES = (7, 9, 11, 13, 15, 17, 19, 21, 23, 25)
LATENCY_BOUNDS = tuple(2**octave / 1e6 for octave in _OCTAVES)
"""Upper bounds of the buckets of requests, in seconds: powers of two of a microsecond, as the daemon counts them."""

_TABLE: list[tuple[MetricKind, str, str, str]] = [
    # The process and the daemon.
    ("gauge", "ostler_build_info", "version python", "Always 1; the versions of Ostler and of Python"),
    ("gauge", "ostler_daemon_state", "state", "1 for the state that the daemon is in, 0 for the others"),
    ("gauge", "ostler_problems", "", "Problems that `ostler status` shows"),
    ("gauge", "ostler_watchdog_stale_signals", "", "Parts without a sign of life, for which the watchdog waits"),
    ("gauge", "ostler_restart_pending_changes", "", "Options that wait for a restart of the daemon"),
    ("gauge", "ostler_reload_successful", "", "Whether the last reload was applied; absent without a reload"),
    ("gauge", "ostler_reload_timestamp_seconds", "", "When the last reload ended; absent without a reload"),
    ("gauge", "ostler_loop_lag_seconds", "", "How late the event loop came to the request for the metrics"),
    ("counter", "ostler_loop_blocked_total", "", "How often a turn of the event loop took longer than 0.1 s"),
    ("counter", "ostler_loop_blocked_seconds_total", "", "How long those turns took"),
    ("counter", "process_cpu_seconds_total", "", "CPU time of the daemon's process"),
    ("gauge", "process_resident_memory_bytes", "", "Resident memory of the daemon's process"),
    ("gauge", "process_open_fds", "", "Open files of the daemon's process"),
    ("gauge", "process_max_fds", "", "The most files that it may open"),
    ("gauge", "process_threads", "", "Threads of the daemon's process that Python knows"),
    ("gauge", "process_start_time_seconds", "", "When the daemon was started, in seconds since 1970"),
    ("counter", "ostler_log_lines_lost_total", "", "Lines of the log that could not be written"),
    ("counter", "ostler_audit_entries_total", "", "Entries of the audit log that were stored"),
    ("gauge", "ostler_audit_queued_entries", "", "Entries of the audit log that wait to be stored"),
    (
        "gauge",
        "ostler_plugin_loaded",
        "plugin",
        "Whether a plugin is loaded; those that an operator disabled are left out",
    ),
    ("counter", "ostler_plugin_errors_total", "plugin", "Hooks of the plugin that failed"),
    # Requests.
    ("counter", "ostler_requests_total", "service method", "Requests that were begun"),
    ("counter", "ostler_requests_failed_total", "service method", "Of these, those that ended with an error"),
    (
        "counter",
        "ostler_requests_refused_total",
        "service reason",
        "Requests that were not begun; service is empty for unknown ones",
    ),
    ("counter", "ostler_errors_total", "service error", "Requests that failed or were refused, by the error"),
    ("histogram", "ostler_request_duration_seconds", "service method", "Time from a request's arrival to its end"),
    ("gauge", "ostler_requests_in_flight", "service", "Requests in progress"),
    ("gauge", "ostler_requests_queued", "service", "Requests that wait for a thread"),
    ("counter", "ostler_duplicate_requests_total", "", "Repeated requests that were answered without being run again"),
    ("counter", "ostler_clients_vanished_total", "", "Clients that left while their requests were in progress"),
    ("counter", "ostler_malformed_messages_total", "reason", "Messages that could not be read"),
    ("gauge", "ostler_connections", "socket", "Open connections"),
    ("counter", "ostler_connections_refused_total", "socket", "Connections that were refused"),
    ("gauge", "ostler_callers_memory_bytes", "", "Memory that the daemon holds for its callers"),
    ("gauge", "ostler_callers_memory_limit_bytes", "", "The most of it, `max_memory`"),
    ("counter", "ostler_callers_memory_refused_total", "", "How often there was no room in it"),
    # Events.
    ("counter", "ostler_events_published_total", "", "Events that were published"),
    ("counter", "ostler_events_lost_total", "", "Events that local subscribers lost because they did not read"),
    ("counter", "ostler_journal_events_total", "", "Events that were stored in the journal"),
    ("gauge", "ostler_journal_queued_events", "", "Events that wait to be stored"),
    ("counter", "ostler_journal_lost_total", "", "Events that are missing in the journal"),
    (
        "counter",
        "ostler_notifications_total",
        "sink result",
        "Notifications for a plugin's sink: sent, failed, dropped",
    ),
    ("gauge", "ostler_notifications_queued", "sink", "Notifications that wait for the sink"),
    # Services.
    ("gauge", "ostler_service_info", "service manager version", "Always 1; manager and RPC version of a service"),
    ("gauge", "ostler_service_up", "service", "Whether a service of this host is up or degraded"),
    ("gauge", "ostler_service_state", "service state", "1 for the state that the service is in, 0 for the others"),
    ("gauge", "ostler_service_problems", "service", "Problems for which a service is degraded"),
    ("gauge", "ostler_service_frozen", "service", "Whether an operator has frozen the service"),
    ("gauge", "ostler_service_threads", "service", "Threads that it may have for `def` methods, `workers`"),
    ("gauge", "ostler_service_threads_busy", "service", "Of these, those that run a method"),
    ("counter", "ostler_background_task_restarts_total", "service task", "Restarts of a background task"),
    ("counter", "ostler_heartbeats_total", "", "Reports of services that were written"),
    ("counter", "ostler_heartbeats_failed_total", "", "Reports of services that could not be written"),
    ("gauge", "ostler_heartbeat_lateness_seconds", "", "How late the last regular report was"),
    # Drivers.
    ("gauge", "ostler_driver_state", "service driver state", "1 for the state that the driver is in, 0 for the others"),
    ("counter", "ostler_driver_calls_total", "service driver", "Calls of the driver that were begun"),
    (
        "counter",
        "ostler_driver_errors_total",
        "service driver",
        "Calls of the driver that failed; refusals do not count",
    ),
    ("counter", "ostler_driver_call_seconds_total", "service driver", "Time of the driver's calls that have ended"),
    ("gauge", "ostler_driver_consecutive_failures", "service driver", "Failed calls since the last that worked"),
    ("gauge", "ostler_driver_breaker_open", "service driver", "Whether the circuit breaker refuses calls"),
    ("gauge", "ostler_driver_abandoned_instances", "service driver", "Instances that were given up and still hang"),
    # Periodic tasks and operations.
    ("counter", "ostler_periodic_task_runs_total", "service task", "Runs that have ended"),
    ("counter", "ostler_periodic_task_errors_total", "service task", "Runs that failed"),
    ("counter", "ostler_periodic_task_skipped_total", "service task", "Runs left out as the one before had not ended"),
    ("gauge", "ostler_periodic_task_consecutive_failures", "service task", "Failed runs since the last that worked"),
    ("gauge", "ostler_periodic_task_running", "service task", "Whether a run is in progress"),
    ("gauge", "ostler_periodic_task_last_run_timestamp_seconds", "service task", "When the last run began"),
    ("gauge", "ostler_periodic_task_last_run_duration_seconds", "service task", "How long the last run took"),
    (
        "gauge",
        "ostler_periodic_task_lateness_seconds",
        "service task",
        "How late the last run began, or waits to begin now",
    ),
    ("gauge", "ostler_operations", "service state", "Operations that wait, and those that run"),
    ("counter", "ostler_operations_ended_total", "service state", "Operations that succeeded, failed, were cancelled"),
    # The database and other hosts.
    ("gauge", "ostler_store_available", "", "Whether the database can be written"),
    ("counter", "ostler_store_writes_total", "", "Writes that were committed"),
    ("counter", "ostler_store_commits_total", "", "Commits; several writes share one"),
    ("gauge", "ostler_store_queued_writes", "", "Writes that wait for the writer"),
    ("gauge", "ostler_store_busy_seconds", "", "For how long the current write has been running, 0 for none"),
    ("gauge", "ostler_store_size_bytes", "file", "Size of the files of the database"),
    ("gauge", "ostler_peer_up", "peer", "Whether the daemon of another host can be reached"),
]
CATALOGUE = {name: MetricDeclaration(name, kind, tuple(labels.split()), text) for kind, name, labels, text in _TABLE}
"""The metrics of the daemon by name."""
