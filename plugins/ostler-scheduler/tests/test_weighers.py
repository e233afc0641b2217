from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler_scheduler.weighers import AllocatedWeigher, FreeSpaceWeigher, RandomWeigher, Weigher, normalise

GIB = 2**30


def test_a_weigher_has_to_weigh():
    with pytest.raises(TypeError, match="weigh"):
        Weigher()


def test_free_space_likes_the_most_room_after_promises(candidate, request_for):
    much, less = candidate(free=50), candidate(free=60, promised=20 * GIB)
    assert FreeSpaceWeigher().weigh(much, request_for()) > FreeSpaceWeigher().weigh(less, request_for())


def test_free_space_has_no_opinion_of_a_backend_without_room_to_report(candidate, request_for):
    assert FreeSpaceWeigher().weigh(candidate(free_bytes=None), request_for(0)) == 0


def test_allocated_likes_the_least_in_use_with_promises(candidate, request_for):
    idle, busy = candidate(allocated_bytes=2 * GIB), candidate(allocated_bytes=GIB, promised=2 * GIB)
    assert AllocatedWeigher().weigh(idle, request_for()) > AllocatedWeigher().weigh(busy, request_for())
    assert AllocatedWeigher().weigh(candidate(), request_for()) == 0


def test_random_is_the_same_again_with_the_same_seed(candidate, request_for, rng):
    again = type(rng)(7)
    first, second = RandomWeigher(rng), RandomWeigher(again)
    assert [first.weigh(candidate(), request_for()) for _ in range(5)] == [
        second.weigh(candidate(), request_for()) for _ in range(5)
    ]
    assert 0 <= RandomWeigher().weigh(candidate(), request_for()) < 1


def test_weights_run_from_0_to_1():
    assert normalise({"a": -10, "b": 0, "c": 10}) == {"a": 0.0, "b": 0.5, "c": 1.0}
    assert normalise({"a": 3, "b": 3}) == {"a": 0.0, "b": 0.0}
    assert normalise({}) == {}


@given(st.dictionaries(st.integers(), st.floats(allow_nan=False, allow_infinity=False), max_size=6))
def test_weights_are_finite_and_in_order_whatever_the_answers(raw):
    weights = normalise(raw)
    assert all(math.isfinite(weight) and 0 <= weight <= 1 for weight in weights.values())
    for one in raw:
        for other in raw:
            assert raw[one] <= raw[other] or weights[one] >= weights[other]
