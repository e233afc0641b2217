"""Due times of cron expressions in zones with summer time, against a walk over every minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ostler.periodic_tasks.cron import CronSchedule

ZONES = [
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo",
    "Africa/Casablanca", "Asia/Kolkata", "UTC", "America/St_Johns", "Antarctica/Troll", "Europe/Dublin",
]  # fmt: skip
TEXTS = [
    "30 2 * * *", "0 2 * * *", "0 0 * * *", "*/10 1-3 * * *", "15 */2 * * *", "45 1 * * SUN", "0 12 30 12 *",
    "* * * * *", "*/15 * * * *", "30 * * * *", "0 3 29 2 *", "30 23 L * *", "5,35 0,1,2,3 * * *",
]  # fmt: skip


def schedule(text: str, zone: str) -> CronSchedule:
    def offset(at: float) -> int:
        shift = datetime.fromtimestamp(at, ZoneInfo(zone)).utcoffset()
        assert shift is not None
        return int(shift.total_seconds())

    return CronSchedule(text, offset)


def at(zone: str, *parts: int, fold: int = 0) -> float:
    return datetime(*parts, fold=fold, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[misc,arg-type]


def local(zone: str, moment: float) -> str:
    return datetime.fromtimestamp(moment, ZoneInfo(zone)).strftime("%d %H:%M %z")


def some(text: str, zone: str, begin: float, count: int) -> list[str]:
    found, cron = [], schedule(text, zone)
    for _ in range(count):
        begin = cron.next_due(begin)
        found.append(local(zone, begin))
    return found


def test_a_task_of_a_certain_time_runs_in_the_first_pass_of_a_repeated_hour():
    begin = at("Europe/Berlin", 2026, 10, 25, 1, 0)
    assert some("30 2 * * *", "Europe/Berlin", begin, 2) == ["25 02:30 +0200", "26 02:30 +0100"]
    second = at("Europe/Berlin", 2026, 10, 25, 2, 10, fold=1)
    assert some("30 2 * * *", "Europe/Berlin", second, 1) == ["26 02:30 +0100"]
    assert some("* * 2 * * *", "Europe/Berlin", second, 1) == ["26 02:00 +0100"]


def test_a_task_of_each_hour_runs_through_both_passes():
    begin = at("Europe/Berlin", 2026, 10, 25, 1, 31)
    assert some("30 * * * *", "Europe/Berlin", begin, 3) == ["25 02:30 +0200", "25 02:30 +0100", "25 03:30 +0100"]


def test_what_is_skipped_in_spring_runs_once_right_after_the_gap():
    begin = at("Europe/Berlin", 2026, 3, 29, 1, 0)
    assert some("30 2 * * *", "Europe/Berlin", begin, 2) == ["29 03:00 +0200", "30 02:30 +0200"]
    assert some("*/5 2 * * *", "Europe/Berlin", begin, 2) == ["29 03:00 +0200", "30 02:00 +0200"]
    assert some("30 2,3 * * *", "Europe/Berlin", begin, 2) == ["29 03:00 +0200", "29 03:30 +0200"]
    assert some("0 2,3 * * *", "Europe/Berlin", begin, 2) == ["29 03:00 +0200", "30 02:00 +0200"]
    assert some("30 * * * *", "Europe/Berlin", begin, 2) == ["29 01:30 +0100", "29 03:30 +0200"]


def test_a_shift_of_half_an_hour():
    begin = at("Australia/Lord_Howe", 2026, 10, 4, 1, 0)  # 02:00 becomes 02:30
    assert some("15 2 * * *", "Australia/Lord_Howe", begin, 2) == ["04 02:30 +1100", "05 02:15 +1100"]
    assert some("15 * * * *", "Australia/Lord_Howe", begin, 3) == ["04 01:15 +1030", "04 02:30 +1100", "04 03:15 +1100"]
    begin = at("Australia/Lord_Howe", 2026, 4, 5, 1, 0)  # 02:00 becomes 01:30
    assert some("45 1 * * *", "Australia/Lord_Howe", begin, 2) == ["05 01:45 +1100", "06 01:45 +1030"]


def test_a_day_that_was_left_out():
    begin = at("Pacific/Apia", 2011, 12, 29, 13, 0)
    assert some("0 12 * * *", "Pacific/Apia", begin, 2) == ["31 00:00 +1400", "31 12:00 +1400"]
    assert some("0 12 30 12 *", "Pacific/Apia", begin, 1) == ["31 00:00 +1400"]


@pytest.mark.parametrize("text", ["* * *", "61 * * * *", "0 0 30 2 *"])
def test_a_wrong_text_is_refused(text):
    with pytest.raises(ValueError, match="is not valid"):
        CronSchedule(text)


def test_no_time_that_a_calendar_could_hold():
    with pytest.raises(ValueError, match="never matches"):
        schedule("0 0 1 1 *", "UTC").next_due(at("UTC", 9999, 6, 1))


def walk(text: str, zone: str, begin: float, end: float) -> list[float]:
    """Return due times by looking at each minute: slow, and with no thought."""
    named = CronSim(text, datetime(1970, 1, 1))  # noqa: DTZ001
    place = ZoneInfo(zone)

    def names(moment: datetime) -> bool:
        return (
            moment.minute in named.minutes and moment.hour in named.hours
            and moment.month in named.months and named.match_day(moment.date())
        )  # fmt: skip

    hourly = set(range(24)) <= named.hours
    found = []
    step = begin - begin % 60
    before = datetime.fromtimestamp(step, place).replace(tzinfo=None)
    while (step := step + 60) <= end:
        aware = datetime.fromtimestamp(step, place)
        here = aware.replace(tzinfo=None)
        gap = int((here - before).total_seconds()) // 60
        skipped = any(names(before + timedelta(minutes=each)) for each in range(1, gap))
        caught_up = skipped and not (hourly and gap == 61)
        if caught_up or (names(here) and (hourly or not aware.fold)):
            found.append(step)
        before = here
    return found


@settings(deadline=None)
@given(st.sampled_from(TEXTS), st.sampled_from(ZONES), st.integers(1_262_304_000, 2_000_000_000))
def test_due_times_are_those_of_a_walk_over_each_minute(text, zone, begin):
    cron = schedule(text, zone)
    end = begin + 3 * 86400
    found, moment = [], float(begin)
    while (moment := cron.next_due(moment)) <= end and len(found) < 300:
        found.append(moment)
    if len(found) == 300:
        end = found[-1]
    assert found == walk(text, zone, begin, end)


def changes(zone: str) -> list[int]:
    days = range(1_262_304_000, 1_800_000_000, 86400)
    offsets = [(day, datetime.fromtimestamp(day, ZoneInfo(zone)).utcoffset()) for day in days]
    return [day for (_, a), (day, b) in pairwise(offsets) if a != b]


CHANGES = {zone: found for zone in ZONES if (found := changes(zone))}


@settings(deadline=None)
@given(st.data())
def test_due_times_about_a_change_are_those_of_a_walk(data):
    zone = data.draw(st.sampled_from(sorted(CHANGES)))
    text = data.draw(st.sampled_from(TEXTS))
    begin = data.draw(st.sampled_from(CHANGES[zone])) - data.draw(st.integers(0, 2 * 86400))
    # The assertion is in there.
    test_due_times_are_those_of_a_walk_over_each_minute.hypothesis.inner_test(text, zone, begin)


@settings(deadline=None)
@given(
    st.sampled_from(TEXTS),
    st.sampled_from(ZONES),
    st.floats(-2_000_000_000, 20_000_000_000, allow_nan=False),
)
def test_a_due_time_is_always_later(text, zone, after):
    assume(datetime.fromtimestamp(after, UTC))
    assert schedule(text, zone).next_due(after) > after
