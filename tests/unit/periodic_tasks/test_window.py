"""Windows of a day, in zones with summer time."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from ostler.periodic_tasks.window import DailyWindow

BERLIN = "Europe/Berlin"


def window(text: str, zone: str = BERLIN) -> DailyWindow:
    def offset(at: float) -> int:
        shift = datetime.fromtimestamp(at, ZoneInfo(zone)).utcoffset()
        assert shift is not None
        return int(shift.total_seconds())

    return DailyWindow(text, offset)


def at(*parts: int, zone: str = BERLIN, fold: int = 0) -> float:
    return datetime(*parts, fold=fold, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("01:00-05:00", [(1, 0), (4, 59)], [(0, 59), (5, 0), (12, 0)]),
        ("22:00 - 6:00", [(22, 0), (23, 59), (0, 0), (5, 59)], [(21, 59), (6, 0)]),
        ("18:30-24:00", [(18, 30), (23, 59)], [(0, 0), (18, 29)]),
    ],
)
def test_a_window_contains_its_beginning_and_not_its_end(text, inside, outside):
    found = window(text)
    assert [found.contains(at(2026, 6, 1, *moment)) for moment in inside] == [True] * len(inside)
    assert [found.contains(at(2026, 6, 1, *moment)) for moment in outside] == [False] * len(outside)


def test_the_next_opening_is_now_today_or_tomorrow():
    nightly = window("01:00-05:00")
    assert nightly.next_open(at(2026, 6, 1, 3, 0)) == at(2026, 6, 1, 3, 0)
    assert nightly.next_open(at(2026, 6, 1, 0, 30)) == at(2026, 6, 1, 1, 0)
    assert nightly.next_open(at(2026, 6, 1, 5, 0)) == at(2026, 6, 2, 1, 0)
    assert window("22:00-06:00").next_open(at(2026, 6, 1, 12, 0)) == at(2026, 6, 1, 22, 0)


def test_a_window_in_the_hour_that_is_skipped_opens_right_after_it():
    after_gap = at(2026, 3, 29, 3, 0)
    assert window("02:30-04:00").next_open(at(2026, 3, 29, 1, 0)) == after_gap
    assert window("02:00-02:45").next_open(at(2026, 3, 29, 1, 0)) == at(2026, 3, 30, 2, 0)
    assert window("05:00-06:00").next_open(at(2026, 3, 29, 1, 0)) == at(2026, 3, 29, 5, 0)


def test_a_window_in_the_hour_that_is_repeated_opens_twice():
    early = window("02:15-02:45")
    first, second = at(2026, 10, 25, 2, 15), at(2026, 10, 25, 2, 15, fold=1)
    assert early.next_open(at(2026, 10, 25, 1, 0)) == first
    assert early.next_open(at(2026, 10, 25, 2, 45)) == second
    assert early.contains(second + 60)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("night", "two times of day"),
        ("01:00", "two times of day"),
        ("25:00-26:00", "25:00 is not a time of day"),
        ("24:30-01:00", "24:30 is not a time of day"),
        ("01:60-02:00", "01:60 is not a time of day"),
        ("01:00-01:00", "ends when it begins"),
        ("00:00-24:00", "ends when it begins"),
    ],
)
def test_a_window_that_is_none_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        DailyWindow(text)
