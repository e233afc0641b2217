import logging

from ostler.clock import FakeClock
from ostler.log.rate_limit import MAX_KEYS, RateLimitedLog

# private: _kinds: that the memory is bounded shows in nothing else


def test_one_line_a_minute_of_a_kind_with_the_number_of_those_left_out(caplog):
    clock = FakeClock()
    quiet = RateLimitedLog(logging.getLogger("test"), clock)
    for _ in range(5):
        quiet.warning("a", "bad a")
        quiet.warning("b", "bad b")
    clock.advance(61)
    quiet.warning("a", "bad a")
    assert [record.message for record in caplog.records] == [
        "bad a", "bad b", "bad a (and 4 more of this kind since the last line)",
    ]  # fmt: skip


def test_a_line_is_left_out_until_the_interval_is_over(caplog):
    clock = FakeClock()
    quiet = RateLimitedLog(logging.getLogger("test"), clock)
    assert quiet.warning("a", "bad a")
    clock.advance(59)
    assert not quiet.warning("a", "bad a")
    clock.advance(1)
    assert quiet.warning("a", "bad a")
    clock.advance(60)
    assert quiet.warning("a", "bad a")
    assert [record.message for record in caplog.records] == [
        "bad a", "bad a (and 1 more of this kind since the last line)", "bad a",
    ]  # fmt: skip


def test_the_kinds_that_are_remembered_are_bounded():
    quiet = RateLimitedLog(logging.getLogger("test"), FakeClock())
    for number in range(MAX_KEYS * 3):
        quiet.warning(str(number), "x")
    assert len(quiet._kinds) == MAX_KEYS
