import asyncio

import pytest

from ostler.aio import Inbox
from ostler.clock import FakeClock, SystemClock
from ostler.errors import Conflict, ConnectionLost, NotRunning, TargetNotFound
from ostler.messaging import Access, Context, Dispatcher, Endpoint, RpcServer, exposed
from ostler.messaging.memory import MemoryTransport
from ostler.messaging.peers import Fleet, PeerAddress, PeerDaemon
from ostler.testing.virtual_time import run_virtual, virtual_clock
from ostler.types import CONTROL_TOPIC, DaemonStatus, MethodDescription, ServiceState, ServiceStatus

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
    fleet = Fleet(other.make, virtual_clock(), 5.0)
    fleet.set({"node2": ADDRESS}, 5.0)
    while len(other.tries) < 8:
        await asyncio.sleep(1)
    await asyncio.sleep(1)
    other.tries.clear()
    return fleet.peers["node2"], fleet


def test_a_call_to_a_peer_that_has_just_come_does_not_fail_because_the_last_try_did():
    async def main():
        other = Away()
        node2, fleet = await watched(other)
        other.start()
        asked = asyncio.get_running_loop().time()
        assert await node2.reach(None) == 0.0
        assert other.tries == [asked]
        assert node2.up
        await fleet.close()
        other.stop()

    run_virtual(main())


def test_who_calls_a_peer_that_is_away_is_told_the_outcome_of_one_try():
    async def main():
        other = Away()
        node2, fleet = await watched(other)
        for _ in range(3):
            with pytest.raises(NotRunning, match="node2 cannot be reached"):
                await node2.reach(None)
        assert len(other.tries) == 3
        await fleet.close()

    run_virtual(main())


def test_thousands_who_wait_for_a_peer_have_it_tried_four_times_a_second_and_one_at_a_time():
    async def main():
        other, loop = Away(), asyncio.get_running_loop()
        node2, fleet = await watched(other)

        async def insist(until):
            while loop.time() < until:
                with pytest.raises(NotRunning):
                    await node2.reach(None)

        began = loop.time()
        await asyncio.gather(*(insist(began + 3) for _ in range(2000)))
        assert len(other.tries) <= 14
        assert all(after - before >= 0.249 for before, after in zip(other.tries, other.tries[1:], strict=False))
        await fleet.close()

    run_virtual(main())


def test_the_wait_for_a_peer_that_does_not_even_refuse_is_bounded_by_less_than_a_second_and_by_the_callers_time():
    async def main():
        other, loop = Away(), asyncio.get_running_loop()
        node2, fleet = await watched(other)
        other.hang = True
        for patience, seconds in ((None, 0.75), (60.0, 0.75), (0.2, 0.2)):
            began = loop.time()
            with pytest.raises(NotRunning):
                await node2.reach(patience)
            assert loop.time() - began == pytest.approx(seconds, abs=0.01)
        assert len(other.tries) == 1, "the next one begins when this one has ended"
        await fleet.close()

    run_virtual(main())


def test_a_try_that_was_under_way_when_somebody_called_counts_only_if_it_reaches_the_peer():
    async def main():
        other = Away()
        node2, fleet = await watched(other)
        other.hang = True
        first = asyncio.create_task(node2.reach(None))
        await asyncio.sleep(0.5)
        assert len(other.tries) == 1
        second = asyncio.create_task(node2.reach(None))
        await asyncio.sleep(0)
        node2.client._lost(NotRunning("refused"))  # how the link of the first try would tell it
        other.hang = False
        other.start()
        with pytest.raises(NotRunning):
            await first
        assert await second < 0.1
        await fleet.close()
        other.stop()

    run_virtual(main())
