import asyncio

import pytest

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


LAMP = '[services.lamp]\nmanager = "lamp"\npoll = 60\n'


async def test_services_are_shown_while_the_table_cannot_be_read(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        b.store.path.unlink()
        b.store.path.mkdir()
        rows = await b.runtime.rows()
        assert [(r.topic, str(r.state)) for r in rows] == [("lamp", "up")]


async def test_periodic_runs_are_kept_over_a_restart(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        await asyncio.sleep(290)  # not at a moment at which a run begins
        (before,) = b.runtime.periodic_scheduler.statuses()
        assert before.runs >= 4
    async with bench(LAMP) as b:
        await b.runtime.start()
        (after,) = b.runtime.periodic_scheduler.statuses()
        assert (after.runs, after.last_run) == (before.runs, before.last_run)


async def test_periodic_runs_survive_a_crash_but_for_the_last_moments(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        await asyncio.sleep(300)
        (kept,) = await b.store.aread(b.runtime.periodic_records.list)
        assert kept.runs >= 4


async def test_a_reset_takes_services_one_by_one_and_ends_with_the_daemon(bench, trouble) -> None:
    config = LAMP + '[services.other]\nmanager = "lamp"\n'

    async with bench(config) as b:
        await b.runtime.start()
        answers = iter([True, False])
        plan = b.runtime.plan(b.resolved.specs)
        outcome, _ = await b.runtime.reload(plan, should_continue=lambda: next(answers))
        assert (outcome.was_stopped, [step.outcome for step in outcome.steps]) == (True, ["done", "not begun"])
        assert trouble.calls.count("end of reset lamp") == 1
        assert "reset other" not in trouble.calls


async def test_one_service_that_cannot_be_reset_keeps_no_other_from_it(bench, trouble) -> None:
    trouble.errors["reset lamp"] = OSError("no")
    config = LAMP + '[services.other]\nmanager = "lamp"\n'
    async with bench(config) as b:
        await b.runtime.start()
        assert len(await b.reset(config)) == 1
        assert "end of reset other" in trouble.calls


@pytest.mark.failure_mode("Life", "an eternal task that ends")
async def test_reports_of_state_go_on_after_a_round_that_failed_and_status_says_so(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        options, b.group.services["lamp"].options = b.service().options, None  # a defect
        b.runtime.heartbeat_reporter.trigger(b.service())
        await asyncio.sleep(1)
        b.group.services["lamp"].options = options
        await asyncio.sleep(5)
        assert b.ended == []
        assert any("task report state of services failed" in line for line in b.runtime.problems())
