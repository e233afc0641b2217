"""Each transport that can lists who is connected, for `ostler dump`."""

import os

from ostler.messaging import Context, exposed
from ostler.messaging.wire.transport import SupportsPeers
from ostler.testing.memory_transport import MemoryTransport
from support.waiting import until


class Clerk:
    @exposed(role="viewer")
    async def echo(self, ctx: Context) -> None:
        """Do nothing."""


async def test_who_is_connected_is_listed_until_it_leaves(world_of):
    async with world_of() as world:
        links = (world.server.link, world.publisher.link)
        if isinstance(world.transport, MemoryTransport):  # it has no connections, and does not say that it lists them
            assert not any(isinstance(link, SupportsPeers) for link in links)
            return
        assert all(isinstance(link, SupportsPeers) for link in links)
        name = "key:me" if world.uid < 0 else f"uid {os.geteuid()}"
        world.add("clerk", Clerk())
        client = world.client()
        async with client.events() as events:
            await events
            await client.call("clerk", "echo")
            assert [[peer.name for peer in link.peers()] for link in links] == [[name], [name]]
        await client.close()
        await until(lambda: not any(link.peers() for link in links))
