"""nats-py with nats-server: request and reply, and core publish and subscribe over eight connections."""

from __future__ import annotations

import asyncio
from pathlib import Path

from peer import BURST, SUBSCRIBERS, TEXT, MeasuredPeer, Tally, aconverse, aeach, agather, await_the_end, main, ready

_PAYLOAD = TEXT.encode()


def _serve(folder: Path, address: str) -> None:
    asyncio.run(_answer(address))


async def _answer(address: str) -> None:
    import nats

    connection = await nats.connect(f"nats://{address}")

    async def echo(message) -> None:
        await message.respond(message.data)

    async def burst(message) -> None:
        for _ in range(int(message.data)):
            await connection.publish("tick", _PAYLOAD)

    await connection.subscribe("echo", cb=echo)
    await connection.subscribe("burst", cb=burst)
    await connection.flush()
    ready()
    await await_the_end()
    await connection.close()


def _ask(folder: Path, address: str) -> None:
    asyncio.run(_converse(address))


async def _converse(address: str) -> None:
    import nats

    url, tally = f"nats://{address}", Tally()
    connection = await nats.connect(url)
    listeners = [await nats.connect(url) for _ in range(SUBSCRIBERS)]
    for listener in listeners:
        await listener.subscribe("tick", cb=tally.acount)
        await listener.flush()

    async def call() -> None:
        await connection.request("echo", _PAYLOAD, timeout=5)

    async def publish(count: int) -> None:
        await connection.publish("burst", b"%d" % count)

    await aconverse(
        {
            "call": lambda count: aeach(call, count),
            "flight": lambda count: agather(call, count),
            "events": lambda count: tally.adeliveries(publish, count),
        }
    )
    for each in (connection, *listeners):
        await each.close()


PEERS = [
    MeasuredPeer(
        name="nats-py", distribution="nats-py", serve=_serve, ask=_ask, program="nats-server", events=BURST,
        settings="tcp; at most once, no ack, no persistence; bytes, not typed",
    )
]  # fmt: skip

if __name__ == "__main__":
    main(PEERS)
