import logging

from ostler.clock import FakeClock
from ostler.messaging.quiet import QuietLog


def test_one_line_a_minute_of_a_kind_with_the_number_of_those_left_out(caplog):
    clock = FakeClock()
    quiet = QuietLog(logging.getLogger("test"), clock)
    for _ in range(5):
        quiet.warning("a", "bad a")
        quiet.warning("b", "bad b")
    clock.advance(61)
    quiet.warning("a", "bad a")
    assert [record.message for record in caplog.records] == [
        "bad a", "bad b", "bad a (and 4 more like it since the last line)",
    ]  # fmt: skip
