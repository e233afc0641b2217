import asyncio

import pytest

from ostler.aio import Inbox
from ostler.clock import FakeClock, SystemClock
from ostler.errors import Conflict, ConnectionLost, NotRunning, TargetNotFound
from ostler.messaging import Access, Context, Dispatcher, Endpoint, RpcServer, exposed
from ostler.messaging.memory import MemoryTransport
from ostler.messaging.peers import Fleet, PeerAddress, PeerDaemon
from ostler.types import CONTROL_TOPIC, DaemonStatus, HostIdentity, MethodDescription, ServiceState, ServiceStatus

ADDRESS = PeerAddress("tcp://node2:7890", ("key",))


class Control:
    """The control topic of another daemon."""

    rpc_version = "1.0"

    def __init__(self, host="node2", *topics):
        self.host = host
        self.rows = [row(topic, host) for topic in topics]

    @exposed(role="viewer", changes=False)
    async def status(self, ctx: Context) -> DaemonStatus:
        """Return what is there."""
        return DaemonStatus(
            host=self.host, version="1", pid=1, state=ServiceState.UP, since=0.0, started=0.0, services=self.rows
        )

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

    def start(self):
        inbox = Inbox(asyncio.get_running_loop())
        dispatcher = Dispatcher(Access(), SystemClock(), inbox, host=self.control.host)
        dispatcher.add_endpoint(Endpoint(CONTROL_TOPIC, self.control.host, self.control, None))
        self.server = RpcServer(self.transport.serve_rpc(), dispatcher, inbox)
        self.server.start()

    def stop(self):
        self.server.close()


def peer(other, clock=None):
    return PeerDaemon("node2", ADDRESS, other.make, clock or FakeClock(), 5.0)


def test_a_peer_is_away_until_it_has_answered_and_known_by_its_services_then():
    async def main():
        other = Elsewhere("volume", "image")
        failed = row("fan", state=ServiceState.FAILED)
        other.control.rows += [row("volume", "node3"), row("lamp", enabled=False), failed]
        clock = FakeClock()
        node2 = peer(other, clock)
        assert not node2.up
        with pytest.raises(NotRunning):
            await node2.look()
        clock.advance(7)
        assert "node2 cannot be reached for 7 s" in str(node2.away())
        other.start()
        rows = await node2.look()
        assert [each.topic for each in rows] == ["volume", "image", "lamp", "fan"]
        assert node2.up
        assert [topic for topic in ("volume", "lamp", "fan", "nothing") if node2.takes(topic)] == ["volume"]
        assert node2.has("lamp")
        await node2.close()
        other.stop()

    asyncio.run(main())


def test_a_daemon_with_another_name_is_none_of_ours():
    async def main():
        other = Elsewhere(host="node7")
        other.start()
        node2 = peer(other)
        with pytest.raises(Conflict, match=r"is node2 in \[network.peers\], and the daemon there is node7"):
            await node2.look()
        assert not node2.up
        await node2.close()
        other.stop()

    asyncio.run(main())


def test_a_link_that_is_lost_is_known_at_once_and_wakes_who_waits_to_ask_again():
    async def main():
        other = Elsewhere("volume")
        other.start()
        node2 = peer(other)
        await node2.look()
        waiting = asyncio.create_task(node2.rest(3600))
        await asyncio.sleep(0)
        other.stop()
        await asyncio.wait_for(waiting, 5)
        assert not node2.up
        assert not node2.takes("volume")
        await node2.close()

    asyncio.run(main())


def test_a_method_there_is_asked_for_its_role_and_its_secrets():
    async def main():
        other = Elsewhere("volume")
        other.start()
        node2 = peer(other)
        assert (await node2.describe("volume", "create")).role == "operator"
        with pytest.raises(TargetNotFound, match="did you mean 'create'"):
            await node2.describe("volume", "creates")
        await node2.close()
        other.stop()

    asyncio.run(main())


def test_a_fleet_tells_of_services_and_finds_a_peer_again():
    async def main():
        other, seen = Elsewhere("volume"), asyncio.Queue()
        fleet = Fleet(other.make, SystemClock(), 5.0, lambda host, rows: seen.put_nowait((host, rows)))
        fleet.set({"node2": ADDRESS}, 0.05)
        other.start()
        host, rows = await asyncio.wait_for(seen.get(), 5)
        assert (host, rows[0].topic) == ("node2", "volume")
        assert [each.host for each in fleet.members("volume")] == ["node2"]
        assert fleet.stats()["node2"]["up"] is True
        other.stop()
        other.start()
        while not seen.empty():
            seen.get_nowait()
        await asyncio.wait_for(seen.get(), 5)
        before = fleet.peers["node2"]
        fleet.set({"node2": ADDRESS}, 0.05)
        assert fleet.peers["node2"] is before, "its link stays"
        fleet.renew()
        assert fleet.peers["node2"] is not before
        fleet.set({}, 0.05)
        assert fleet.members("volume") == []
        await fleet.close()
        other.stop()

    asyncio.run(main())


def test_calls_under_way_to_a_peer_that_goes_are_told():
    async def main():
        other = Elsewhere("volume")
        other.start()
        node2 = peer(other)
        await node2.look()
        calls = [asyncio.create_task(node2.client.call(CONTROL_TOPIC, "status")) for _ in range(3)]
        await asyncio.gather(*calls)
        other.stop()
        with pytest.raises((NotRunning, ConnectionLost)):
            await node2.client.call(CONTROL_TOPIC, "status")
        await node2.close()

    asyncio.run(main())


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


def test_what_becomes_of_a_peer_is_told_with_why():
    async def main():
        told = []
        other = Elsewhere("volume")
        node2 = PeerDaemon(
            "node2", ADDRESS, other.make, FakeClock(), 5.0, lambda host, state, why, _: told.append((host, state, why))
        )
        with pytest.raises(NotRunning):
            await node2.look()
        other.start()
        await node2.look()
        other.control.host = "node7"
        with pytest.raises(Conflict):
            await node2.look()
        assert [each[:2] for each in told] == [("node2", "lost"), ("node2", "back"), ("node2", "refused")]
        assert "the daemon there is node7" in told[2][2]
        await node2.close()
        other.stop()

    asyncio.run(main())


def test_a_link_begins_with_who_both_are_once():
    async def main():
        other = Elsewhere()
        other.control = Named(HostIdentity(name="node2", machine="m2", boot="b2", instance="i2"))
        other.start()
        node2 = peer(other)
        node2.mine = MINE
        await node2.look()
        await node2.look()
        assert other.control.greeted == [("node1", "i1")]
        assert node2.identity == other.control.identity
        await node2.close()
        other.stop()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (HostIdentity(name="node1", machine="m2", boot="b2"), "two hosts are named node1"),
        (HostIdentity(name="node2", machine="m1", boot="b2"), "node2 has the machine id of node1"),
    ],
)
def test_a_peer_with_our_name_or_machine_is_refused_and_that_is_logged_once(found, why, caplog):
    async def main():
        other = Elsewhere()
        other.control = Named(found)
        other.start()
        node2 = peer(other)
        node2.mine = MINE
        for _ in range(2):
            with pytest.raises(Conflict, match=why):
                await node2.look()
        assert not node2.up
        assert why in node2.away().message
        await node2.close()
        other.stop()

    asyncio.run(main())
    assert caplog.text.count("node2 cannot be reached") == 1


def test_one_of_an_earlier_version_is_not_asked_who_it_is():
    async def main():
        other = Elsewhere("volume")
        other.start()
        node2 = peer(other)
        node2.mine = MINE
        await node2.look()
        assert node2.up
        assert node2.identity is None
        await node2.close()
        other.stop()

    asyncio.run(main())
