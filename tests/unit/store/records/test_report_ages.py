import math

from ostler.clock import FakeClock, boot_stamp
from ostler.store.records.report_ages import ReportAges


def test_this_boot_goes_by_the_boot_clock():
    clock = FakeClock()
    made = boot_stamp(clock)
    clock.advance(7)
    clock.set_wall(0)
    assert ReportAges(clock, "a").age("x", "elsewhere", made, 1) == 7


def test_an_earlier_boot_of_this_host_is_infinitely_old():
    clock = FakeClock()
    made = boot_stamp(clock)
    clock.reboot("next")
    assert ReportAges(clock, "a").age("x", "a", made, 1) == math.inf


def test_another_host_is_as_old_as_its_number_stands_still():
    clock, other = FakeClock(), FakeClock(boot_id="other")
    judge = ReportAges(clock, "a")
    assert judge.age("x", "b", boot_stamp(other), 1) == 0
    clock.advance(30)
    assert judge.age("x", "b", boot_stamp(other), 1) == 30
    assert judge.age("x", "b", boot_stamp(other), 2) == 0
    assert judge.age("y", "b", boot_stamp(other), 2) == 30


def test_a_clock_of_another_host_that_is_ahead_counts_as_now():
    clock, other = FakeClock(), FakeClock(boot_id="other", wall=2_000_000_000.0)
    assert ReportAges(clock, "a").age("x", "b", boot_stamp(other), 1) == 0
