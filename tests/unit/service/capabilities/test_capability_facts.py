from __future__ import annotations

import datetime as dt

import pytest

from ostler.errors import EncodeError
from ostler.service.capabilities.capability_facts import MAX_BACKEND_FACTS_SIZE, to_plain_facts
from ostler.service.capabilities.capability_reporter import split_answer


def test_plain_facts_stay_as_they_are_and_tuples_become_lists():
    facts = {"free_bytes": 5, "ratio": 1.5, "features": ("snapshot",), "pools": {"a": [None, True]}}
    assert to_plain_facts("disk", facts) == {**facts, "features": ["snapshot"]}
    assert to_plain_facts("disk", {}) == {}


class Broken(dict):
    def items(self):
        raise RuntimeError("no items")


ENDLESS: dict[str, object] = {}
ENDLESS["self"] = ENDLESS


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (17, "not a valid table of facts: 17"),
        ({"free": float("inf")}, "not plain JSON"),
        ({"free": float("nan")}, "not plain JSON"),
        ({"free": 2**70}, "cannot be encoded"),
        ({"text": "\ud800"}, "cannot be encoded"),
        ({"pools": {1: "one"}}, "key 1 is not a string"),
        ({"checked": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}, "not plain JSON"),
        ({"raw": b"x"}, "not plain JSON"),
        ({"inner": Broken(a=1)}, "no items"),
        (ENDLESS, "not plain JSON"),
        ({"text": "x" * MAX_BACKEND_FACTS_SIZE}, f"the limit is {MAX_BACKEND_FACTS_SIZE}"),
    ],
)
def test_what_is_odd_is_refused_by_the_name_of_its_backend(facts, why):
    with pytest.raises(EncodeError, match="the capabilities of backend disk") as caught:
        to_plain_facts("disk", facts)
    assert why in caught.value.message


@pytest.mark.parametrize("name", [5, "", "x" * 1000])
def test_the_name_of_a_backend_is_text(name):
    with pytest.raises(EncodeError, match="its name must be a string"):
        to_plain_facts(name, {})


@pytest.mark.failure_mode("Plugins", "capabilities that are odd, very large or cannot be read")
def test_an_answer_of_very_many_backends_is_one_fault() -> None:
    found, faults = split_answer("lamp", "", {str(number): number for number in range(200_000)})
    assert found == {}
    assert faults == {"": "capabilities of service lamp returned 200000 backends, the limit is 1000"}
