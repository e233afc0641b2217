"""D-Bus by dbus-fast over a private dbus-daemon: a method, and a signal to eight connections."""

import asyncio
from pathlib import Path

from peer import SUBSCRIBERS, TEXT, MeasuredPeer, Tally, aconverse, aeach, agather, await_the_end, main, ready

_NAME, _PATH = "org.ostler.Bench", "/org/ostler/Bench"


def _serve(folder: Path, address: str) -> None:
    asyncio.run(_answer(address))


async def _answer(address: str) -> None:
    from dbus_fast.aio import MessageBus
    from dbus_fast.service import ServiceInterface, dbus_method, dbus_signal

    class Echo(ServiceInterface):
        def __init__(self) -> None:
            super().__init__(_NAME)

        @dbus_method()
        def Echo(self, text: "s") -> "s":  # noqa: F821 - the annotations are D-Bus signatures
            return text

        @dbus_method()
        def Burst(self, count: "u"):  # noqa: F821
            for _ in range(count):
                self.Tick()

        @dbus_signal()
        def Tick(self) -> "s":  # noqa: F821
            return TEXT

    bus = await MessageBus(bus_address=address).connect()
    bus.export(_PATH, Echo())
    await bus.request_name(_NAME)
    ready()
    await await_the_end()
    bus.disconnect()


def _ask(folder: Path, address: str) -> None:
    asyncio.run(_converse(address))


async def _converse(address: str) -> None:
    tally = Tally()
    echo = await _interface(address)
    for _ in range(SUBSCRIBERS):
        (await _interface(address)).on_tick(tally.count)
    await aconverse(
        {
            "call": lambda count: aeach(lambda: echo.call_echo(TEXT), count),
            "flight": lambda count: agather(lambda: echo.call_echo(TEXT), count),
            "events": lambda count: tally.adeliveries(echo.call_burst, count),
        }
    )


async def _interface(address: str):
    from dbus_fast.aio import MessageBus

    bus = await MessageBus(bus_address=address).connect()
    described = await bus.introspect(_NAME, _PATH)
    return bus.get_proxy_object(_NAME, _PATH, described).get_interface(_NAME)


PEERS = [
    MeasuredPeer(
        name="D-Bus, dbus-fast", distribution="dbus-fast", serve=_serve, ask=_ask, program="dbus-daemon", events=100,
        settings="unix socket; private dbus-daemon; events: signals, 100 at once, as more break the connection",
    )
]  # fmt: skip

if __name__ == "__main__":
    main(PEERS)
