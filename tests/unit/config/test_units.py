import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.config import format_seconds, format_size, parse_seconds, parse_size
from ostler.config.units import SIZE_MAX
from ostler.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10GiB", 10 * 2**30),
        ("10 gib", 10 * 2**30),
        ("500MB", 500 * 10**6),
        ("1kB", 1000),
        ("1.5KiB", 1536),
        (" 7B ", 7),
        ("0.5MB", 500_000),
        ("8388607TiB", 8388607 * 2**40),
    ],
)
def test_a_size_is_read_as_people_write_it(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "ten", "-1", "-1GiB", "1.5", "1.0001KiB", "10GiBs", "1e3", "0x10", "10 000", "9EiB", "٣"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidInput) as caught:
        parse_size(text)
    assert f'"{text}"' in caught.value.message
    assert "10GiB" in caught.value.hint


@given(st.integers(0, SIZE_MAX))
def test_bytes_survive_being_written_with_their_unit(size):
    assert parse_size(f"{size}B") == size


@given(st.integers(0, SIZE_MAX))
def test_a_size_is_shown_exactly_or_to_a_tenth(size):
    read = parse_size(format_size(size)) if "." not in format_size(size) else None
    assert read in (size, None)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1024, "1KiB"),
        (1536, "1.5KiB"),
        (10 * 2**30, "10GiB"),
        (5 * 10**8, "500MB"),
        (1023, "1023B"),
        (40_960_000, "39.1MiB"),
        (2**20 - 1, "1.0MiB"),
        (2**63 - 1, "8.0EiB"),
        (-2048, "-2KiB"),
        (10_000 * 2**30, "9.8TiB"),
        (float("inf"), "-"),
        (float("nan"), "-"),
    ],
)
def test_a_size_is_shown_in_a_unit_that_fits(size, text):
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("30s", 30.0),
        ("5min", 300.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1h30min", 5400.0),
        ("1h 30min", 5400.0),
        ("1.5 hours", 5400.0),
        ("200ms", 0.2),
        ("1d", 86400.0),
        ("0", 0.0),
    ],
)
def test_a_time_span_is_read_as_people_write_it(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "ten", "-1", "1h 30", "5 parsecs", "s", "1,5s", "inf", "nan", "1e400", "9" * 400])
def test_what_is_no_time_span_is_refused(text):
    with pytest.raises(InvalidInput) as caught:
        parse_seconds(text)
    assert "5min" in caught.value.hint


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (30, "30s"),
        (300, "5min"),
        (5400, "1h 30min"),
        (0.2, "200ms"),
        (2.5, "2.5s"),
        (-5, "-5s"),
        (86400, "1d"),
        (30 * 86400, "30d"),
        (float("inf"), "-"),
    ],
)
def test_seconds_are_shown_as_people_read_them(seconds, text):
    assert format_seconds(seconds) == text


@given(st.integers(0, 10**9))
def test_whole_seconds_survive_being_shown(seconds):
    assert parse_seconds(format_seconds(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.2, "200ms"), (1, "1s"), (2.54, "2.5s"), (59.6, "1min"), (303, "5min 3s"), (3600, "1h"),
        (9000, "2h 30min"), (86400 * 3 + 4 * 3600 + 59, "3d 4h"), (86400 * 3 + 59, "3d"), (-30, "-30s"),
    ],
)  # fmt: skip
def test_a_time_span_can_be_shown_in_its_two_largest_units(seconds, text):
    assert format_seconds(seconds, units=2) == text
