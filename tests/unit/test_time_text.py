"""Moments and time spans as people and programs read them."""

import math

import pytest

from ostler.time_text import format_duration, remove_duration

SECONDS = [0, 0.4, 0.6, 1, 9.9, 59.6, 60, 61.4, 119, 3599.7, 3600, 3661, 86399, 90000, 1e6, 1e9]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (12.3, "12s"), (59.6, "1min"), (65, "1min 5s"), (7384, "2h 3min"), (90000, "1d 1h"), (1e300, "-")],
)
def test_how_long_something_has_lasted_is_told_in_whole_seconds_and_two_units(seconds, text):
    assert format_duration(seconds) == text
    assert format_duration(math.nan) == "-"


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_line_without_its_duration_is_the_same_each_time(seconds):
    text = format_duration(seconds)
    assert remove_duration(f"lamp.work on lamp-1 for {text}; lamp") == "lamp.work on lamp-1; lamp"
    assert remove_duration(f"cleanup (for {text})") == "cleanup"
    assert remove_duration(f"importing plugin lamps for {text}") == "importing plugin lamps"


@pytest.mark.parametrize("text", ["waiting for 3 services", "work for 10sets", "for 5s", "kept for 2h5", "for lamp"])
def test_other_words_stay(text):
    assert remove_duration(text) == text
