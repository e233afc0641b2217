from __future__ import annotations

import pytest

from ostler_scheduler.filters import CapabilitiesFilter, CapacityFilter, EnabledFilter, Filter, HostFilter

GIB = 2**30


def test_a_filter_has_to_say_why_not():
    with pytest.raises(TypeError, match="why_not"):
        Filter()


def test_a_disabled_service_is_dropped(candidate, request_for):
    assert EnabledFilter().why_not(candidate(), request_for()) == ""
    assert EnabledFilter().why_not(candidate(enabled=False), request_for()) == "volume on node1 is disabled"


def test_another_host_than_the_one_asked_for_is_dropped(candidate, request_for):
    assert HostFilter().why_not(candidate(), request_for()) == ""
    assert HostFilter().why_not(candidate(), request_for(host="node1")) == ""
    assert HostFilter().why_not(candidate(), request_for(host="node2")) == "the request needs host node2"


@pytest.mark.parametrize(
    ("exclude", "reason"),
    [
        (("node1",), "node1 is excluded by the request"),
        (("node1/fast",), "node1/fast is excluded by the request"),
        (("node1/slow", "node2", "fast"), ""),
    ],
)
def test_what_the_request_excludes_is_dropped(candidate, request_for, exclude, reason):
    assert HostFilter().why_not(candidate(), request_for(exclude=exclude)) == reason


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ((), ""),
        (("snapshot",), ""),
        (("reflink",), ""),
        (("kind=ssd", "reflink=true", "volumes=3"), ""),
        (("kind=tape",), "does not offer kind=tape"),
        (("attach", "snapshot", "kind"), "does not offer attach, kind"),
    ],
)
def test_a_feature_is_listed_or_a_true_fact_or_a_fact_of_that_value(candidate, request_for, features, reason):
    backend = candidate(reflink=True, kind="ssd", volumes=3)
    assert CapabilitiesFilter().why_not(backend, request_for(features=features)) == reason


def test_a_backend_that_lists_no_features_offers_none(candidate, request_for):
    for features in (None, "snapshot", 3):
        backend = candidate(features=features)
        assert CapabilitiesFilter().why_not(backend, request_for(features=("snapshot",)))


def test_room_is_judged_to_the_byte(candidate, request_for):
    assert CapacityFilter().why_not(candidate(free=10), request_for(10)) == ""
    one_less = candidate(free_bytes=10 * GIB - 1)
    assert CapacityFilter().why_not(one_less, request_for(10)) == "10GiB requested, 10.0GiB free"


def test_what_was_promised_counts_as_gone(candidate, request_for):
    reason = CapacityFilter().why_not(candidate(free=20, promised=15 * GIB), request_for(10))
    assert reason == "10GiB requested, 5GiB free (15GiB promised since its report)"


def test_the_reserve_is_not_given_away(candidate, request_for):
    assert (
        CapacityFilter()
        .why_not(candidate(free=12, reserved_bytes=3 * GIB), request_for(10))
        .startswith("10GiB requested")
    )


def test_a_backend_that_promises_more_than_it_has_is_judged_by_its_limit(candidate, request_for):
    sparse = candidate(free=1, promise_limit_bytes=100 * GIB, provisioned_bytes=85 * GIB)
    assert CapacityFilter().why_not(sparse, request_for(15)) == ""
    assert CapacityFilter().why_not(sparse, request_for(16)) == "16GiB requested, 15GiB free"


def test_a_request_without_a_size_needs_no_room(candidate, request_for):
    assert CapacityFilter().why_not(candidate(free_bytes=None), request_for(0)) == ""
    assert CapacityFilter().why_not(candidate(free_bytes=None), request_for(1)) == "does not report free_bytes"


def test_room_that_is_no_number_is_an_error_that_names_the_fact(candidate, request_for):
    with pytest.raises(TypeError, match="free_bytes is not a number: 'plenty'"):
        CapacityFilter().why_not(candidate(free_bytes="plenty"), request_for(1))
