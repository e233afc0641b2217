"""Plain HTTP with JSON over a unix socket, server and client by aiohttp. It has no publish/subscribe."""

from __future__ import annotations

import asyncio
from pathlib import Path

from peer import TEXT, MeasuredPeer, aconverse, aeach, agather, await_the_end, main, ready


def _serve(folder: Path, address: str) -> None:
    asyncio.run(_answer(folder))


async def _answer(folder: Path) -> None:
    from aiohttp import web

    async def echo(request):
        return web.json_response(await request.json())

    application = web.Application()
    application.router.add_post("/echo", echo)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "http.sock")).start()
    ready()
    await await_the_end()
    await runner.cleanup()


def _ask(folder: Path, address: str) -> None:
    asyncio.run(_converse(folder))


async def _converse(folder: Path) -> None:
    import aiohttp

    connector = aiohttp.UnixConnector(str(folder / "http.sock"))
    async with aiohttp.ClientSession("http://bench", connector=connector) as session:

        async def call() -> None:
            async with session.post("/echo", json={"text": TEXT}) as answer:
                await answer.json()

        await aconverse({"call": lambda count: aeach(call, count), "flight": lambda count: agather(call, count)})


PEERS = [
    MeasuredPeer(
        name="HTTP, aiohttp", distribution="aiohttp", serve=_serve, ask=_ask,
        settings="unix socket; JSON, connections kept; no pub/sub",
    )
]  # fmt: skip

if __name__ == "__main__":
    main(PEERS)
