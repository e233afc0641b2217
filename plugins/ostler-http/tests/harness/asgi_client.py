"""Applications without a server: a fake gateway, and requests as the server hands them over."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import msgspec

from ostler import Caller, Peer, Role
from ostler.testing import FakeClock
from ostler_http import AppEnvironment

ANONYMOUS = Caller("anonymous", None, Peer(name="anonymous"))
VIEWER = Caller("token:prom", Role.VIEWER, Peer(name="token:prom"))
DAEMON = Caller("uid 0", Role.ADMIN, Peer(0, 0, 1, "uid 0"))


class FakeGateway:
    """Answers calls with what the test has set by method, or raises it; records who asked for what."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, str]] = []
        self.timeouts: list[float] = []
        self.released = asyncio.Event()
        self.released.set()

    def caller_of_user(self, uid: int, gid: int, pid: int) -> Caller:
        return DAEMON

    def client(self, caller: Caller) -> Any:
        async def call(topic: str, method: str, *, timeout: float, result_type: Any = Any, **_options: Any) -> Any:
            assert topic == "ostler"
            self.calls.append((caller.name, method))
            self.timeouts.append(timeout)
            await self.released.wait()
            answer = self.answers[method]
            if isinstance(answer, Exception):
                raise answer
            return msgspec.convert(answer, result_type)

        return SimpleNamespace(call=call)


class AsgiClient:
    """Sends requests to an application.

    Args:
        application: The class of the application.
        gateway: What it asks.
        options: Its options.
    """

    def __init__(self, application: Any, gateway: FakeGateway, **options: Any) -> None:
        self.clock = FakeClock()
        environment = AppEnvironment(
            topic="web", host="node1", mount="/m", gateway=gateway, client=None, clock=self.clock,
            log=logging.LoggerAdapter(logging.getLogger("ostler.service.web")),
        )  # fmt: skip
        self.application = application(environment, application.Options(app="x", **options))
        self._app = self.application.build()
        self.may_send = asyncio.Event()
        """Cleared for clients that do not read."""
        self.may_send.set()

    async def request(
        self, path: str = "", *, method: str = "GET", caller: Caller = VIEWER, kind: str = "http", **headers: str
    ) -> SimpleNamespace:
        """Return status, headers and body of a response; underscores in names of headers stand for dashes."""
        target, _, query = path.partition("?")
        scope = {
            "type": kind, "method": method, "path": f"/m{target}", "root_path": "/m", "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "ostler.caller": caller, "ostler.request_id": "r1", "ostler.trace": "",
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            await self.may_send.wait()
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        await self._app(scope, receive, send)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return SimpleNamespace(status=sent[0]["status"], headers=found, body=body, text=body.decode("utf-8", "replace"))
