from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from ostler.aio import LoopQueue
from ostler.errors import OstlerError
from ostler.messaging import Access, AsyncClient, Context, Dispatcher, Endpoint, RpcServer, exposed
from ostler.testing.memory_transport import MemoryTransport
from ostler.testing.virtual_time import run_virtual, virtual_clock


class Lamp:
    @exposed(role="viewer", changes=False)
    async def watch(self, ctx: Context) -> AsyncIterator[int]:
        """Yield one item, and wait for the next for ever."""
        yield 1
        await asyncio.Event().wait()

    @exposed(role="viewer", changes=False)
    async def glow(self, ctx: Context) -> None:
        """Glow for ever."""
        await asyncio.Event().wait()


@pytest.mark.parametrize("method", ["watch", "glow"])
def test_what_a_server_cuts_off_when_it_closes_is_no_internal_error(method, caplog):
    async def main():
        transport, clock, inbox = MemoryTransport(), virtual_clock(), LoopQueue(asyncio.get_running_loop())
        dispatcher = Dispatcher(Access(own_uid=transport.peer.uid), clock, inbox, host="node1")
        dispatcher.registry.add_endpoint(Endpoint("lamp", "node1", Lamp(), None))
        server = RpcServer(transport.serve_rpc(), dispatcher, inbox)
        server.start()
        async with AsyncClient(transport=transport, clock=clock) as client:

            async def listen():
                if method == "glow":
                    await client.on(timeout=60.0).call("lamp", "glow")
                async for _ in client.on(timeout=60.0).stream("lamp", "watch"):
                    pass

            listener = asyncio.ensure_future(listen())
            await asyncio.sleep(1)
            server.close()
            with pytest.raises(OstlerError):
                await listener
            await asyncio.sleep(1)

    with caplog.at_level(logging.WARNING):
        run_virtual(main())
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
