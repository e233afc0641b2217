"""How often one account may do something."""

import pytest

from ostler.messaging.wire.peer_quotas import RateLimiter


@pytest.fixture
def time():
    return [100.0]


@pytest.fixture
def limits(time):
    return RateLimiter(10.0, 5.0, monotonic=lambda: time[0])


def test_a_burst_is_allowed_and_then_so_many_a_second(limits, time):
    assert [limits.allows("a") for _ in range(7)] == [True] * 5 + [False] * 2
    assert limits.allows("b")
    time[0] += 0.2
    assert [limits.allows("a") for _ in range(3)] == [True, True, False]
    time[0] += 100
    assert [limits.allows("a") for _ in range(6)] == [True] * 5 + [False]


def test_accounts_that_have_not_come_for_long_are_forgotten(limits, time):
    for number in range(4096):
        limits.allows(number)
    time[0] += 1
    limits.allows("one more")
    assert len(limits) == 1


def test_the_number_of_accounts_is_bounded_even_when_all_come_at_once(limits):
    for number in range(10_000):
        limits.allows(number)
    assert len(limits) <= 4096
