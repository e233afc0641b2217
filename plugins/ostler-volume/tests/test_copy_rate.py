from __future__ import annotations

import pytest

from ostler import Cancelled
from ostler_volume.copy_rate import CopyRate


class Time:
    def __init__(self):
        self.now, self.sleeps = 100.0, []

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds


def rate_of(time, rate):
    return CopyRate(rate, lambda: time.now, time.sleep)


def test_a_copy_takes_the_time_of_its_bytes():
    time = Time()
    rate = rate_of(time, 1000)
    rate.wait(500, lambda: None)
    assert time.now == pytest.approx(100.5)
    rate.wait(2000, lambda: None)
    assert time.now == pytest.approx(102)


def test_a_slow_copy_does_not_wait():
    time = Time()
    rate = rate_of(time, 1000)
    time.now += 5
    rate.wait(4000, lambda: None)
    assert time.sleeps == []


def test_without_a_limit_nothing_is_waited_for():
    time = Time()
    rate_of(time, 0).wait(10**12, lambda: pytest.fail("asked"))
    assert time.sleeps == []


def test_a_copy_that_waits_can_be_cancelled():
    time, asked = Time(), []

    def check():
        asked.append(time.now)
        if len(asked) == 3:
            raise Cancelled("by its caller")

    with pytest.raises(Cancelled):
        rate_of(time, 1).wait(3600, check)
    assert time.now < 101
