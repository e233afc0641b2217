import logging

import pytest

from ostler.clock import FakeClock
from ostler.log import RateLimited
from ostler.log.limits import KEYS_LIMIT


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def limited(clock):
    return RateLimited(logging.getLogger("test.limits"), clock)


def test_a_kind_of_line_comes_once_a_minute_and_says_how_many_were_left_out(limited, clock, caplog):
    for number in range(10_000):
        limited.warning("garbage from %s", number)
    clock.advance(59)
    assert not limited.warning("garbage from %s", "x")
    clock.advance(1)
    assert limited.warning("garbage from %s", "y")
    clock.advance(60)
    limited.warning("garbage from %s", "z")
    assert [record.message for record in caplog.records] == [
        "garbage from 0",
        "garbage from y (and 10000 more like it since the last line)",
        "garbage from z",
    ]


def test_kinds_do_not_hinder_each_other(limited, caplog):
    limited.warning("a")
    limited.error("b")
    limited.warning("c %s", 1, key="one")
    limited.warning("c %s", 2, key="two")
    assert [record.message for record in caplog.records] == ["a", "b", "c 1", "c 2"]
    assert caplog.records[1].levelname == "ERROR"


def test_the_kinds_that_are_remembered_are_bounded(limited):
    for number in range(KEYS_LIMIT * 3):
        limited.warning("x", key=str(number))
    assert len(limited._kinds) == KEYS_LIMIT
