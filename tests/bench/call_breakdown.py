"""Where the time of one call goes, room by room: each step by itself, in one process, hot.

What stands beside these in a real call is the kernel: two messages over a socket, and waking up whoever waits for them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import timeit
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from rows import FigureRow

from ostler import Context, exposed
from ostler.aio import LoopQueue, WorkerPool
from ostler.clock import SystemClock
from ostler.messaging import Access, Dispatcher, Endpoint, RpcServer
from ostler.messaging.clients.client_core import ClientCore
from ostler.messaging.rpc import eager_start
from ostler.messaging.rpc.rpc_server import WireCall
from ostler.messaging.unix.protocol import ZmtpConnection, encode_frame, greeting
from ostler.messaging.wire.envelope import (
    PROTOCOL_VERSION,
    Request,
    decode_to_server,
    encode_message,
    encode_reply,
    encode_request,
)
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import set_current_context
from ostler.messaging.wire.transport import ServerHandler
from ostler.types import Peer

_TEXT = "x" * 32


class EchoService:
    """What is called."""

    @exposed(changes=False)
    async def echo(self, ctx: Context, text: str) -> str:
        """Return the text."""
        return text


class NullLink:
    """A server's end that goes nowhere."""

    address = "nowhere"
    can_send_from_thread = False
    is_core_free = True

    def start(self, handler: ServerHandler) -> None:
        self.receive = handler.on_message

    def send(self, client: object, data: bytes) -> bool:
        return True

    def is_congested(self, client: object) -> bool:
        """See `ServerLink.congested`."""
        return False

    def memory_account(self, client: object) -> None:
        """See `ServerLink.memory`."""

    def report_invalid(self, client: object) -> None:
        """See `ServerLink.garbage`."""

    def cork(self) -> None:
        pass

    def uncork(self) -> None:
        pass


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Time each step; rows without a budget, in microseconds."""
    number = 2000 if quick else 20_000
    found: dict[str, float] = {}

    async def main() -> None:
        steps = _CallSteps()
        done = asyncio.get_running_loop().create_future()

        def run() -> None:  # as the server does: from a callback, and not from within a task
            for name, step in steps.all().items():
                found[name] = 1e6 * min(timeit.repeat(step, number=number, repeat=5)) / number
            done.set_result(None)

        asyncio.get_running_loop().call_soon(run)
        await done
        steps.close()

    asyncio.run(main())
    return [FigureRow(name=f"one call: {name}", value=value, unit="us") for name, value in found.items()]


class _CallSteps:
    """The steps of one call, with all that they need."""

    def __init__(self) -> None:
        self.clock, loop = SystemClock(), asyncio.get_running_loop()
        self.access, self.peer = Access(), Peer(os.getuid(), 0, 1, "uid")
        dispatcher = Dispatcher(self.access, self.clock, LoopQueue(loop), host="here")
        self.endpoint = Endpoint("echo", "here", EchoService(), WorkerPool("echo", 1))
        dispatcher.registry.add_endpoint(self.endpoint)
        self.link, self.loop = NullLink(), loop
        self.server = RpcServer(self.link, dispatcher, LoopQueue(loop))
        self.server.start()
        self.core = ClientCore(self.clock)
        self.ends = socket.socketpair()
        self.request = encode_request(Request(PROTOCOL_VERSION, 5, "echo", "echo", {"text": _TEXT}, 60.0, "abcdef01-5"))
        self.talk = ZmtpConnection(frozenset({b"DEALER"}), 1_000_000)
        self.talk.receive_data(greeting(b"DEALER"))

    def close(self) -> None:
        for end in self.ends:
            end.close()

    def all(self) -> dict[str, Callable[[], object]]:
        method = self.endpoint.methods["echo"]
        message = decode_to_server(self.request)
        context = Context("echo", "echo")
        echo, framed = EchoService(), encode_frame(self.request)
        owner = SimpleNamespace(
            enter_context=lambda: set_current_context(context), task_name=str, on_work_done=lambda result, error: None
        )
        return {
            "client: number, deadline, request, encode, and the answer": self._client,
            "socket: send and receive, once": self._socket,
            "zmtp: frame and take apart": lambda: (encode_frame(self.request), self.talk.receive_data(framed)),
            "server: all of it, from bytes to bytes": lambda: self.link.receive(1, self.request, self.peer),
            "server: of that, decode the envelope": lambda: decode_to_server(self.request),
            "server: of that, the role": lambda: self.access.role_of(self.peer),
            "server: of that, call and context": lambda: WireCall(message, self.peer, 1, self.server),
            "server: of that, decode and check the arguments": lambda: method.signature.decode(message.arguments),
            "server: of that, run the first step": lambda: eager_start.start_eagerly(
                echo.echo(context, _TEXT), self.loop, owner
            ),
            "server: of that, encode the reply": lambda: encode_reply(5, _TEXT, 1_000_000, "echo", "echo"),
            "server: of that, count it": lambda: method.stats.record_latency(2e-5),
        }

    def _client(self) -> None:
        pending, _ = self.core.start_call(
            CallRequest("echo", "echo", {"text": _TEXT}, result_type=str), lambda value, error: None
        )
        self.core.receive(encode_message([10, 1, pending.number, _TEXT]))

    def _socket(self) -> None:
        self.ends[0].send(self.request)
        self.ends[1].recv(65536)
