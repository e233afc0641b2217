from __future__ import annotations

import pytest

from ostler.cli.words import age_at, human_duration, human_size, human_time, printable, printed_width, text_of
from ostler.types import ServiceState


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1.5KiB"), (10 * 2**30, "10GiB"), (40_960_000, "39.1MiB"),
        (2**20 - 1, "1MiB"), (2**63 - 1, "8EiB"), (-2048, "-2KiB"),
    ],
)  # fmt: skip
def test_sizes_read_as_people_write_them(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.2, "200ms"), (1, "1s"), (2.54, "2.5s"), (59.6, "1min"), (303, "5min 3s"), (3600, "1h"),
        (9000, "2h 30min"), (86400 * 3 + 4 * 3600 + 59, "3d 4h"), (-30, "-30s"),
    ],
)  # fmt: skip
def test_durations_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_ages_look_back_and_ahead_and_know_never() -> None:
    assert age_at(1000, 1303) == "5min 3s"
    assert age_at(1030, 1000) == "in 30s"
    assert age_at(0, 1000) == "-"


def test_a_time_is_shown_in_the_local_zone() -> None:
    assert human_time(1_800_000_000) == "2027-01-15 08:00:00"
    assert human_time(0) == "-"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), ("", "-"), ([], "-"), (True, "yes"), (False, "no"), (0, "0"), (1.5, "1.5"), (1e9, "1000000000"),
        (ServiceState.UP, "up"), (["a", "b"], "a, b"), ({"a": 1, "b": [2, 3]}, "a=1, b=2, 3"),
    ],
)  # fmt: skip
def test_any_value_is_one_line(value: object, text: str) -> None:
    assert text_of(value) == text


def test_control_characters_cannot_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\nc\td\x07\x9b") == "a\\x1b[31mb\\nc d\\x07\\x9b"


def test_wide_and_combining_characters_are_measured_as_they_print() -> None:
    assert printed_width("abc") == 3
    assert printed_width("火山") == 4
    assert printed_width("e\u0301") == 1
