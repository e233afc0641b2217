from __future__ import annotations

from ostler_scheduler.api_types import Request
from ostler_scheduler.refusals import RETENTION, Refusals

GIB = 2**30


def note(refusals, now, size=GIB, **refused):
    names = {name.replace("__", "/"): why for name, why in refused.items()}
    refusals.record(Request(topic="volume", size=size, refused=names), now)


def test_the_latest_refusal_of_a_backend_or_its_host_is_told_for_a_while():
    refusals = Refusals()
    note(refusals, 10.0, node1__fast="full")
    note(refusals, 20.0, size=0, node1="it is away")
    assert refusals.describe_latest("volume", "node1", "fast", 22.0) == "refused a request 2s ago: it is away"
    assert refusals.describe_latest("volume", "node1", "other", 22.0) == "refused a request 2s ago: it is away"
    note(refusals, 30.0, node1__fast="stuck")
    assert refusals.describe_latest("volume", "node1", "fast", 42.0) == "refused 1GiB 12s ago: stuck"
    assert (
        refusals.describe_latest("volume", "node2", "fast", 42.0)
        == refusals.describe_latest("lamp", "node1", "fast", 42.0)
        == ""
    )
    assert refusals.describe_latest("volume", "node1", "fast", 30.0 + RETENTION) != ""
    assert refusals.describe_latest("volume", "node1", "fast", 31.0 + RETENTION) == ""


def test_refusals_are_bounded_and_the_oldest_go_first():
    refusals = Refusals()
    for number in range(1001):
        note(refusals, 1.0, **{f"n{number}__a": "full"})
    assert refusals.describe_latest("volume", "n0", "a", 2.0) == ""
    assert refusals.describe_latest("volume", "n1000", "a", 2.0) != ""
