"""What each alert in docs/monitoring/alerts.yml sees, and what it does not: the input of `promtool test rules`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ostler.daemon.control.metrics.catalogue import CATALOGUE


class Case(NamedTuple):
    """A series for each metric that an alert looks at, a sample a minute; `well` and `bad` are what differs.

    Attributes:
        well: The values of the samples on a host on which nothing is wrong, by metric.
        bad: Those on a host on which something is.
        labels: The labels of all of them, further than those of the host.
        after: Minutes after which the alert is to be there.
    """

    well: dict[str, str]
    bad: dict[str, str]
    labels: dict[str, str] = {}
    after: int = 40


_LAMP = {"service": "lamp"}
_DESK = {"service": "lamp", "driver": "desk"}
_LOOK = {"service": "lamp", "task": "look"}
_LATE = "ostler_periodic_task_lateness_seconds"
_RAN = "ostler_periodic_task_last_run_timestamp_seconds"


def _only(name: str, well: str, bad: str, **labels: str) -> Case:
    return Case({name: well}, {name: bad}, labels)


CASES: dict[str, list[Case]] = {
    "OstlerDown": [_only("up", "1x60", "1x30 0x30")],
    "OstlerRestarting": [_only("process_start_time_seconds", "0x10 700x50", "0x10 700 700 900 1000 1000x50")],
    "OstlerProblems": [_only("ostler_problems", "0x10 2x10 0x40", "0x10 2x50")],
    "OstlerWatchdogSilent": [_only("ostler_watchdog_stale_signals", "0x60", "0x35 1x30")],
    "OstlerLoopBlocked": [_only("ostler_loop_blocked_seconds_total", "0+0.5x60", "0+2x60")],
    "OstlerServiceFailed": [_only("ostler_service_state", "1x10 0x60", "0x10 1x60", state="failed", **_LAMP)],
    "OstlerServiceDegraded": [_only("ostler_service_state", "1x10 0x60", "0x10 1x60", state="degraded", **_LAMP)],
    "OstlerServiceStarting": [_only("ostler_service_state", "1x10 0x60", "0x10 1x60", state="starting", **_LAMP)],
    "OstlerThreadsBusy": [
        Case(
            {"ostler_service_threads": "8x60", "ostler_service_threads_busy": busy, "ostler_requests_queued": queued},
            {"ostler_service_threads": "8x60", "ostler_service_threads_busy": "8x60", "ostler_requests_queued": "3x60"},
            _LAMP,
        )
        for busy, queued in (("8x60", "0x60"), ("7x60", "3x60"))
    ],
    "OstlerPluginNotLoaded": [_only("ostler_plugin_loaded", "1x60", "0x60", plugin="lamp")],
    "OstlerDriverUnavailable": [
        _only("ostler_driver_state", "1 0x60", "0 1x60", state=state, **_DESK) for state in ("failed", "stuck")
    ],
    "OstlerDriverErrors": [
        Case(
            {"ostler_driver_calls_total": calls, "ostler_driver_errors_total": errors},
            {"ostler_driver_calls_total": "0+10x60", "ostler_driver_errors_total": "0+2x60"},
            _DESK,
        )
        for calls, errors in (("0+10x60", "0+0.9x60"), ("0x35 1x60", "0x35 1x60"))
    ],
    "OstlerDriverBreakerOpen": [_only("ostler_driver_breaker_open", "0x60", "0x35 1x60", **_DESK)],
    "OstlerRequestsFailing": [
        Case(
            {"ostler_requests_total": "0+100x60", "ostler_requests_failed_total": "0+4x60"},
            {"ostler_requests_total": "0+100x60", "ostler_requests_failed_total": "0+9x60"},
            {"service": "lamp", "method": "on"},
        )
    ],
    "OstlerBusy": [
        Case(
            {"ostler_requests_refused_total": "0+3x60"},
            {"ostler_requests_refused_total": "0+60x60"},
            {"service": "lamp", "reason": "Busy"},
        )
    ],
    "OstlerAccessDenied": [
        Case(
            {"ostler_requests_refused_total": "0+6x60"},
            {"ostler_requests_refused_total": "0+120x60"},
            {"service": "lamp", "reason": "NotPermitted"},
        )
    ],
    "OstlerCallersMemory": [
        Case(
            {"ostler_callers_memory_bytes": "80x60", "ostler_callers_memory_limit_bytes": "100x60"},
            {"ostler_callers_memory_bytes": "95x60", "ostler_callers_memory_limit_bytes": "100x60"},
        )
    ],
    "OstlerPeriodicTaskFailing": [_only("ostler_periodic_task_consecutive_failures", "2x60", "3x60", **_LOOK)],
    # Late once, an hour ago; late each time; due, and waiting for a thread since.
    "OstlerPeriodicTaskLate": [
        Case({_LATE: "90x60", _RAN: "0x60"}, {_LATE: late, _RAN: ran}, _LOOK)
        for late, ran in (("90x60", "0+60x60"), ("0x20 0+60x40", "0x60"))
    ],
    "OstlerPeriodicTaskSkipped": [_only("ostler_periodic_task_skipped_total", "0x30 1x30", "0+1x60", **_LOOK)],
    "OstlerOperationsFailing": [
        _only("ostler_operations_ended_total", "5x60", "0x30 1x30", state="failed", **_LAMP),
    ],
    "OstlerStoreUnavailable": [_only("ostler_store_available", "1x60", "1x30 0x30")],
    "OstlerStoreSlow": [
        _only("ostler_store_busy_seconds", "1x60", "9x60"), _only("ostler_store_queued_writes", "9x60", "2000x60"),
    ],
    "OstlerHeartbeatsFailing": [_only("ostler_heartbeats_failed_total", "0x10 1x50", "0+1x60")],
    "OstlerEventsLost": [
        _only("ostler_events_lost_total", "3x60", "0x35 1x30"), _only("ostler_journal_lost_total", "3x60", "0x35 1x30"),
    ],
    "OstlerLogLinesLost": [_only("ostler_log_lines_lost_total", "3x60", "0x35 1x30")],
    "OstlerPeerDown": [_only("ostler_peer_up", "1x60", "1x20 0x40", peer="node2")],
    "OstlerReloadFailed": [_only("ostler_reload_successful", "1x60", "1x20 0x40")],
    "OstlerFilesRunningOut": [
        Case(
            {"process_open_fds": "800x60", "process_max_fds": "1000x60"},
            {"process_open_fds": "950x60", "process_max_fds": "1000x60"},
        )
    ],
}  # fmt: skip
"""The cases of each alert, by its name."""


def rule_tests(alert: str, rules: str) -> dict[str, Any]:
    """Return what `promtool test rules` reads for one alert: on the host `well` nothing, on the host `bad` this one."""
    tests = []
    for case in CASES[alert]:
        names = {*case.well, *case.bad}
        assert names <= {*CATALOGUE, "up"}, names - set(CATALOGUE)
        series = []
        for instance, values in (("well", case.well), ("bad", case.bad)):
            labels = {"instance": instance, "job": "ostler", **case.labels}
            text = ",".join(f'{name}="{value}"' for name, value in labels.items())
            series += [{"series": f"{name}{{{text}}}", "values": found} for name, found in values.items()]
        query = f'count by (instance) (ALERTS{{alertname="{alert}", alertstate="firing"}})'
        tests.append(
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": f"{case.after}m",
                        "exp_samples": [{"labels": '{instance="bad"}', "value": 1}],
                    }
                ],
            }
        )
    return {"rule_files": [rules], "evaluation_interval": "1m", "tests": tests}
