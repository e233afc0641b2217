from __future__ import annotations

import asyncio

import pytest

from ostler.aio import LoopQueue, TaskOwner
from ostler.clock import SystemClock
from ostler.errors import DeadlineExceeded, LockTimeout
from ostler.locks import HostLocks
from ostler.messaging.wire.request_context import Context, serving
from ostler.store import Store


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "ostler.db", clock=SystemClock(), synchronous="OFF")
    yield opened
    opened.close(5)


class Cluster:
    """Two daemons with one database, on the loop of the test."""

    def __init__(self, store):
        queue, self.owner = LoopQueue(asyncio.get_running_loop()), TaskOwner("test")
        self.hosts = [HostLocks(name, SystemClock(), store, queue, self.owner) for name in ("node1", "node2")]
        self.one, self.two = (each.for_service("volume") for each in self.hosts)


def held_elsewhere(rows):
    return [(row.name, row.host, row.method) for row in rows if row.host == "node1"]


async def test_a_lock_of_the_cluster_excludes_the_other_daemon(store):
    cluster = Cluster(store)
    with serving(Context("volume", "clone", request_id="r1")):
        async with cluster.one.hold("a", cluster=True):
            with pytest.raises(LockTimeout, match=r"held by volume\.clone \(request r1\) on host node1 for"):
                await cluster.two.hold("a", cluster=True, timeout=0.01).__aenter__()
            async with cluster.two.hold("a", timeout=0):  # of its own host only
                pass
            assert held_elsewhere(await cluster.hosts[1].list()) == [("a", "node1", "volume.clone")]
    async with cluster.two.hold("a", cluster=True, timeout=10):
        assert [row.host for row in await cluster.hosts[0].list()] == ["node2"]
        assert await cluster.hosts[0].list("image") == []
    await cluster.owner.cancel()


async def test_threads_take_it_as_well_and_a_deadline_ends_the_wait(store):
    cluster = Cluster(store)
    context = Context("volume", "move")

    def take():
        with serving(context), cluster.two.hold("a", cluster=True):
            return [row.is_cluster for row in cluster.two.holders("a")]

    async with cluster.one.hold("a", cluster=True):
        context.deadline = SystemClock().monotonic() + 0.05
        with pytest.raises(DeadlineExceeded, match=r"volume\.move passed while it waited for lock a"):
            await asyncio.to_thread(take)
    context.deadline = None
    assert await asyncio.to_thread(take) == [True]
    await cluster.owner.cancel()


async def test_within_a_host_it_is_shared_and_freed_by_the_last(store):
    cluster = Cluster(store)
    async with cluster.one.hold("a", cluster=True, shared=True):

        async def second():
            async with cluster.one.hold("a", cluster=True, shared=True):
                pass

        await asyncio.create_task(second())
        with pytest.raises(LockTimeout):
            await cluster.two.hold("a", cluster=True, timeout=0.1).__aenter__()
    async with cluster.two.hold("a", cluster=True, timeout=10):
        pass
    await cluster.owner.cancel()


async def test_a_lock_taken_again_for_the_cluster_is_freed_with_the_first_block(store):
    cluster = Cluster(store)
    async with cluster.one.hold("a"), cluster.one.hold("a", cluster=True):
        pass
    async with cluster.two.hold("a", cluster=True, timeout=10):
        pass
    await cluster.owner.cancel()
