import asyncio

import pytest
from msgspec.structs import replace

from ostler.availability import refusal_reason
from ostler.service.host_view import merge_service_rows
from ostler.store import ServiceRecords
from ostler.testing.virtual_time import virtual_clock
from ostler.types import CapabilityReport, ServiceState, ServiceStatus

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


LAMP = '[services.lamp]\nmanager = "lamp"\npoll = 60\n'
DESK = LAMP + '[services.lamp.drivers.desk]\ndriver = "gpio"\n'


def row(topic="lamp", host="node1", **facts) -> ServiceStatus:
    return ServiceStatus(**{"topic": topic, "host": host, "state": ServiceState.UP, "up": True, **facts})


def test_what_runs_here_speaks_for_itself_and_the_table_adds_what_only_it_knows() -> None:
    table = [
        row(state=ServiceState.STARTING, enabled=False, disabled_reason="moving", disabled_by="alice", beat=7),
        row(host="node2", here=True),
        row("volume", "node0"),
    ]
    merged = merge_service_rows([row(why="well")], table)
    assert [(r.topic, r.host, r.here) for r in merged] == [
        ("lamp", "node1", True),
        ("volume", "node0", False),
        ("lamp", "node2", False),
    ]
    here = merged[0]
    assert (here.state, here.why, here.enabled, here.disabled_by, here.beat) == ("up", "well", False, "alice", 7)


def test_a_service_without_a_row_is_shown_all_the_same() -> None:
    assert merge_service_rows([row()], []) == [row()]


class Fleet:
    """What a router knows of other hosts, as a test says."""

    def __init__(self, *rows, reports=()):
        self.rows, self.told, self.peers = list(rows), list(reports), {}

    def services(self):
        return self.rows

    def reports(self):
        return self.told


def report(host, topic="lamp") -> CapabilityReport:
    return CapabilityReport(topic=topic, host=host, backends={"desk": {"free_bytes": 7}}, reported_at=1.0)


async def test_what_a_daemon_says_and_the_link_to_it_go_before_the_record_of_its_services(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        others = ServiceRecords(b.store, virtual_clock(), "node2")
        await b.store.awrite(lambda: [others.register(topic, "lamp", "1.0") for topic in ("lamp", "fan")])
        drains = row(host="node2", here=False, state=ServiceState.DRAINING)
        b.router.peers = Fleet(drains)
        lamp, fan, there = await b.runtime.rows()
        assert (lamp.host, lamp.here, lamp.link) == ("node1", True, "")
        assert there == drains
        assert (fan.up, fan.link, fan.addressable) == (True, "", False)
        assert "it is not in [network.peers]" in refusal_reason(fan)


async def test_the_operators_word_holds_while_the_table_cannot_be_read(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        records = b.runtime.service_records
        await b.store.awrite(lambda: records.set_enabled("lamp", "node1", enabled=False, reason="x", requester="alice"))
        b.runtime.host_view.on_change()
        assert not (await b.runtime.rows())[0].enabled
        b.store.path.unlink()
        b.store.path.mkdir()
        assert not (await b.runtime.rows())[0].enabled


async def test_what_services_can_do_is_known_when_the_start_has_ended(bench) -> None:
    async with bench(DESK) as b:
        await b.runtime.start()
        b.router.peers = Fleet(reports=[report("node2"), report("node0")])
        found = await b.runtime.host_view.capabilities()
        assert [(each.host, each.backends, each.up) for each in found] == [
            ("node0", {"desk": {"free_bytes": 7}}, True),
            ("node1", {"desk": {"free_bytes": 5}}, True),
            ("node2", {"desk": {"free_bytes": 7}}, True),
        ]


async def test_what_a_service_offers_is_told_as_of_now_with_leases_before_it_is_kept(bench) -> None:
    async with bench(DESK) as b:
        await b.runtime.start()
        b.service().manager.capabilities_changed("desk", lease="l1", released=True)
        await asyncio.sleep(0.1)
        (live,) = b.runtime.capability_reporter.live_reports()
        (told,) = (await b.runtime.host_view.report()).capabilities
        (found,) = await b.runtime.host_view.capabilities()
        assert told == found
        assert (told.instance, told.sequence, told.leases) == (live.instance, live.sequence, {"l1": True})
        assert told.instance


async def test_it_is_known_which_hosts_listen(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        view = b.runtime.host_view
        first, own = view.watch("node2"), view.watch("node1")
        assert not view.has_subscriber("node2")
        await anext(first)
        await anext(own)
        assert view.has_subscriber("node2")
        assert not view.has_subscriber("node1"), "a program of this host is no other daemon"
        await first.aclose()
        await own.aclose()
        assert not view.has_subscriber("node2")


async def test_a_service_that_is_slow_to_say_what_it_can_do_does_not_hold_up_the_start(bench, trouble) -> None:
    gate = trouble.hang("capabilities of desk")
    async with bench(DESK) as b:
        began = asyncio.get_running_loop().time()
        await b.runtime.start()
        assert asyncio.get_running_loop().time() - began < 10
        gate.set()


async def test_other_daemons_are_told_of_each_change_of_this_hosts_services(bench) -> None:
    async with bench(DESK) as b:
        await b.runtime.start()
        b.router.peers = Fleet(row(host="node2", here=False), reports=[report("node2")])
        told = b.runtime.host_view.watch()
        first = await anext(told)
        assert [(each.topic, each.host) for each in first.services] == [("lamp", "node1")]
        assert [each.host for each in first.capabilities] == ["node1"]
        assert (first.services[0].down_time, first.services[0].capability_interval) == (60.0, 60.0)
        began = asyncio.get_running_loop().time()
        waiting = asyncio.ensure_future(anext(told))
        b.service().state_tracker.set_problem("is_working", "is_working returned False")
        changed = await waiting
        assert asyncio.get_running_loop().time() - began < 0.2
        assert changed.services[0].evidence == {"is_working": "is_working returned False"}
        assert changed.instance == first.instance
        assert changed.sequence > first.sequence
        await b.service().drain(1.0)
        drained = await anext(told)
        assert drained.services[0].state is ServiceState.DRAINING
        await told.aclose()


async def test_versions_follow_what_is_seen_of_services_here_and_elsewhere(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        there = row(host="node2", here=False, rpc_version="0.9")
        b.router.peers = Fleet(there)
        view = b.runtime.host_view

        async def members():
            found = (await b.store.aread(lambda: view.members(300.0)))["lamp"]
            return {each.host: (each.version, each.why) for each in found}

        assert await members() == {"node1": ("1.0", "up"), "node2": ("0.9", "up")}
        b.router.peers = Fleet(replace(there, link="node2 cannot be reached", age=9.0))
        assert (await members())["node2"] == ("0.9", "down, counted for another 4min 51s")
        b.router.peers = Fleet(replace(there, link="node2 cannot be reached", age=301.0))
        assert (await members())["node2"] == ("0.9", "down, not counted")
