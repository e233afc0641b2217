"""gRPC: an asyncio server, the plain client one at a time, the asyncio client in flight. It has no pub/sub."""

from __future__ import annotations

import asyncio
from pathlib import Path

from peer import TEXT, MeasuredPeer, aconverse, agather, await_the_end, each, main, ready


def _generated():
    import grpc

    # grpcio-tools compiles echo.proto, which stands beside this script and so on the path.
    return grpc.protos_and_services("echo.proto")


def _serve(folder: Path, address: str) -> None:
    asyncio.run(_answer(folder, address))


async def _answer(folder: Path, address: str) -> None:
    import grpc

    protos, services = _generated()

    class Echo(services.EchoServicer):
        async def Say(self, request, context):
            return protos.Text(text=request.text)

    server = grpc.aio.server()
    services.add_EchoServicer_to_server(Echo(), server)
    if address:
        server.add_insecure_port(address)
    else:
        server.add_insecure_port(f"unix:{folder}/grpc.sock")
    await server.start()
    ready()
    await await_the_end()
    await server.stop(0)


def _ask(folder: Path, address: str) -> None:
    asyncio.run(_converse(address or f"unix:{folder}/grpc.sock"))


async def _converse(address: str) -> None:
    import grpc

    protos, services = _generated()
    with grpc.insecure_channel(address) as channel:
        async with grpc.aio.insecure_channel(address) as achannel:
            stub, astub = services.EchoStub(channel), services.EchoStub(achannel)
            await aconverse(
                {
                    "call": lambda count: each(lambda: stub.Say(protos.Text(text=TEXT)), count),
                    "flight": lambda count: agather(lambda: astub.Say(protos.Text(text=TEXT)), count),
                }
            )


PEERS = [
    MeasuredPeer(
        name="gRPC, tcp", distribution="grpcio", serve=_serve, ask=_ask, program="free port",
        settings="tcp without TLS; asyncio server; no pub/sub",
    ),
    MeasuredPeer(
        name="gRPC, unix", distribution="grpcio", serve=_serve, ask=_ask,
        settings="unix socket; asyncio server; no pub/sub",
    ),
]  # fmt: skip

if __name__ == "__main__":
    main(PEERS)
