"""A reload is carried out whole or undone whole: a failure at each step leaves exactly what ran before."""

import asyncio

import pytest

from ostler.errors import Draining, OstlerError
from ostler.messaging.wire.envelope import PROTOCOL_VERSION, Request
from ostler.types import Peer, ServiceState

pytestmark = pytest.mark.virtual_time(stall_timeout=0.5)

HEAD = '[daemon]\nhost = "node1"\n'
DESK = '[services.lamp.drivers.desk]\ndriver = "gpio"\n'
HALL = '[services.lamp.drivers.hall]\ndriver = "gpio"\n'
LAMP = '[services.lamp]\nmanager = "lamp"\n'
DOOR = '[services.door]\nmanager = "lamp"\n'
BELL = '[services.bell]\nmanager = "lamp"\n'

BEFORE = LAMP + DESK + DOOR + '[services.gate]\nmanager = "lamp"\ndepends_on = ["door"]\n' + BELL
AFTER = (
    '[access]\nviewer = ["4242"]\n[log]\nlevel = "warning"\n'
    + LAMP
    + 'greeting = "well"\n'
    + DESK
    + 'colour = "red"\n'
    + HALL
    + DOOR
    + 'workers = 3\n[services.gate]\nmanager = "lamp"\ndepends_on = ["door"]\n'
    + '[services.porch]\nmanager = "lamp"\n[services.porch.drivers.light]\ndriver = "gpio"\n'
)


def what_runs(b):
    """All that a reload may change, by name."""
    group = b.daemon.parts.runtime.group
    found = {f"{each.topic} state": str(each.state_tracker.state) for each in group}
    found |= {f"{each.topic} problems": each.state_tracker.problems for each in group}
    found |= {f"{each.topic} options": each.options for each in group}
    found |= {f"{each.topic} manager's options": each.manager.options for each in group}
    found |= {
        f"{each.topic}/{status.name}": (str(status.state), each.driver_options(status.name))
        for each in group
        for status in each.drivers.statuses()
    }
    values = {value.path: value.value for value in b.daemon.active.effective_values(group)}
    messaging = b.daemon.parts.messaging
    return {
        **found,
        "values": values,
        "order": list(group.services),
        "topics": messaging.dispatcher.registry.topics(),
        "role of 4242": messaging.dispatcher.access.role_of(Peer(4242, 4242, 1, "uid 4242")),
        "resolved": b.daemon.active.resolved,
        "plugins": [(row.name, str(row.state)) for row in b.plugins.statuses()],
        "tasks": sorted(each.task for each in b.daemon.parts.runtime.periodic_scheduler.statuses()),
    }


FAILURES = {
    "reset": "apply options lamp",
    "initialise hall white": "add driver lamp/hall",
    "initialise desk red": "initialise driver lamp/desk",
    "init_host door": "restart service door",
    "init_host gate": "restart service gate",
    "init_host porch": "add service porch",
    "initialise light white": "add service porch",
}


async def test_a_reload_is_planned_before_it_is_carried_out_and_changes_nothing(bench) -> None:
    async with bench(BEFORE) as b:
        await b.ready()
        before = what_runs(b)
        b.configure(HEAD + AFTER)
        plan = await b.daemon.reloader.plan()
        assert [f"{step.action} {step.subject}" for step in plan.steps] == [
            "apply options lamp",
            "add driver lamp/hall",
            "initialise driver lamp/desk",
            "restart service door",
            "restart service gate",
            "add service porch",
            "apply daemon options daemon",
            "remove service bell",
        ]
        assert plan.steps[4].why == "it needs door"
        assert {change.path: change.needs for change in plan.changes} == {
            "access.viewer": "live",
            "log.level": "live",
            "services.bell": "service",
            "services.door.workers": "service",
            "services.lamp.drivers.desk.colour": "driver",
            "services.lamp.drivers.hall": "driver",
            "services.lamp.greeting": "live",
            "services.porch": "service",
        }
        assert what_runs(b) == before


async def test_all_steps_are_carried_out_and_the_others_are_not_touched(bench, trouble) -> None:
    async with bench(BEFORE) as b:
        await b.ready()
        lamp = b.daemon.parts.runtime.group.services["lamp"].manager
        b.configure(HEAD + AFTER)
        verdict = await b.daemon.reloader.reload("a")
        assert (verdict.ok, verdict.problems) == (True, [])
        assert {step.outcome for step in verdict.steps} == {"done"}
        running = what_runs(b)
        assert running["order"] == ["lamp", "door", "gate", "porch"]
        assert {state for name, state in running.items() if name.endswith(" state")} == {"up"}
        assert running["lamp/desk"][1].colour == "red"
        assert running["door options"].workers == 3
        assert b.daemon.parts.runtime.group.services["lamp"].manager is lamp
        assert await b.call("greet", topic="lamp", uid=4242) == "well"
        assert (await b.daemon.reloader.plan()).steps == []


@pytest.mark.failure_mode("Life", "a reload that fails at any of its steps")
@pytest.mark.parametrize(("place", "step"), FAILURES.items())
async def test_a_failure_at_any_step_leaves_what_ran_before(bench, trouble, place, step) -> None:
    async with bench(BEFORE) as b:
        await b.ready()
        before = what_runs(b)
        trouble.errors[place] = OSError("not now")
        if place in ("reset", "init_host door", "init_host gate"):
            trouble.once.add(place)  # the way back runs the same hook
        b.configure(HEAD + AFTER)
        verdict = await b.daemon.reloader.reload("a")
        assert not verdict.ok
        assert (verdict.changes, verdict.needs_restart) == ([], [])
        assert verdict.summary.startswith(f"reload failed and undone, everything runs as before: {step}: ")
        assert "not now" in verdict.summary
        assert "service start" not in verdict.summary, "it runs"
        failed = [f"{each.action} {each.subject}" for each in verdict.steps if each.outcome == "failed"]
        assert failed == [step]
        assert {each.outcome for each in verdict.steps} <= {"failed", "undone", "not begun", "done"}
        assert what_runs(b) == before
        assert "the files have what did not work" in str((await b.call("status"))["not_well"])
        trouble.errors.clear()
        verdict = await b.daemon.reloader.reload("a")  # what was in the way has gone
        assert (verdict.ok, {each.outcome for each in verdict.steps}) == (True, {"done"})
        assert "did not work" not in str((await b.call("status"))["not_well"])


@pytest.mark.failure_mode("Life", "a reload that fails at any of its steps")
async def test_what_cannot_be_undone_is_named(bench, trouble) -> None:
    async with bench(BEFORE) as b:
        await b.ready()
        trouble.errors["initialise hall white"] = OSError("no bulb")
        trouble.errors["initialise desk white"] = OSError("the old bulb is gone")
        b.configure(HEAD + AFTER)
        verdict = await b.daemon.reloader.reload("a")
        assert "1 step could not be undone" in verdict.summary
        (outcome,) = [each for each in verdict.steps if each.outcome == "not undone"]
        assert (outcome.subject, "the old bulb is gone" in outcome.why) == ("lamp/desk", True)
        assert "initialise driver lamp/desk could not be undone" in verdict.problems[1]


@pytest.mark.failure_mode("Life", "a reload that fails at any of its steps")
async def test_a_driver_that_hangs_with_its_new_options_is_given_up(bench, trouble) -> None:
    slow = DESK + 'init_timeout = "5s"\n'
    async with bench(LAMP + slow) as b:
        await b.ready()
        trouble.hang("initialise desk red")
        b.configure(HEAD + LAMP + slow + 'colour = "red"\n')
        verdict = await b.daemon.reloader.reload("a")
        assert "is stuck: initialise did not return within its 5s" in verdict.summary
        (status,) = b.daemon.services[0].drivers.statuses()
        assert (str(status.state), status.abandoned) == ("ready", 1)
        assert b.daemon.services[0].driver_options("desk").colour == "white"


async def test_a_driver_that_did_not_work_before_keeps_its_new_options(bench, trouble) -> None:
    trouble.errors["initialise desk white"] = trouble.errors["initialise desk red"] = OSError("no power")
    async with bench(LAMP + DESK) as b:
        await b.ready()
        b.configure(HEAD + LAMP + DESK + 'colour = "red"\n')
        verdict = await b.daemon.reloader.reload("a")
        assert verdict.problems == ["driver desk of service lamp has failed: OSError: no power"]
        assert [change.path for change in verdict.changes] == ["services.lamp.drivers.desk.colour"]
        del trouble.errors["initialise desk red"]
        await asyncio.sleep(30)  # it is tried again
        assert b.daemon.services[0].drivers.ready() == ["desk"]


async def test_long_work_is_not_waited_for_and_options_that_fail_then_are_undone(bench, trouble) -> None:
    async with bench(LAMP + DESK + 'call_timeout = "1h"\n') as b:
        await b.ready()
        gate = trouble.hang("shine")
        trouble.errors["initialise desk red"] = OSError("no red bulb")
        drivers = b.daemon.services[0].drivers
        shining = asyncio.ensure_future(drivers.call("desk", "shine"))
        await asyncio.sleep(20)
        b.configure(HEAD + LAMP + DESK + 'call_timeout = "1h"\ncolour = "red"\n')
        verdict = await b.daemon.reloader.reload("a")
        assert (verdict.ok, len(verdict.pending)) == (True, 1)
        gate.set()
        await shining
        await asyncio.sleep(60)
        assert (drivers.ready(), drivers.options("desk").colour) == (["desk"], "white")
        assert any("no red bulb" in line for line in b.daemon.parts.runtime.problems())


@pytest.mark.failure_mode("Life", "callers of a service that a reload restarts")
async def test_callers_of_a_service_that_restarts_are_told_to_try_again(bench, trouble) -> None:
    async with bench(LAMP + DOOR) as b:
        await b.ready()
        gate = trouble.hang("cleanup_host")
        b.configure(HEAD + LAMP + DOOR + "workers = 3\n")
        reloading = asyncio.ensure_future(b.daemon.reloader.reload("a"))
        while "cleanup_host" not in trouble.calls:
            await asyncio.sleep(0.05)
        with pytest.raises(Draining) as caught:
            await b.call("greet", topic="door")
        assert (caught.value.retry_after, caught.value.details["state"]) == (1.0, "restarting")
        assert await b.call("greet", topic="lamp") == "hello"  # the others go on
        gate.set()
        assert (await reloading).ok
        assert await b.call("greet", topic="door") == "hello"


@pytest.mark.parametrize("place", ["init_host door", "init_host gate"])
@pytest.mark.failure_mode("Life", "callers of a service that a reload restarts")
async def test_callers_are_told_to_try_again_until_a_failed_restart_is_undone(bench, trouble, place) -> None:
    async with bench(BEFORE) as b:
        await b.ready()
        trouble.errors[place] = OSError("not now")
        trouble.once.add(place)
        b.configure(HEAD + AFTER)
        registry, refusals = b.daemon.parts.messaging.dispatcher.registry, []

        async def ask(topic: str) -> None:
            while True:
                try:
                    registry.find(Request(PROTOCOL_VERSION, 1, topic, "greet", {}))
                except OstlerError as error:
                    refusals.append(error)
                await asyncio.sleep(0)  # each turn of the loop: time stands still meanwhile

        asking = [asyncio.ensure_future(ask(topic)) for topic in ("door", "gate")]
        verdict = await b.daemon.reloader.reload("a")
        for task in asking:
            task.cancel()
        assert not verdict.ok
        assert refusals, "the services were away for a moment"
        assert {(type(each), each.retry_after) for each in refusals} == {(Draining, 1.0)}
        assert [await b.call("greet", topic=topic) for topic in ("door", "gate")] == ["hello", "hello"]


async def test_a_service_with_a_stuck_part_is_not_restarted(bench, trouble) -> None:
    shelf = LAMP + DESK + "call_timeout = 1\n"
    async with bench(shelf) as b:
        await b.ready()
        gate = trouble.hang("shine")
        drivers = b.daemon.services[0].drivers
        await asyncio.gather(drivers.call("desk", "shine"), return_exceptions=True)
        b.configure(HEAD + shelf.replace(DESK, "workers = 3\n" + DESK))
        verdict = await b.daemon.reloader.reload("a")
        assert "would keep hanging during its next run" in verdict.summary
        assert await b.call("greet", topic="lamp") == "hello"
        gate.set()


async def test_a_service_that_an_operator_drains_goes_on_draining_after_its_restart(bench) -> None:
    async with bench(LAMP) as b:
        await b.ready()
        await b.daemon.parts.runtime.service_actions.drain("lamp", 1, "for a test")
        b.configure(HEAD + LAMP + "workers = 3\n")
        assert (await b.daemon.reloader.reload("a")).ok
        service = b.daemon.services[0]
        assert (service.options.workers, service.state_tracker.state) == (3, ServiceState.DRAINING)


@pytest.mark.failure_mode("Life", "reloads in their hundreds under load")
async def test_a_hundred_reloads_leave_nothing_behind(bench) -> None:
    async with bench(LAMP + DESK) as b:
        await b.ready()
        texts = [AFTER, LAMP + DESK + 'colour = "red"\n' + HALL, BEFORE]
        for number in range(99):
            b.configure(HEAD + texts[number % 3])
            verdict = await b.daemon.reloader.reload("a")
            assert verdict.ok, verdict
        runtime = b.daemon.parts.runtime
        assert list(runtime.group.services) == ["lamp", "door", "gate", "bell"]
        assert [each.topic for each in runtime.capability_reporter.live_reports() if each.topic == "porch"] == []
        assert set(b.daemon.watchdog.probe_names()) >= {"service lamp", "service bell"}
        assert "service porch" not in b.daemon.watchdog.probe_names()


async def test_what_fails_may_be_kept_to_be_tried_again(bench, trouble) -> None:
    async with bench(LAMP + DESK) as b:
        await b.ready()
        trouble.errors["initialise desk red"] = trouble.errors["initialise hall white"] = OSError("not mounted")
        b.configure(HEAD + LAMP + DESK + 'colour = "red"\n' + HALL)
        verdict = await b.daemon.reloader.reload("a", keep_failed=True)
        assert (verdict.ok, len(verdict.problems), len(verdict.changes)) == (False, 2, 2)
        trouble.errors.clear()
        await asyncio.sleep(30)
        drivers = b.daemon.services[0].drivers
        assert (sorted(drivers.ready()), drivers.options("desk").colour) == (["desk", "hall"], "red")
