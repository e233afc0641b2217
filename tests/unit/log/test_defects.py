import logging

from ostler.errors import NotFound
from ostler.log.defects import UnexpectedErrors

_log = logging.getLogger("ostler.test")


def test_an_unexpected_error_has_its_traceback_once_until_the_place_works_again(caplog):
    caplog.set_level(logging.INFO)
    defects = UnexpectedErrors(_log, topic="lamp")
    for _ in range(3):
        defects.log_error("initialise of driver desk of lamp", KeyError("missing"))
    assert [record.message for record in caplog.records] == [
        "initialise of driver desk of lamp raised KeyError: 'missing'"
    ]
    assert caplog.records[0].exc_info
    assert caplog.records[0].topic == "lamp"
    defects.clear("initialise of driver desk of lamp")
    assert "it had raised 3 times" in caplog.records[-1].message
    defects.log_error("initialise of driver desk of lamp", KeyError("missing"))
    assert len(caplog.records) == 3


def test_an_expected_error_has_no_traceback(caplog):
    UnexpectedErrors(_log).log_error("is_working of lamp", NotFound("no lamp"))
    assert not caplog.records


def test_errors_that_differ_in_a_number_are_one(caplog):
    defects = UnexpectedErrors(_log)
    for number in range(50):
        defects.log_error("is_working of lamp", OSError(f"try {number} of <lamp at 0x7f{number:04x}>"))
    assert len(caplog.records) == 1


def test_a_place_that_raises_something_else_each_time_is_quiet_after_a_few(caplog):
    defects = UnexpectedErrors(_log)
    for number in range(50):
        defects.log_error("is_working of lamp", OSError("x" * number))
    assert len(caplog.records) == 8
    caplog.set_level(logging.INFO)
    defects.clear("is_working of lamp")
    assert "it had raised 50 times" in caplog.records[-1].message
