from __future__ import annotations

import pytest

from ostler.cli.commands.metrics import format_number
from ostler.cli.formatting import display_width, format_age, human_time, printable, text_of
from ostler.types import ServiceState


def test_ages_look_back_and_ahead_and_know_never() -> None:
    assert format_age(1000, 1303) == "5min 3s"
    assert format_age(1030, 1000) == "in 30s"
    assert format_age(0, 1000) == "-"


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
    assert display_width("abc") == 3
    assert display_width("火山") == 4
    assert display_width("e\u0301") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"), (0.05, "0.05"), (0.000108291998913046, "0.0001083"), (7.98400521199801, "7.984"),
        (1764434000.1234, "1764434000.1234"), (float("inf"), "inf"), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_values_of_metrics_have_the_digits_that_people_read(value, text):
    assert format_number(value) == text
