from __future__ import annotations

import datetime as dt

import pytest

from ostler.errors import EncodeFailed
from ostler.service.capability_facts import FACTS_LIMIT, plain_facts
from ostler.service.capability_report import _sorted_out


def test_plain_facts_stay_as_they_are_and_tuples_become_lists():
    facts = {"free_bytes": 5, "ratio": 1.5, "features": ("snapshot",), "pools": {"a": [None, True]}}
    assert plain_facts("disk", facts) == {**facts, "features": ["snapshot"]}
    assert plain_facts("disk", {}) == {}


class Broken(dict):
    def items(self):
        raise RuntimeError("no items")


ENDLESS: dict[str, object] = {}
ENDLESS["self"] = ENDLESS


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (17, "no table of facts: 17"),
        ({"free": float("inf")}, "not plain JSON"),
        ({"free": float("nan")}, "not plain JSON"),
        ({"free": 2**70}, "cannot go over the wire"),
        ({"text": "\ud800"}, "cannot go over the wire"),
        ({"pools": {1: "one"}}, "a key is 1 and not text"),
        ({"checked": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}, "not plain JSON"),
        ({"raw": b"x"}, "not plain JSON"),
        ({"inner": Broken(a=1)}, "no items"),
        (ENDLESS, "not plain JSON"),
        ({"text": "x" * FACTS_LIMIT}, f"the limit is {FACTS_LIMIT}"),
    ],
)
def test_what_is_odd_is_refused_by_the_name_of_its_backend(facts, why):
    with pytest.raises(EncodeFailed, match="the capabilities of backend disk") as caught:
        plain_facts("disk", facts)
    assert why in caught.value.message


@pytest.mark.parametrize("name", [5, "", "x" * 1000])
def test_the_name_of_a_backend_is_text(name):
    with pytest.raises(EncodeFailed, match="its name has to be text"):
        plain_facts(name, {})


def test_trap_an_answer_of_very_many_backends_is_one_fault() -> None:
    found, faults = _sorted_out("lamp", "", {str(number): number for number in range(200_000)})
    assert found == {}
    assert faults == {"": "capabilities of service lamp returned 200000 backends, the limit is 1000"}
