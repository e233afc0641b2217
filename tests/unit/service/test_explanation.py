import asyncio
import sqlite3

import pytest

from ostler.availability import INFINITE_AGE
from ostler.service.explanation import Surroundings, explain
from ostler.types import (
    DriverState,
    DriverStatus,
    MemberVersion,
    OperatorOverride,
    ServiceState,
    ServiceStatus,
    Upgrade,
)

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)

S = ServiceState
LAMP = '[services.lamp]\nmanager = "lamp"\n'
DRIVER = LAMP + '[services.lamp.drivers.desk]\ndriver = "gpio"\n'


def row(state=S.UP, **facts):
    return ServiceStatus(**{"topic": "lamp", "host": "node1", "state": state, "up": True, "since": 7.0, **facts})


def far(state=S.UP, **facts):
    return row(state, **{"host": "node2", "here": False, "beat": 5, "last_report": 6.0, **facts})


def driver(state, **facts):
    return row(S.DEGRADED, drivers=[DriverStatus(name="desk", driver="gpio", state=state, since=3.0, **facts)])


def problem(about, text):
    return row(S.DEGRADED, evidence={about: text})


BY_ANN = OperatorOverride(by="ann", reason="a new disk", since=2.0)
SENTENCES = [
    (row(S.STOPPED, why="never started"), "never started", "it was never started", "`ostler service start lamp`"),
    (row(S.STOPPED, why="stopped by ann"), "stopped", "it is stopped: stopped by ann", "`ostler service start lamp`"),
    (
        row(S.FAILED, why="init_host of service lamp failed: OSError: no disk"), "failed",
        "it could not be started: init_host of service lamp failed: OSError: no disk",
        "fix that, then `ostler service start lamp`; a reload tries it again too",
    ),
    (row(S.STARTING, why="init_host"), "starting", "it is starting: init_host", "`ostler dump` shows where it is"),
    (
        row(S.STARTING, why="waiting for service door"), "dependency", "it is starting: waiting for service door",
        "`ostler service show door` says why it is not up",
    ),
    (
        row(S.FAILED, why="service lamp needs door, which failed to start"), "dependency",
        "it is failed: service lamp needs door, which failed to start", "then `ostler service start lamp`",
    ),
    (
        row(S.STARTING, why="registering, waiting for the database: it is locked"), "store outage",
        "it is starting: registering, waiting for the database: it is locked", "when the database can be written",
    ),
    (
        row(S.DRAINING, why="drained by ann"), "draining", "it takes no new work: drained by ann",
        "`ostler service enable lamp` undoes it",
    ),
    (
        far(S.DRAINING, why="the daemon is stopping"), "draining", "it takes no new work: the daemon is stopping",
        "wait for its daemon to start again",
    ),
    (
        far(frozen=BY_ANN), "frozen", "it is frozen by ann: a new disk; it finishes what it has and takes no new work",
        "`ostler service thaw lamp --host node2`",
    ),
    (
        far(forced_down=BY_ANN, up=False), "forced down",
        "it was forced down by ann: a new disk; what it says itself does not count",
        "`ostler service force-down lamp --host node2 --undo`",
    ),
    (
        row(enabled=False, disabled_by="eve", disabled_reason="moving"), "disabled",
        "it is disabled by eve: moving; nothing is placed on it", "`ostler service enable lamp`",
    ),
    (row(S.GONE, why="not configured"), "gone", "it is gone: not configured", "`ostler service delete lamp`"),
    (
        far(link="node2 has been unreachable for 9s: no cable", age=9.0), "host gone",
        "node2 has been unreachable for 9s: no cable", "`ostler service force-down lamp --host node2`",
    ),
    (
        far(age=100.0), "host gone", "lamp on node2 has not reported for 1min 40s, its down time is 1min",
        "look at the daemon on node2",
    ),
    (far(age=INFINITE_AGE), "host gone", "lamp on node2 has not reported, its down time is 1min", "daemon on node2"),
    (
        far(addressable=False), "host gone", "node2 is unreachable from here: it is not in [network.peers]",
        "add [network.peers.node2] and reload",
    ),
    (
        driver(DriverState.FAILED, why="no bulb", tries=4, retry_at=9.0), "driver", "driver desk is failed: no bulb",
        "what is wrong in [services.lamp.drivers.desk] takes effect with `ostler reload`",
    ),
    (driver(DriverState.FAILED, why="no class"), "driver", "driver desk is failed: no class", "it is not tried again"),
    (driver(DriverState.STUCK, why="switch hangs"), "driver", "driver desk is stuck: switch hangs", "`ostler dump`"),
    (driver(DriverState.INITIALISING), "driver", "driver desk is initialising", "wait"),
    (problem("failing desk", "all fail"), "driver failing", "all fail", "the first call that succeeds clears it"),
    (problem("working desk", "no light"), "driver", "no light", "its check is repeated"),
    (problem("driver_ready desk", "not taken"), "driver", "not taken", "retried with each report"),
    (problem("is_working", "returned False"), "check", "returned False", "passes again by itself"),
    (problem("threads", "all are busy"), "worker pool", "all are busy", "`ostler dump` shows what they do"),
    (problem("periodic task poll", "poll hangs"), "periodic task", "poll hangs", "`ostler periodic run` tries it"),
    (problem("event handler on_lamp", "it fails"), "event handler", "it fails", "the next event that it handles"),
    (problem("background task a", "it ended"), "background task", "it ended", "restart the service"),
    (problem("", "who knows"), "other", "who knows", "it is cleared when that is over"),
]  # fmt: skip


@pytest.mark.parametrize(("service", "kind", "text", "remedy"), SENTENCES)
def test_each_cause_has_its_sentence_and_what_would_end_it(service, kind, text, remedy):
    (cause,) = explain(service, Surroundings(host="node1"))
    assert (cause.kind, cause.text) == (kind, text)
    assert remedy in cause.remedy
    assert cause.since or kind == "host gone" or not service.enabled


def test_a_service_that_is_well_needs_no_explanation():
    assert explain(row(), Surroundings(host="node1")) == []
    assert explain(far(age=5.0), Surroundings(host="node1", outage="disk full")) == []


def test_what_operators_set_is_never_mixed_up():
    service = far(S.DRAINING, why="drained by bob", frozen=BY_ANN, forced_down=BY_ANN, enabled=False, disabled_by="eve")
    kinds = [cause.kind for cause in explain(service, Surroundings(host="node1"))]
    assert kinds == ["forced down", "frozen", "disabled", "draining"]


def test_attempts_of_a_driver_and_its_next_one_are_told():
    (cause,) = explain(driver(DriverState.FAILED, why="x", tries=4, retry_at=9.0), Surroundings())
    assert cause.tried.startswith("4 attempts to initialise it, the next one at 19")


def test_the_last_report_of_a_host_that_is_gone_is_told():
    (cause,) = explain(far(link="no cable", age=9.0), Surroundings())
    assert (cause.since, cause.tried) == (6.0, "its last report is 9s old")
    (cause,) = explain(far(age=INFINITE_AGE), Surroundings())
    assert cause.tried == "its last report is from an earlier boot"


def test_a_service_disabled_in_the_configuration_is_not_gone():
    (cause,) = explain(row(S.GONE, why="x"), Surroundings(host="node1", disabled_topics=frozenset({"lamp"})))
    assert (cause.kind, cause.text) == ("disabled", "its configuration has `enabled = false`")
    assert "enabled = true" in cause.remedy


def test_what_a_running_service_lacks_is_told():
    door = row(S.FAILED, topic="door", why="no key", up=False)
    (cause,) = explain(row(depends_on=["door"]), Surroundings(services=[door]))
    assert (cause.kind, cause.text) == ("dependency", "it needs door, which is failed: no key")
    (cause,) = explain(row(depends_on=["door"]), Surroundings())
    assert cause.text == "it needs door, which is not on its host"
    assert explain(row(depends_on=["door"]), Surroundings(services=[row(topic="door")])) == []


def test_a_scheduler_that_cannot_be_reached_is_told_to_who_needs_one():
    schedulers = [far(topic="scheduler"), row(S.STOPPED, topic="scheduler")]
    around = Surroundings(services=schedulers, offers=True, has_scheduler=False)
    (cause,) = explain(row(), around)
    assert (cause.kind, cause.text) == (
        "dependency", "no scheduler can be reached: what names no backend is placed on its own host only",
    )  # fmt: skip
    assert cause.remedy.endswith("HOST: node1, node2")
    assert explain(row(), Surroundings(services=schedulers, has_scheduler=False)) == []
    assert explain(row(), Surroundings(offers=True, has_scheduler=False)) == []


def test_a_version_that_is_refused_is_told():
    members = [MemberVersion(host="node2", version="2.0")]
    upgrade = Upgrade(topic="lamp", cap="2.0", members=members)
    (cause,) = explain(row(rpc_version="1.4"), Surroundings(upgrade=upgrade))
    assert (cause.kind, cause.text) == (
        "version", "it speaks version 1.4, and callers use 2.0: it refuses their calls",
    )  # fmt: skip
    assert "`ostler service versions lamp`" in cause.remedy
    (cause,) = explain(row(), Surroundings(upgrade=Upgrade(topic="lamp", cap="1.9", pin="1.9")))
    assert "correct `lamp` in `rpc_pins`" in cause.remedy
    assert explain(row(rpc_version="1.4"), Surroundings(upgrade=Upgrade(topic="lamp", cap="1.2"))) == []


def test_an_outage_of_the_database_is_told_of_the_services_here():
    (cause,) = explain(row(), Surroundings(outage="the disk is full", outage_since=4.0))
    assert (cause.kind, cause.since) == ("store outage", 4.0)
    assert cause.text == "the database of its host cannot be written: the disk is full"


def test_what_is_long_is_cut():
    (cause,) = explain(row(S.FAILED, why="x" * 100_000), Surroundings())
    assert len(cause.text) < 10_000


async def causes(b, topic="lamp"):
    rows = {each.topic: each for each in await b.runtime.rows()}
    return [(each.kind, each.text) for each in (await b.runtime.explain(rows[topic])).causes]


async def test_a_failed_init_host_and_who_needs_it_are_explained_by_a_real_service(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = OSError("no disk")
    config = LAMP + 'required = false\n[services.late]\nmanager = "lamp"\ndepends_on = ["lamp"]\nrequired = false\n'
    async with bench(config) as b:
        await b.runtime.start()
        ((kind, text),) = await causes(b)
        assert kind == "failed"
        assert "init_host" in text
        assert "no disk" in text
        ((kind, text),) = await causes(b, "late")
        assert (kind, text) == ("dependency", "it is failed: service late needs lamp, which failed to start")


async def test_real_drivers_pools_and_operators_are_explained_and_then_no_more(bench, trouble) -> None:
    trouble.errors["initialise desk white"] = OSError("no such device")
    async with bench(DRIVER) as b:
        await b.runtime.start()
        ((kind, text),) = await causes(b)
        assert (kind, "no such device" in text) == ("driver", True)
        trouble.errors.clear()
        await asyncio.sleep(60)
        assert await causes(b) == []
        await b.runtime.service_actions.drain("lamp", 0, "drained by ann")
        assert await causes(b) == [("draining", "it takes no new work: drained by ann")]
        b.runtime.service_actions.resume("lamp")
        await b.runtime.service_actions.stop("lamp", 0, "stopped by ann")
        assert await causes(b) == [("stopped", "it is stopped: stopped by ann")]
        await b.runtime.service_actions.start("lamp")
        assert await causes(b) == []


async def test_a_locked_database_is_explained(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        other = sqlite3.connect(b.store.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        while not b.store.outage.is_active:
            await asyncio.sleep(1)
        assert "store outage" in [kind for kind, _ in await causes(b)]
        other.execute("ROLLBACK")
        other.close()
        while b.store.outage.is_active:
            await asyncio.sleep(1)
        assert await causes(b) == []


async def test_a_periodic_task_that_always_fails_is_explained_until_it_works(bench, trouble) -> None:
    trouble.errors["poll"] = OSError("no lamp")
    async with bench(LAMP + "poll = 5\n") as b:
        await b.runtime.start()
        await asyncio.sleep(40)
        assert b.state() == "degraded"
        ((kind, text),) = await causes(b)
        assert kind == "periodic task"
        assert "periodic task poll of lamp" in text
        assert "no lamp" in text
        trouble.errors.clear()
        await asyncio.sleep(40)
        assert (b.state(), await causes(b)) == ("up", [])
