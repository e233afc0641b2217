import asyncio
from collections.abc import AsyncIterator

import pytest

from ostler.aio import LoopQueue
from ostler.clock import FakeClock, SystemClock
from ostler.errors import Conflict, ConnectionLost, DaemonNotRunning, MethodNotFound
from ostler.messaging import Access, Context, Dispatcher, Endpoint, RpcServer, exposed
from ostler.messaging.network.peers import PeerAddress, PeerDaemon, PeerSet
from ostler.testing.memory_transport import MemoryTransport
from ostler.testing.virtual_time import virtual_clock
from ostler.types import (
    CONTROL_TOPIC,
    CapabilityReport,
    DriverState,
    DriverStatus,
    HostIdentity,
    HostReport,
    MethodDescription,
    OperatorOverride,
    ServiceState,
    ServiceStatus,
)

# private: _on_lost: a connection that is cut, which no method of a client does
# private: _apply_report: reports that overtake each other, which no link does by itself

ADDRESS = PeerAddress("tcp://node2:7890", ("key",))


class Control:
    """The control topic of another daemon."""

    rpc_version = "1.0"

    def __init__(self, host="node2", *topics):
        self.host = host
        self.rows = [row(topic, host) for topic in topics]
        self.capabilities, self.flushed = [], []
        self.sequence, self.changed = 1, asyncio.Event()
        self.asked = 0

    def change(self, *rows):
        self.rows, self.sequence = list(rows), self.sequence + 1
        self.changed.set()

    def report(self):
        return HostReport(
            host=self.host, instance="1", sequence=self.sequence, services=self.rows, capabilities=self.capabilities
        )

    @exposed(role="viewer", changes=False)
    async def host_report(self, ctx: Context, flush: float = 0.0) -> HostReport:
        """Return what is there."""
        self.asked += 1
        if flush:
            self.sequence += 1
            self.capabilities = self.flushed
        return self.report()

    @exposed(role="viewer", changes=False)
    async def watch_host(self, ctx: Context) -> AsyncIterator[HostReport]:
        """Yield what is there whenever it changes."""
        while True:
            yield self.report()
            await self.changed.wait()
            self.changed.clear()

    @exposed(role="viewer", changes=False)
    async def describe(self, ctx: Context, topic: str) -> list[MethodDescription]:
        """Return one method."""
        facts = {"role": "operator", "version": "1.0", "changes": True, "arguments": [], "result": "", "doc": ""}
        return [MethodDescription(topic=topic, method="create", **facts)]


def row(topic, host="node2", **facts):
    return ServiceStatus(topic=topic, host=host, state=facts.pop("state", ServiceState.UP), **facts)


class Elsewhere:
    """A daemon on another host that may come and go."""

    def __init__(self, *topics, host="node2"):
        self.control = Control(host, *topics)
        self.transport = MemoryTransport()
        self.keys = []
        self.server = None

    def make(self, address, key):
        self.keys.append(key)
        return self.transport

    def start(self, clock=None):
        inbox = LoopQueue(asyncio.get_running_loop())
        dispatcher = Dispatcher(Access(), clock or SystemClock(), inbox, host=self.control.host)
        dispatcher.registry.add_endpoint(Endpoint(CONTROL_TOPIC, self.control.host, self.control, None))
        self.server = RpcServer(self.transport.serve_rpc(), dispatcher, inbox)
        self.server.start()

    def stop(self):
        self.server.close()


def peer(other, clock=None, **more):
    return PeerDaemon("node2", ADDRESS, other.make, clock or FakeClock(), 5.0, **more)


async def test_a_peer_is_away_until_it_has_answered_and_known_by_its_services_then():
    other = Elsewhere("volume", "image")
    failed = row("fan", state=ServiceState.FAILED)
    other.control.rows += [row("volume", "node3"), row("lamp", enabled=False), failed]
    clock = FakeClock()
    node2 = peer(other, clock)
    assert not node2.up
    with pytest.raises(DaemonNotRunning):
        await node2.poll()
    clock.advance(7)
    assert "node2 has been unreachable for 7s" in str(node2.unreachable_error())
    other.start()
    rows = await node2.poll()
    assert [each.topic for each in rows] == ["volume", "image", "lamp", "fan"]
    assert node2.up
    assert [topic for topic in ("volume", "lamp", "fan", "nothing") if node2.accepts(topic)] == ["volume"]
    assert node2.runs("lamp")
    await node2.close()
    other.stop()


async def test_a_daemon_with_another_name_is_none_of_ours():
    other = Elsewhere(host="node7")
    other.start()
    node2 = peer(other)
    with pytest.raises(Conflict, match=r"is node2 in \[network.peers\], but the daemon there is node7"):
        await node2.poll()
    assert not node2.up
    await node2.close()
    other.stop()


async def test_a_link_that_is_lost_is_known_at_once_and_wakes_who_waits_to_ask_again():
    other = Elsewhere("volume")
    other.start()
    node2 = peer(other)
    await node2.poll()
    waiting = asyncio.create_task(node2.wait_next_poll(3600))
    await asyncio.sleep(0)
    other.stop()
    await asyncio.wait_for(waiting, 5)
    assert not node2.up
    assert not node2.accepts("volume")
    await node2.close()


async def test_a_method_there_is_asked_for_its_role_and_its_secrets():
    other = Elsewhere("volume")
    other.start()
    node2 = peer(other)
    assert (await node2.describe("volume", "create")).role == "operator"
    with pytest.raises(MethodNotFound, match="did you mean 'create'"):
        await node2.describe("volume", "creates")
    await node2.close()
    other.stop()


async def test_a_fleet_tells_of_services_and_finds_a_peer_again():
    other, seen = Elsewhere("volume"), asyncio.Queue()
    fleet = PeerSet(other.make, SystemClock(), 5.0, seen.put_nowait)
    fleet.configure({"node2": ADDRESS}, 0.05)
    other.start()
    node2 = await asyncio.wait_for(seen.get(), 5)
    assert (node2.host, node2.up, list(node2.services)) == ("node2", True, ["volume"])
    assert [each.host for each in fleet.peers_with("volume")] == ["node2"]
    assert fleet.stats()["node2"]["up"] is True
    other.stop()
    other.start()
    while not seen.empty():
        seen.get_nowait()
    await asyncio.wait_for(seen.get(), 5)
    before = fleet.peers["node2"]
    fleet.configure({"node2": ADDRESS}, 0.05)
    assert fleet.peers["node2"] is before, "its link stays"
    fleet.configure({}, 0.05)
    assert fleet.peers_with("volume") == []
    await fleet.close()
    other.stop()


async def test_an_operators_word_that_a_service_is_down_counts_more_than_its_host():
    other, seen, forced = Elsewhere("volume", "image"), asyncio.Queue(), {}
    other.control.rows = [row("volume", forced_down=OperatorOverride(by="itself")), row("image")]
    fleet = PeerSet(other.make, SystemClock(), 5.0, seen.put_nowait, forced_down=lambda: forced)
    other.start()
    fleet.configure({"node2": ADDRESS}, 0.05)
    node2 = await asyncio.wait_for(seen.get(), 5)
    assert (node2.is_available("volume"), node2.status_of("volume").up) == (True, True), "no host can say it of itself"
    forced["volume", "node2"] = word = OperatorOverride(by="bob", reason="its power is cut", since=5.0)
    view = node2.status_of("volume")
    assert (view.forced_down, view.up, node2.up) == (word, False, True)
    assert (node2.accepts("volume"), node2.is_available("volume"), node2.is_available("image")) == (False, False, True)
    assert {each.topic: each.up for each in fleet.services()} == {"volume": False, "image": True}
    forced.clear()
    assert node2.accepts("volume")
    await fleet.close()
    other.stop()


async def test_calls_under_way_to_a_peer_that_goes_are_told():
    other = Elsewhere("volume")
    other.start()
    node2 = peer(other)
    await node2.poll()
    calls = [asyncio.create_task(node2.client.call(CONTROL_TOPIC, "host_report")) for _ in range(3)]
    await asyncio.gather(*calls)
    other.stop()
    with pytest.raises((DaemonNotRunning, ConnectionLost)):
        await node2.client.call(CONTROL_TOPIC, "host_report")
    await node2.close()


class Named(Control):
    """One that says who it is."""

    def __init__(self, identity):
        super().__init__(identity.name)
        self.identity = identity
        self.greeted = []

    @exposed(role="viewer", changes=False)
    async def hello(
        self, ctx: Context, name: str, machine: str = "", boot: str = "", instance: str = ""
    ) -> HostIdentity:
        """Say who this is."""
        self.greeted.append((name, instance))
        return self.identity


MINE = HostIdentity(name="node1", machine="m1", boot="b1", instance="i1")


async def test_what_becomes_of_a_peer_is_told_with_why():
    told = []
    other = Elsewhere("volume")
    node2 = PeerDaemon(
        "node2",
        ADDRESS,
        other.make,
        FakeClock(),
        5.0,
        on_state_change=lambda host, state, why, _: told.append((host, state, why)),
    )
    with pytest.raises(DaemonNotRunning):
        await node2.poll()
    other.start()
    await node2.poll()
    other.control.host = "node7"
    with pytest.raises(Conflict):
        await node2.poll()
    assert [each[:2] for each in told] == [("node2", "lost"), ("node2", "back"), ("node2", "refused")]
    assert "the daemon there is node7" in told[2][2]
    await node2.close()
    other.stop()


async def test_a_link_begins_with_who_both_are_once():
    other = Elsewhere()
    other.control = Named(HostIdentity(name="node2", machine="m2", boot="b2", instance="i2"))
    other.start()
    node2 = peer(other, own_identity=MINE)
    await node2.poll()
    await node2.poll()
    assert other.control.greeted == [("node1", "i1")]
    assert node2.peer_identity == other.control.identity
    await node2.close()
    other.stop()


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (HostIdentity(name="node1", machine="m2", boot="b2"), "two hosts are named node1"),
        (HostIdentity(name="node2", machine="m1", boot="b2"), "node2 has the same machine id as node1"),
    ],
)
async def test_a_peer_with_our_name_or_machine_is_refused_and_that_is_logged_once(found, why, caplog):
    other = Elsewhere()
    other.control = Named(found)
    other.start()
    node2 = peer(other, own_identity=MINE)
    for _ in range(2):
        with pytest.raises(Conflict, match=why):
            await node2.poll()
    assert not node2.up
    assert why in node2.unreachable_error().message
    await node2.close()
    other.stop()
    assert caplog.text.count("node2 is unreachable") == 1


async def test_one_of_an_earlier_version_is_not_asked_who_it_is():
    other = Elsewhere("volume")
    other.start()
    node2 = peer(other, own_identity=MINE)
    await node2.poll()
    assert node2.up
    assert node2.peer_identity is None
    await node2.close()
    other.stop()


class Away(Elsewhere):
    """A daemon that is not there at first, and the moments of the tries to reach it."""

    def __init__(self):
        super().__init__("volume")
        self.tries = []
        self.hang = False

    def make(self, address, key):
        return self

    def connect_async(self, on_message, on_lost):
        self.tries.append(asyncio.get_running_loop().time())
        return Silent() if self.hang else self.transport.connect_async(on_message, on_lost)


class Silent:
    """A link to an address that does not answer, not even that nobody is there."""

    def send(self, data):
        pass

    def close(self):
        pass


async def watched(other):
    """Return a peer whose next try by itself is some seconds away, and the fleet that watches it."""
    fleet = PeerSet(other.make, virtual_clock(), 5.0)
    fleet.configure({"node2": ADDRESS}, 5.0)
    while len(other.tries) < 8:
        await asyncio.sleep(1)
    await asyncio.sleep(1)
    other.tries.clear()
    return fleet.peers["node2"], fleet


@pytest.mark.virtual_time
async def test_a_call_to_a_peer_that_has_just_come_does_not_fail_because_the_last_try_did():
    other = Away()
    node2, fleet = await watched(other)
    other.start()
    asked = asyncio.get_running_loop().time()
    assert await node2.wait_reachable(None) == 0.0
    assert other.tries == [asked]
    assert node2.up
    await fleet.close()
    other.stop()


@pytest.mark.virtual_time
async def test_who_calls_a_peer_that_is_away_is_told_the_outcome_of_one_try():
    other = Away()
    node2, fleet = await watched(other)
    for _ in range(3):
        with pytest.raises(DaemonNotRunning, match="node2 has been unreachable"):
            await node2.wait_reachable(None)
    assert len(other.tries) == 3
    await fleet.close()


@pytest.mark.virtual_time
async def test_thousands_waiting_for_a_peer_have_it_tried_four_times_a_second_in_turn():
    other, loop = Away(), asyncio.get_running_loop()
    node2, fleet = await watched(other)

    async def insist(until):
        while loop.time() < until:
            with pytest.raises(DaemonNotRunning):
                await node2.wait_reachable(None)

    began = loop.time()
    await asyncio.gather(*(insist(began + 3) for _ in range(2000)))
    assert len(other.tries) <= 14
    assert all(after - before >= 0.249 for before, after in zip(other.tries, other.tries[1:], strict=False))
    await fleet.close()


@pytest.mark.virtual_time
async def test_the_wait_for_a_silent_peer_is_bounded_and_within_the_callers_time():
    other, loop = Away(), asyncio.get_running_loop()
    node2, fleet = await watched(other)
    other.hang = True
    for patience, seconds in ((None, 0.75), (60.0, 0.75), (0.2, 0.2)):
        began = loop.time()
        with pytest.raises(DaemonNotRunning):
            await node2.wait_reachable(patience)
        assert loop.time() - began == pytest.approx(seconds, abs=0.01)
    assert len(other.tries) == 1, "the next one begins when this one has ended"
    await fleet.close()


@pytest.mark.virtual_time
async def test_a_try_under_way_when_somebody_calls_counts_only_if_it_reaches_the_peer():
    other = Away()
    node2, fleet = await watched(other)
    other.hang = True
    first = asyncio.create_task(node2.wait_reachable(None))
    await asyncio.sleep(0.5)
    assert len(other.tries) == 1
    second = asyncio.create_task(node2.wait_reachable(None))
    await asyncio.sleep(0)
    node2.client._on_lost(DaemonNotRunning("refused"))  # how the link of the first try would tell it
    other.hang = False
    other.start()
    with pytest.raises(DaemonNotRunning):
        await first
    assert await second < 0.1
    await fleet.close()
    other.stop()


async def test_what_changes_on_another_host_is_known_at_once_and_told():
    other, news = Elsewhere("volume"), asyncio.Queue()
    other.start()
    fleet = PeerSet(other.make, SystemClock(), 5.0, news.put_nowait)
    fleet.configure({"node2": ADDRESS}, 3600)
    node2 = await asyncio.wait_for(news.get(), 5)

    async def told(view):
        while not view(node2.status_of("volume")):
            await asyncio.wait_for(news.get(), 5)

    await told(lambda row: row.enabled)
    asked = other.control.asked
    other.control.change(row("volume", enabled=False, disabled_reason="a disk"))
    await told(lambda row: not row.enabled)
    assert not node2.accepts("volume")
    other.control.capabilities = [report(free=5)]
    other.control.change(row("volume", state=ServiceState.DRAINING))
    await told(lambda row: row.state is ServiceState.DRAINING)
    assert [each.backends for each in fleet.reports()] == [{"local": {"free": 5}}]
    assert other.control.asked == asked, "nobody had to ask"
    other.stop()
    await told(lambda row: row.link)
    (view,) = fleet.services()
    assert (view.state, view.up, view.here) == (ServiceState.DRAINING, False, False)
    assert "node2 has been unreachable" in view.link
    await fleet.close()


def report(host="node2", topic="volume", **facts):
    return CapabilityReport(topic=topic, host=host, backends={"local": facts}, reported_at=1.0)


async def test_a_host_that_is_back_is_followed_again():
    other, news = Elsewhere("volume"), asyncio.Queue()
    other.start()
    # Passing is the assertion: news that do not come are a TimeoutError.
    fleet = PeerSet(other.make, SystemClock(), 5.0, news.put_nowait)
    fleet.configure({"node2": ADDRESS}, 3600)
    node2 = await asyncio.wait_for(news.get(), 5)
    other.stop()
    while node2.up:
        await asyncio.wait_for(news.get(), 5)
    other.start()
    while not node2.up:
        await asyncio.wait_for(news.get(), 5)
    other.control.change(row("lamp"))
    while not node2.runs("lamp"):
        await asyncio.wait_for(news.get(), 5)
    await fleet.close()
    other.stop()


async def test_an_answer_that_was_overtaken_by_what_was_told_later_is_none():
    other = Elsewhere("volume")
    other.start()
    node2 = peer(other)
    await node2.poll()
    drains = [row("volume", state=ServiceState.DRAINING)]
    assert node2._apply_report(HostReport(host="node2", instance="1", sequence=7, services=drains))
    assert not node2._apply_report(HostReport(host="node2", instance="1", sequence=6, services=[row("volume")]))
    assert not node2.accepts("volume")
    assert node2._apply_report(HostReport(host="node2", instance="2", sequence=0, services=[row("volume")]))
    assert node2.accepts("volume"), "after a restart of that daemon its numbers begin anew"
    await node2.close()
    other.stop()


async def test_a_host_speaks_only_for_itself_and_not_of_the_link_to_it_and_within_bounds():
    other = Elsewhere()
    stuck = DriverStatus(name="local", driver="file", state=DriverState.STUCK, why="x" * 100_000)
    odd = row("volume", age=1e9, link="away", here=True, evidence={"is_working": "y" * 100_000}, drivers=[stuck])
    other.control.rows = [odd, row("volume", "node3")]
    other.control.capabilities = [report(), report("node3"), report(topic="lamp", text="x" * 2_200_000)]
    other.start()
    node2 = peer(other)
    await node2.poll()
    (view,) = node2.services.values()
    assert (view.age, view.link, view.here) == (0.0, "", False)
    assert len(view.evidence["is_working"]) < 10_000
    assert len(view.drivers[0].why) < 10_000
    assert [(each.topic, each.host) for each in node2.reports()] == [("volume", "node2")]
    assert not node2.is_available("volume")
    assert node2.accepts("volume"), "it may do what is asked all the same"
    await node2.close()
    other.stop()


async def test_what_was_reported_grows_older_while_kept_and_brings_its_leases_along():
    other, clock = Elsewhere("volume"), FakeClock()
    other.control.capabilities = [
        CapabilityReport(
            topic="volume", host="node2", backends={"local": {}}, reported_at=1e9, instance="1", sequence=7,
            ages={"local": 2.0}, withheld={"big": "it is stuck"}, leases={"l1": True, "l2": False},
        )
    ]  # fmt: skip
    other.start()
    node2 = peer(other, clock)
    await node2.poll()
    clock.advance(30.0)
    (kept,) = node2.reports()
    assert kept.ages == {"local": 32.0}
    assert (kept.sequence, kept.withheld, kept.leases) == (7, {"big": "it is stuck"}, {"l1": True, "l2": False})
    await node2.close()
    other.stop()


@pytest.mark.failure_mode("State", "room that was freed and is still counted")
async def test_what_was_freed_on_another_host_a_moment_ago_is_asked_for():
    other, news = Elsewhere("volume"), []
    other.control.capabilities = [report(free_bytes=0)]
    other.control.flushed = [report(free_bytes=7)]
    other.start()
    fleet = PeerSet(other.make, SystemClock(), 5.0, lambda one: news.append(one.host))
    fleet.configure({"node2": ADDRESS}, 60.0)
    await fleet.wait_first_polls(5.0)
    del news[:]
    await fleet.flush_reports(0.5)
    (known,) = fleet.reports()
    assert known.backends["local"]["free_bytes"] == 7
    assert news[:1] == ["node2"]
    other.stop()
    await asyncio.sleep(0)
    await fleet.flush_reports(0.5)
    await fleet.close()


@pytest.mark.virtual_time
async def test_a_service_is_heard_of_as_often_as_it_says_itself():
    other, loop = Elsewhere("volume"), asyncio.get_running_loop()
    other.start()
    node2 = peer(other)
    await node2.poll()
    began = loop.time()
    await node2.wait_next_poll(60)
    assert loop.time() - began == pytest.approx(60)
    other.control.change(row("volume", report_interval=2.0, down_time=8.0), row("lamp", report_interval=30.0))
    await node2.poll()
    began = loop.time()
    await node2.wait_next_poll(60)
    assert loop.time() - began == pytest.approx(2)
    await node2.close()
    other.stop()


class Refusing(Control):
    """Another daemon that may end what it tells, each time at once."""

    refuses = False

    def __init__(self, *topics):
        super().__init__("node2", *topics)
        self.follows = 0

    @exposed(role="viewer", changes=False)
    async def watch_host(self, ctx: Context) -> AsyncIterator[HostReport]:
        """Yield what is there once, and for ever or no more."""
        self.follows += 1
        yield self.report()
        if not self.refuses:
            await asyncio.Event().wait()


@pytest.mark.virtual_time
async def test_a_host_is_followed_longer_than_a_call_and_a_silent_one_is_not_pestered():
    other = Elsewhere()
    control = other.control = Refusing("volume")
    other.start(virtual_clock())
    fleet = PeerSet(other.make, virtual_clock(), 5.0)
    fleet.configure({"node2": ADDRESS}, 4.0)
    await asyncio.sleep(60)
    assert control.follows == 1
    other.stop()
    control.refuses, control.follows = True, 0
    other.start(virtual_clock())
    await asyncio.sleep(60)
    assert 10 < control.follows < 25
    await fleet.close()
    other.stop()


@pytest.mark.virtual_time
async def test_who_waits_for_all_peers_waits_for_one_try_of_each_and_no_longer_than_asked():
    there, away, silent = Elsewhere("volume"), Away(), Away()
    there.start()
    silent.hang = True
    made = {"there": there, "away": away, "silent": silent}
    fleet = PeerSet(lambda address, key: made[key].make(address, key), virtual_clock(), 5.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    there.control.host = "there"
    fleet.configure({name: PeerAddress("tcp://x:1", (name,)) for name in ("there", "away")}, 5.0)
    await fleet.wait_first_polls(1.0)
    assert loop.time() == began
    assert [fleet.peers[name].up for name in ("there", "away")] == [True, False]
    fleet.configure({name: PeerAddress("tcp://x:1", (name,)) for name in made}, 5.0)
    await fleet.wait_first_polls(1.0)
    assert loop.time() - began == pytest.approx(1.0)
    await fleet.close()
    there.stop()


@pytest.mark.virtual_time
async def test_a_peer_that_has_called_is_asked_at_once_and_one_that_is_there_is_not():
    other = Away()
    node2, fleet = await watched(other)
    other.start()
    node2.retry_now()
    began = asyncio.get_running_loop().time()
    await node2.wait_connected()
    assert asyncio.get_running_loop().time() == began
    asked = other.control.asked
    node2.retry_now()
    await asyncio.sleep(1)
    assert other.control.asked == asked
    await fleet.close()
    other.stop()


async def test_what_was_just_done_there_is_known_when_it_has_been_asked_again():
    other = Elsewhere("volume")
    other.start()
    told = []
    node2 = peer(other, on_update=told.append)
    await node2.poll()
    told.clear()
    other.control.rows = [row("volume", enabled=False)]
    await node2.refresh()
    assert not node2.accepts("volume")
    assert told == [node2]
    await node2.close()
    other.stop()
