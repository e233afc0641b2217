"""Periodic tasks that go by the wall clock: options for cron times, windows, and runs that were missed."""

import asyncio
import logging
import time
from datetime import UTC, datetime

import pytest

from ostler.errors import ContractError
from ostler.periodic_tasks import periodic
from ostler.store import PeriodicRun

pytestmark = pytest.mark.virtual_time(stall_timeout=0.1)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
DAY = 86400
HOUR = 3600


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    """The time zone in which the tests count."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


class Clockwork:
    """A manager whose tasks write down at which hour of which day they ran."""

    def __init__(self, bench, wall=NOON):
        self.bench = bench
        self.seen = []
        bench.clock.set_wall(wall)

    def note(self):
        moment = datetime.fromtimestamp(round(self.bench.clock.wall()), UTC)
        self.seen.append(f"{moment.day} {moment:%H:%M}")


class ByOption(Clockwork):
    @periodic(cron="nightly")
    async def backup(self, ctx):
        self.note()


class Nightly(Clockwork):
    @periodic(cron="0 2 * * *")
    async def backup(self, ctx):
        self.note()


class NightlyOnce(Clockwork):
    @periodic(cron="0 2 * * *", missed="run once")
    async def backup(self, ctx):
        self.note()


async def test_cron_times_by_option_follow_a_reload_and_an_empty_one_ends_them(bench):
    manager = ByOption(bench)
    bench.add(manager, nightly="0 2 * * *")
    await asyncio.sleep(DAY)
    assert manager.seen == ["2 02:00"]
    bench.apply_options(nightly="30 14 * * *")
    assert bench.status("backup").spacing == "30 14 * * *"
    await asyncio.sleep(DAY)
    assert manager.seen == ["2 02:00", "2 14:30"]
    bench.apply_options(nightly="")
    assert (bench.status("backup").enabled, bench.status("backup").next_run) == (False, 0.0)
    await asyncio.sleep(3 * DAY)
    bench.apply_options(nightly="0 3 * * *")
    await asyncio.sleep(DAY)
    assert manager.seen == ["2 02:00", "2 14:30", "7 03:00"]


@pytest.mark.parametrize(
    ("marks", "options", "said"),
    [
        ({"cron": "nightly"}, {}, "its cron time is the option 'nightly', which the service does not have"),
        ({"cron": "nightly"}, {"nightly": 5}, "the option 'nightly', which is not a text"),
        ({"cron": "nightly"}, {"nightly": "61 * * * *"}, r"'61 \* \* \* \*' \(option nightly\) is not valid"),
        ({"window": "quiet"}, {}, "its window is the option 'quiet', which the service does not have"),
        ({"window": "quiet"}, {"quiet": "25:00-01:00"}, r"'25:00-01:00' \(option quiet\) is not valid"),
        ({"window": "1-5"}, {}, "must be two times of day"),
        ({"missed": "sometimes"}, {}, "must be 'run once' or 'skip'"),
        ({"time_limit": "limit"}, {}, "its time limit is the option 'limit', which the service does not have"),
        ({"time_limit": -1}, {}, "its time limit is -1, it must be a number of seconds 0 or more"),
    ],
)
async def test_a_calendar_that_cannot_be_followed_is_refused_by_name(bench, marks, options, said):
    class Manager(Clockwork):
        @periodic(**marks)
        async def wrong(self, ctx): ...

    with pytest.raises(ContractError, match=said):
        bench.add(Manager(bench), **options)


async def test_a_spacing_runs_within_its_window_only_and_once_when_it_opens(bench):
    class Manager(Clockwork):
        @periodic(spacing=2 * HOUR, window="quiet")
        async def scrub(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager, quiet="22:00-03:00")
    assert bench.status("scrub").next_run == NOON + 10 * HOUR
    await asyncio.sleep(4 * HOUR)
    status = bench.status("scrub")
    assert (status.held, status.window, status.missed) == (True, "22:00-03:00", "run once")
    await asyncio.sleep(32 * HOUR)
    assert manager.seen == ["1 22:00", "2 00:00", "2 02:00", "2 22:00"]
    bench.apply_options(quiet="")
    await asyncio.sleep(4 * HOUR)
    assert manager.seen[4:] == ["3 00:00", "3 02:00"][: len(manager.seen) - 4]


async def test_a_spacing_that_skips_runs_at_its_regular_times_in_the_window(bench):
    class Manager(Clockwork):
        @periodic(spacing=90 * 60, window="13:00-17:00", missed="skip")
        async def scrub(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(DAY + 3 * HOUR + 60)
    assert manager.seen == ["1 13:30", "1 15:00", "1 16:30", "2 13:30", "2 15:00"]
    assert bench.status("scrub").next_run == NOON + DAY + 4.5 * HOUR


async def test_cron_times_outside_the_window_are_skipped_or_run_once_when_it_opens(bench):
    class Manager(Clockwork):
        @periodic(cron="0 */3 * * *", window="14:00-20:00")
        async def skips(self, ctx):
            self.note()

        @periodic(cron="0 1 * * *", window="14:00-20:00", missed="run once")
        async def late(self, ctx):
            self.seen.append("late")
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    assert bench.status("late").next_run == NOON + DAY + 2 * HOUR
    await asyncio.sleep(DAY + 2.5 * HOUR)
    assert manager.seen == ["1 15:00", "1 18:00", "late", "2 14:00"]
    assert bench.status("skips").next_run == NOON + DAY + 3 * HOUR


async def test_a_window_that_a_reload_opens_lets_a_held_run_start(bench):
    class Manager(Clockwork):
        @periodic(spacing=HOUR, window="quiet")
        async def scrub(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager, quiet="01:00-02:00")
    await asyncio.sleep(2 * HOUR + 30)
    assert manager.seen == []
    bench.apply_options(quiet="10:00-15:00")
    await asyncio.sleep(1)
    assert manager.seen == ["1 14:00"]


async def test_a_window_follows_a_clock_that_is_set(bench):
    class Manager(Clockwork):
        @periodic(spacing=HOUR, window="01:00-05:00")
        async def scrub(self, ctx):
            self.note()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(2 * HOUR)
    bench.clock.set_wall(NOON + DAY - 9 * HOUR)  # 03:00
    await asyncio.sleep(70)
    assert len(manager.seen) == 1, "found within a minute"


def down_since(bench, hours, task="backup"):
    """Let the daemon have been down since some hours ago, when the due times so far had been run."""
    done = bench.clock.wall() - hours * HOUR
    bench.scheduler.restore([PeriodicRun("lamp", task, 5, last_run=done - HOUR, last_due=done)])


@pytest.mark.failure_mode("Periodic", "runs missed while the daemon was down")
async def test_a_cron_run_that_was_missed_while_the_daemon_was_down_is_run_once(bench, caplog):
    caplog.set_level(logging.INFO)
    manager = NightlyOnce(bench)
    down_since(bench, 5 * 24)
    bench.add(manager)
    await asyncio.sleep(60)
    assert manager.seen == ["1 12:00"], "five nights, one run"
    assert "periodic task backup of lamp was due at 2026-05-28 02:00:00, while it was not running: it runs once" in (
        caplog.text
    )
    await asyncio.sleep(DAY)
    assert manager.seen == ["1 12:00", "2 02:00"]


@pytest.mark.failure_mode("Periodic", "runs missed while the daemon was down")
async def test_a_cron_run_that_was_missed_is_skipped_by_default_and_the_log_says_so(bench, caplog):
    caplog.set_level(logging.INFO)
    manager = Nightly(bench)
    down_since(bench, 24)
    bench.add(manager)
    assert "was due at 2026-06-01 02:00:00, while it was not running: it is skipped" in caplog.text
    await asyncio.sleep(DAY)
    assert manager.seen == ["2 02:00"]


async def test_nothing_is_missed_by_a_short_restart_or_a_first_start(bench, caplog):
    caplog.set_level(logging.INFO)
    manager = NightlyOnce(bench)
    bench.add(manager)
    down_since(bench, 8)
    bench.add(Nightly(bench), service="torch")
    bench.add(manager)
    await asyncio.sleep(HOUR)
    assert manager.seen == []
    assert "while it was not running" not in caplog.text


async def test_a_first_start_is_stored_so_that_the_first_night_is_not_missed(bench):
    bench.add(NightlyOnce(bench))
    (record,) = bench.scheduler.pop_changed_runs()
    assert record.last_due == NOON
    bench.scheduler.remove("lamp")
    bench.clock.set_wall(NOON + DAY)
    manager = NightlyOnce(bench, NOON + DAY)
    bench.scheduler.restore([record])
    bench.add(manager)
    await asyncio.sleep(1)
    assert manager.seen == ["2 12:00"]


async def test_a_missed_run_waits_for_the_window(bench):
    class Manager(Clockwork):
        @periodic(cron="0 2 * * *", missed="run once", window="01:00-05:00")
        async def backup(self, ctx):
            self.note()

    manager = Manager(bench)
    down_since(bench, 24)
    bench.add(manager)
    await asyncio.sleep(DAY)
    assert manager.seen == ["2 01:00", "2 02:00"]


async def test_a_run_that_the_stop_has_ended_is_run_again_by_the_next_start(bench):
    class Manager(Clockwork):
        @periodic(cron="0 2 * * *", missed="run once")
        async def backup(self, ctx):
            self.note()
            while not ctx.cancelled:
                await asyncio.sleep(1)
            ctx.check()

    manager = Manager(bench)
    bench.add(manager)
    await asyncio.sleep(14 * HOUR + 60)
    assert manager.seen == ["2 02:00"]
    bench.scheduler.remove("lamp")
    await asyncio.sleep(10)
    bench.add(manager)
    await asyncio.sleep(10)
    assert manager.seen == ["2 02:00", "2 02:01"]
    bench.scheduler.remove("lamp")


@pytest.mark.failure_mode("Periodic", "a clock that is set forth and back")
async def test_a_clock_set_back_an_hour_does_not_repeat_a_run_over_a_restart(bench):
    manager = NightlyOnce(bench)
    bench.add(manager)
    await asyncio.sleep(14 * HOUR + 600)
    assert manager.seen == ["2 02:00"]
    records = bench.scheduler.pop_changed_runs()
    bench.scheduler.remove("lamp")
    bench.clock.set_wall(bench.clock.wall() - HOUR)
    again = NightlyOnce(bench, bench.clock.wall())
    bench.scheduler.restore(records)
    bench.add(again)
    await asyncio.sleep(2 * HOUR)
    assert again.seen == []
    await asyncio.sleep(DAY)
    assert again.seen == ["3 02:00"]


@pytest.mark.failure_mode("Periodic", "a clock that is set forth and back")
@pytest.mark.parametrize("manager", [Nightly, NightlyOnce])
async def test_a_clock_set_forth_and_back_an_hour_runs_a_nightly_task_once(bench, manager):
    made = manager(bench, NOON + 13.5 * HOUR)
    bench.add(made)
    bench.clock.set_wall(NOON + 14.5 * HOUR)  # forth over the due time
    await asyncio.sleep(120)
    assert len(made.seen) == 1, "not left out"
    bench.clock.set_wall(bench.clock.wall() - HOUR)
    await asyncio.sleep(3 * HOUR)
    assert len(made.seen) == 1, "and not run twice"


async def test_what_was_due_while_a_task_was_paused_is_not_made_up_for(bench):
    manager = NightlyOnce(bench)
    bench.add(manager)
    bench.scheduler.pause("lamp", "backup", by="root", reason="the array moves")
    (record,) = bench.scheduler.pop_changed_runs()
    assert (record.paused_by, record.pause_reason) == ("root", "the array moves")
    bench.scheduler.remove("lamp")
    bench.clock.set_wall(NOON + 3 * DAY)
    bench.scheduler.restore([record])
    bench.add(manager)
    status = bench.status("backup")
    assert (status.paused, status.paused_by, status.pause_reason) == (True, "root", "the array moves")
    assert (status.paused_at, status.next_run) == (NOON, 0.0)
    await asyncio.sleep(DAY)
    bench.scheduler.resume("lamp", "backup")
    await asyncio.sleep(HOUR)
    assert manager.seen == []
    await asyncio.sleep(DAY)
    assert manager.seen == ["6 02:00"]


async def test_a_spacing_that_skips_stays_on_its_grid_over_a_restart(bench, caplog):
    caplog.set_level(logging.INFO)

    class Manager(Clockwork):
        @periodic(spacing=HOUR, missed="skip")
        async def skips(self, ctx):
            self.note()

        @periodic(spacing=HOUR)
        async def catches_up(self, ctx): ...

    manager = Manager(bench)
    done = NOON - 5.5 * HOUR
    bench.scheduler.restore([PeriodicRun("lamp", name, 1, last_run=done) for name in ("skips", "catches_up")])
    bench.add(manager)
    assert bench.status("skips").next_run == pytest.approx(NOON + HOUR / 2)
    assert bench.status("catches_up").next_run == pytest.approx(NOON)
    assert "skips of lamp was due at 2026-06-01 07:30:00, while it was not running: it is skipped" in caplog.text
    await asyncio.sleep(2 * HOUR)
    assert manager.seen == ["1 12:30", "1 13:30"]
