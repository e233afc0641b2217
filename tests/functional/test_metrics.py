"""`ostler metrics` with the real daemon: each part of it counts, and what is shown is what happened."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from daemon_process import wait_for

from ostler import Client, OstlerError
from ostler.daemon.control.metrics.catalogue import CATALOGUE
from ostler.metrics.families import MetricFamily

CONFIG = """
[services.lamp]
manager = "metrics_manager:CountingManager"
[services.lamp.drivers.desk]
driver = "metrics_manager:CountingDriver"
"""
WITHOUT_OCCASION = {
    "ostler_reload_successful", "ostler_reload_timestamp_seconds", "ostler_notifications_total",
    "ostler_notifications_queued", "ostler_malformed_messages_total", "ostler_background_task_restarts_total",
    "ostler_journal_events_total", "ostler_journal_queued_events", "ostler_journal_lost_total", "ostler_peer_up",
}  # fmt: skip
"""Metrics that have no series here: there is no reload, no sink, no journal and no other host."""


@pytest.fixture
def daemon(make_daemon):
    return make_daemon(CONFIG).start()


@pytest.fixture
def client(daemon):
    with Client(root=daemon.root) as found:
        yield found


def read(client: Client) -> dict[str, MetricFamily]:
    families = client.on(type=list[MetricFamily]).call("ostler", "metrics")
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


def value(families: dict[str, MetricFamily], name: str, **labels: str) -> float:
    """Return the value of a series; 0 if there is none yet."""
    family = families[name] if name in families else MetricFamily(name=name, kind="counter", help="")
    for series in family.series:
        if labels.items() <= dict(zip(family.labels, series.labels, strict=True)).items():
            return sum(series.counts) if family.kind == "histogram" else series.value
    return 0


def test_each_declared_metric_has_a_value_and_none_is_undeclared(client):
    work(client)
    found = read(client)
    assert set(found) - set(CATALOGUE) == {"lamp_switched_total"}
    assert set(CATALOGUE) - set(found) == WITHOUT_OCCASION
    for name, family in found.items():
        if name in CATALOGUE:
            declared = CATALOGUE[name]
            assert (family.kind, family.labels, family.help) == (declared.kind, list(declared.labels), declared.help)
        assert all(len(series.labels) == len(family.labels) for series in family.series)
        assert len({tuple(series.labels) for series in family.series}) == len(family.series)


def work(client: Client) -> None:
    client.call("lamp", "switch", room="hall")
    for method, arguments in (("switch", {"room": "hall", "fails": True}), ("refuse", {}), ("switch", {"romm": 1})):
        with pytest.raises(OstlerError):
            client.call("lamp", method, **arguments)
    client.submit("lamp", "build").result()


def test_what_is_done_is_counted_where_it_belongs(client):
    before = read(client)
    work(client)
    after = read(client)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    of_switch = {"service": "lamp", "method": "switch"}
    assert more("ostler_requests_total", **of_switch) == 3
    assert more("ostler_requests_failed_total", **of_switch) == 2
    assert more("ostler_request_duration_seconds", **of_switch) == 3
    assert more("ostler_requests_refused_total", service="lamp", reason="InvalidArguments") == 1
    assert more("ostler_errors_total", service="lamp", error="RequestError") == 1
    assert more("ostler_driver_calls_total", service="lamp", driver="desk") >= 2  # its checks are calls as well
    assert more("ostler_driver_errors_total", service="lamp", driver="desk") == 1
    assert more("ostler_driver_call_seconds_total", service="lamp", driver="desk") > 0
    assert more("ostler_operations_ended_total", service="lamp", state="succeeded") == 1
    assert more("ostler_store_commits_total") >= 1
    assert more("lamp_switched_total", service="lamp", room="hall") == 1
    assert more("ostler_events_published_total") >= 1


def test_what_alerts_watch_grows_from_0_and_not_from_nothing(client):
    found = read(client)
    for name, labels in (
        ("ostler_operations_ended_total", ["lamp", "failed"]),
        ("ostler_requests_refused_total", ["lamp", "Busy"]),
        ("ostler_requests_refused_total", ["lamp", "NotPermitted"]),
    ):
        assert [series.value for series in found[name].series if series.labels == labels] == [0], (name, labels)


def test_states_and_the_work_of_its_own_are_measured(daemon, client):
    wait_for(lambda: value(read(client), "ostler_periodic_task_runs_total", service="lamp", task="look") >= 2, "runs")
    found = read(client)
    assert value(found, "ostler_daemon_state", state="up") == 1
    assert value(found, "ostler_service_state", service="lamp", state="up") == 1
    assert value(found, "ostler_service_state", service="lamp", state="failed") == 0
    assert value(found, "ostler_driver_state", service="lamp", driver="desk", state="ready") == 1
    assert 0 < value(found, "ostler_periodic_task_lateness_seconds", task="look") < 5
    assert value(found, "ostler_heartbeats_total") >= 1
    assert value(found, "ostler_connections", socket="rpc") >= 1
    files = len(list(Path(f"/proc/{daemon.running.pid}/fd").iterdir()))
    assert value(found, "process_open_fds") == pytest.approx(files, abs=3)
    assert value(found, "ostler_problems") == len(daemon.status()["not_well"])


def counters(client: Client) -> dict[tuple[str, ...], float]:
    """Return all that only grows: counters, and the numbers of observations of histograms."""
    return {
        (name, *series.labels): sum(series.counts) if family.kind == "histogram" else series.value
        for name, family in read(client).items()
        for series in family.series
        if family.kind != "gauge"
    }


def is_ready(client: Client) -> bool:
    found = read(client)
    return (
        value(found, "ostler_driver_state", driver="desk", state="ready") == 1
        and value(found, "ostler_service_state", service="lamp", state="up") == 1
    )


def test_no_counter_goes_down_when_parts_of_the_daemon_are_replaced(daemon, client):
    work(client)
    highest = counters(client)
    reload = partial(daemon.command, "reload")
    for config, replace in (
        (CONFIG, partial(daemon.command, "service", "restart", "lamp")),
        (CONFIG.replace("[services.lamp.", "workers = 3\n[services.lamp.", 1), reload),
        (CONFIG + "workers = 3\n", reload),
        (CONFIG + 'isolation = "process"\n', reload),
    ):
        work(client)  # nobody has read what this has counted when it is replaced
        daemon.configure(config)
        replace()
        wait_for(lambda: is_ready(client), "the service")
        work(client)
        now = counters(client)
        assert {key: (before, now.get(key, 0)) for key, before in highest.items() if now.get(key, 0) < before} == {}
        highest = now
    assert highest["ostler_requests_total", "lamp", "switch"] == 3 * 9
    assert highest["ostler_driver_errors_total", "lamp", "desk"] == 9
    assert highest["ostler_request_duration_seconds", "lamp", "switch"] == 3 * 9
    assert highest["lamp_switched_total", "lamp", "hall"] == 9


def test_refusals_are_counted_also_where_no_service_takes_them(daemon, client):
    daemon.command("service", "stop", "lamp")
    for topic in ("hostile1", "hostile2", "lamp"):
        with pytest.raises(OstlerError) as caught:
            client.call(topic, "switch", room="hall")
    found = read(client)
    reason = type(caught.value).__name__
    assert value(found, "ostler_requests_refused_total", service="lamp", reason=reason) == 1
    assert value(found, "ostler_requests_refused_total", service="", reason="ServiceNotFound") == 2


def test_the_command_shows_what_is_asked_for(daemon, client):
    client.call("lamp", "switch", room="hall")
    table = daemon.command("metrics", "lamp_", "ostler_store_ava").stdout
    assert "lamp_switched_total" in table
    assert "room=hall" in table
    assert "ostler_requests_total" not in table
    document = json.loads(daemon.command("--json", "metrics", "ostler_store_*").stdout)
    assert {family["name"].rpartition("_store_")[0] for family in document} == {"ostler"}
    text = daemon.command("metrics", "--prometheus", "ostler_request_duration").stdout
    assert text.startswith("# HELP ostler_request_duration_seconds ")
    assert 'le="+Inf"' in text
    assert daemon.json("metrics", "nothing") == []


def test_an_idle_daemon_has_not_imported_what_counts_and_collects(make_daemon):
    daemon = make_daemon('[services.idle]\nmanager = "metrics_manager:IdleManager"\n').start()
    imported = set(daemon.call("idle", "modules"))
    assert not imported & {"ostler.metrics.registry", "ostler.daemon.control.metrics.collector", "prometheus_client"}
    daemon.call("ostler", "metrics")
    assert "ostler.daemon.control.metrics.collector" in daemon.call("idle", "modules")
