"""The application `metrics`: formats, who gets what, and what it refuses."""

from __future__ import annotations

import asyncio
import gzip
import logging

import pytest
from asgi_client import ANONYMOUS, AsgiClient, FakeGateway
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from ostler import Busy, ConnectionLost, DeadlineExceeded, NotPermitted
from ostler_http.metrics.application import MetricsApplication, choose_format

FAMILIES = [
    {
        "name": "lamp_switch_seconds", "kind": "histogram", "help": "Time to switch", "unit": "seconds",
        "labels": ["service"], "bounds": [0.1, 1.0],
        "series": [
            {
                "labels": ["lamp"], "value": 0.5, "counts": [0, 1, 0],
                "exemplars": {1: {"trace_id": "ab" * 16, "value": 0.5, "at": 1000.0}},
            }
        ],
    },
    {
        "name": "lamp_switched_total", "kind": "counter", "help": "Lamps", "unit": "", "labels": ["service", "room"],
        "bounds": [],
        "series": [{"labels": ["lamp", f"room {n}"], "value": n, "counts": [], "exemplars": {}} for n in range(600)],
    },
]  # fmt: skip
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;"
    "q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
"""What Prometheus 3 accepts."""


@pytest.fixture
def gateway():
    return FakeGateway(metrics=FAMILIES)


async def test_plain_text_is_what_a_client_gets_that_asks_for_nothing(gateway):
    response = await AsgiClient(MetricsApplication, gateway).request()
    assert response.status == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    families = {family.name: family for family in text_parser.text_string_to_metric_families(response.text)}
    assert families["lamp_switched"].samples[7].value == 7
    assert gateway.calls == [("token:prom", "metrics")]


async def test_prometheus_gets_openmetrics_with_the_traces_of_slow_requests(gateway):
    response = await AsgiClient(MetricsApplication, gateway).request(accept=PROMETHEUS)
    assert response.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    seconds, _switched = openmetrics_parser.text_string_to_metric_families(response.text)
    assert seconds.samples[1].exemplar.labels == {"trace_id": "ab" * 16}


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/html",
        ",;,",
        "application/openmetrics",
        "x" * 10_000,
        "text/plain;version=garbage",
        "ünïcode",
        "application/openmetrics-text; q=0",
    ],
)
def test_whatever_else_a_client_accepts_it_gets_plain_text(accept):
    assert choose_format(accept).startswith("text/plain")


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=garbage", "a,APPLICATION/OpenMetrics-Text;q=0.1"]
)
def test_openmetrics_is_sent_in_the_one_version_that_there_is(accept):
    assert choose_format(accept) == "application/openmetrics-text; version=1.0.0; charset=utf-8"


async def test_large_responses_are_compressed_for_those_who_can_read_that(gateway):
    client = AsgiClient(MetricsApplication, gateway)
    plain, packed = await client.request(), await client.request(accept_encoding="deflate, gzip;q=1.0")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 4


async def test_only_an_open_mount_serves_callers_without_a_role_and_asks_as_the_daemon(gateway):
    assert AsgiClient(MetricsApplication, gateway).application.needs_role
    client = AsgiClient(MetricsApplication, gateway, open=True)
    assert not client.application.needs_role
    assert (await client.request(caller=ANONYMOUS)).status == 200
    await client.request()
    assert gateway.calls == [("uid 0", "metrics"), ("token:prom", "metrics")]


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (NotPermitted("metrics needs the role operator"), 403, "needs the role operator"),
        (DeadlineExceeded("no answer from ostler.metrics"), 503, "its event loop may hang"),
        (ConnectionLost("it may or may not have been executed"), 503, "its event loop may hang"),
        (Busy("a queue is full"), 503, "a queue is full"),
    ],
)
async def test_what_the_daemon_refuses_is_a_problem_and_not_an_empty_page(error, status, text):
    response = await AsgiClient(MetricsApplication, FakeGateway(metrics=error)).request()
    assert (response.status, response.headers["content-type"]) == (status, "application/problem+json")
    assert text in response.text
    assert ("retry-after" in response.headers) == (status == 503)


@pytest.mark.parametrize(
    ("waits", "timeout"),
    [("5", 4.5), ("60", 10), ("", 10), ("soon", 10), ("-1", 10), ("nan", 10), ("inf", 10), ("0", 10)],
)
async def test_the_daemon_has_less_time_than_prometheus_waits(gateway, waits, timeout):
    await AsgiClient(MetricsApplication, gateway).request(x_prometheus_scrape_timeout_seconds=waits)
    assert gateway.timeouts == [timeout]


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/other", "GET", 404), ("", "POST", 405), ("", "DELETE", 405), ("/", "HEAD", 200)]
)
async def test_there_is_one_page_which_is_read(gateway, path, method, status):
    assert (await AsgiClient(MetricsApplication, gateway).request(path, method=method)).status == status


async def test_requests_that_hang_are_few_and_hold_up_nobody(gateway):
    gateway.released.clear()
    client = AsgiClient(MetricsApplication, gateway)
    hanging = [asyncio.ensure_future(client.request()) for _ in range(4)]
    await asyncio.sleep(0)
    refused = await client.request()
    assert (refused.status, refused.headers["retry-after"]) == (503, "5")
    hanging.pop().cancel()
    await asyncio.sleep(0)
    gateway.released.set()
    assert [(await each).status for each in hanging] == [200, 200, 200]
    assert (await client.request()).status == 200


async def test_clients_that_do_not_read_take_no_place_from_others(gateway):
    client, sent = AsgiClient(MetricsApplication, gateway), []
    client.may_send.clear()
    for _ in range(6):  # more than are read at once
        sent.append(asyncio.ensure_future(client.request()))
        for _ in range(5):
            await asyncio.sleep(0)
    assert len(gateway.calls) == 6
    assert not any(each.done() for each in sent)
    client.may_send.set()
    assert [(await each).status for each in sent] == [200] * 6


async def test_metrics_beyond_the_most_series_are_left_out_whole_and_named_once(gateway, caplog):
    many = {**FAMILIES[1], "series": FAMILIES[1]["series"] * 2}
    gateway.answers["metrics"] = [many, FAMILIES[0]]
    client = AsgiClient(MetricsApplication, gateway, max_series=1000)
    with caplog.at_level(logging.WARNING):
        texts = [(await client.request()).text for _ in range(3)]
    assert all("lamp_switch_seconds" in text and "lamp_switched_total" not in text for text in texts)
    assert [record.getMessage() for record in caplog.records] == [
        "1 metrics are left out, as there are more than 1000 series (`max_series`): lamp_switched_total"
    ]
