"""Rates from counters, and how values are written."""

from __future__ import annotations

import asyncio

import jinja2
import pytest
from markupsafe import Markup

from ostler_http.ui import filters
from ostler_http.ui.traffic_rates import TrafficSampler, percentile, traffic_of


def counters(at, requests, errors=0, buckets=None):
    method = {"method": "get", "requests": requests, "errors": errors, "refused": 0, "in_flight": 0,
              "buckets": buckets or {40: requests}}  # fmt: skip
    topic = {"topic": "volume", "requests": requests, "queued": 0, "errors": {}, "methods": [method]}
    return {"at": at, "published": requests * 2, "topics": [topic], "in_flight": 0}


def test_rates_are_of_the_last_seconds():
    traffic = traffic_of([counters(0, 0), counters(90, 900), counters(95, 1400), counters(100, 1900, 50)])
    (method,) = traffic.topics[0]["methods"]
    assert (traffic.seconds, method["rate"], method["error_rate"]) == (10, 100, 5)
    assert (traffic.rate, traffic.events) == (100, 200)
    assert traffic.history == [10, 100, 100]


def test_one_sample_has_no_rates():
    traffic = traffic_of([counters(5, 10)])
    assert traffic.rate is None
    assert traffic.topics[0]["methods"][0]["rate"] is None
    assert traffic.topics[0]["methods"][0]["p50"] is not None


def test_a_service_that_was_restarted_counts_from_nothing():
    traffic = traffic_of([counters(0, 1000), counters(10, 20)])
    assert traffic.topics[0]["methods"][0]["rate"] == 2
    assert traffic.history == [0]


def test_a_percentile_is_the_bucket_within_which_the_share_has_ended():
    assert percentile({}, 0.5) is None
    assert percentile({3: 0}, 0.5) is None
    assert percentile({39: 99, 79: 1}, 0.5) == pytest.approx(2**10 * 1e-6)
    assert percentile({39: 1, 79: 99}, 0.99) == pytest.approx(2**20 * 1e-6)


def test_counters_are_read_once_a_second_for_all_who_look(gateway):
    sampler = TrafficSampler()
    client = gateway.client(gateway.anonymous)

    async def run():
        answers = iter([counters(0, 0), counters(2, 20), counters(200, 21)])
        for now in (0.0, 0.5, 2.0, 200.0):
            if now != 0.5:
                gateway.answers["traffic"] = next(answers)
            yield_rate.append((await sampler.read(client, now)).rate)

    yield_rate = []
    asyncio.run(run())
    assert yield_rate == [None, None, 10, None], "old samples say nothing of now"
    assert len(gateway.calls) == 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\nb\tc", "a\nb\tc"), ("\x00\x1b[31m", "\\u0000\\u001b[31m"), ("\u202eevil", "\\u202eevil"),
        ("\ufeff\u200b", "\\ufeff\\u200b"), ("\udce4", "\\udce4"), ("Größe €", "Größe €"), (None, ""), (7, 7),
    ],
)  # fmt: skip
def test_invisible_characters_are_seen(value, expected):
    assert filters.visible(value) == expected


@pytest.mark.parametrize(
    "name", ["moment", "clock_time", "span", "seconds", "size", "rate", "count", "plain", "cut", "tone"]
)
@pytest.mark.parametrize("value", [None, "", "text", -1, 0, 1e300, float("nan"), [], {}, jinja2.ChainableUndefined()])
def test_no_value_makes_a_filter_fail(name, value):
    assert isinstance(getattr(filters, name)(value), str)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "yes"), (["a", ["b", None]], "a, b, \u2013"), ({"a": 1, "b": "x"}, "a: 1, b: x"),
        ({"a": {"b": 1}}, '{"a": {"b": 1}}'), (0, "0"), (1.5, "1.5"), ("", "\u2013"),
    ],
)  # fmt: skip
def test_values_are_written_as_people_read_them(value, expected):
    assert filters.plain(value) == expected


def test_commands_in_backticks_are_code_and_the_rest_is_escaped():
    assert filters.paragraph("run `ostler <x>` & see") == Markup("run <code>ostler &lt;x&gt;</code> &amp; see")
    assert filters.paragraph("an odd ` and <b>") == Markup("an odd ` and &lt;b&gt;")


def test_states_are_told_by_more_than_colour():
    assert 'class="badge bad"' in filters.badge("stuck")
    assert "&lt;b&gt;" in filters.badge("<b>", "<i>")
    assert "<i>" not in filters.badge("<b>", "<i>")
