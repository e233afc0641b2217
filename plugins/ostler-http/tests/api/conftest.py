"""A host with a service of many kinds of methods, the API mounted over it, and a client of that without a server."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import contextmanager
from urllib.parse import unquote

import msgspec
import pytest

from ostler import Busy, Conflict, Context, Durable, Manager, NotFound, exposed
from ostler.clock import SystemClock
from ostler.messaging.gateway.caller import ANONYMOUS
from ostler.testing import host
from ostler.wall_time import WallTime
from ostler_http.api.application import ApiApplication, ApiOptions
from ostler_http.application import AppEnvironment

MOUNT = "/v1"


class Lamp(msgspec.Struct):
    """A lamp.

    Attributes:
        name: Its name.
        image: How it looks.
    """

    name: str
    image: bytes = b""
    lit_at: WallTime = 0.0
    inner: list[Lamp] = []


class LampBroken(Conflict):
    """Raised when a lamp is broken."""


class LampManager(Manager):
    """Methods of many kinds."""

    journal_events = True

    def __init__(self, environment):
        super().__init__(environment)
        self.calls = []
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.released = threading.Event()

    @exposed(role="viewer", changes=False)
    async def show(self, ctx: Context, name: str, level: int = 1, tags: list[str] | None = None) -> dict:
        """Show a lamp.

        Args:
            ctx: The request.
            name: Its name.
            level: How bright.
            tags: More.
        """
        left = None if ctx.deadline is None else ctx.deadline - SystemClock().monotonic()
        return {
            "name": name, "level": level, "tags": tags, "left": left, "request_id": ctx.request_id,
            "who": ctx.peer.name, "trace": ctx.trace,
        }  # fmt: skip

    @exposed(role="viewer", changes=False)
    async def seen_by(self, ctx: Context, host: str) -> str:
        """Return from which host a lamp is seen."""
        return host

    @exposed(role="viewer", changes=False)
    async def grid(self, ctx: Context, rows: list[list[str]] = [], names: list[str] = []) -> dict:  # noqa: B006
        """Return what came."""
        return {"rows": rows, "names": names}

    @exposed()
    async def blink(self, ctx: Context) -> AsyncIterator[int]:
        """Switch a lamp on and off."""
        self.calls.append("blink")
        yield 1

    @exposed()
    def switch(self, ctx: Context, name: str, image: bytes = b"", lamp: Lamp | None = None) -> Lamp:
        """Switch a lamp on."""
        self.calls.append(name)
        return Lamp(name, image or (lamp.image if lamp else b""), 1800000000.5)

    @exposed()
    def fail(self, ctx: Context, kind: str) -> None:
        """Fail in one of several ways."""
        if kind == "missing":
            raise NotFound("lamp x not found", hint="see `ostler lamp list`", lamp="x", since=1800000000.0)
        if kind == "busy":
            raise Busy("too many lamps", retry_after=2.4)
        if kind == "own":
            raise LampBroken("the lamp is broken", lamp="x")
        raise ValueError("a secret of the inside")

    @exposed(role="viewer", changes=False)
    async def wait(self, ctx: Context) -> None:
        """Wait until the caller leaves."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @exposed(role="viewer", changes=False)
    async def count(self, ctx: Context, to: int, fail: bool = False) -> AsyncIterator[int]:
        """Yield numbers."""
        for number in range(to):
            yield number
        if fail:
            raise NotFound("there is no more")

    @exposed(role="viewer", changes=False)
    async def tick(self, ctx: Context) -> AsyncIterator[int]:
        """Yield once, and then nothing until the reader leaves."""
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    @exposed()
    async def slowly(self, ctx: Context, steps: int) -> str:
        """Report progress."""
        for step in range(steps):
            ctx.progress(step, steps, f"step {step}")
        return "done"

    @exposed(durable=Durable(on_restart="retry"))
    def build(self, ctx: Context, name: str) -> str:
        """Build a lamp, as an operation."""
        self.calls.append(name)
        return f"{name} is built"

    @exposed(durable=Durable(on_restart="retry"))
    def hold(self, ctx: Context) -> str:
        """Wait until it is released."""
        self.released.wait(10)
        return "released"

    @exposed(role="admin")
    async def destroy(self, ctx: Context) -> None:
        """Destroy all lamps."""

    @exposed()
    async def tell(self, ctx: Context, name: str, times: int = 1) -> None:
        """Publish events."""
        for _ in range(times):
            self.client.publish(name, {"lamp": name})


class Reply:
    """A whole response."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Exchange:
    """One request and what is answered, piece by piece."""

    def __init__(self, api, scope, body):
        self._api = api
        self.incoming = asyncio.Queue()
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self.outgoing = asyncio.Queue()
        self.status, self.headers, self.text = 0, {}, ""
        self.task = asyncio.ensure_future(api(scope, self.incoming.get, self.outgoing.put))

    def leave(self):
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def next(self):
        """Return the next message of the application, None at the end."""
        getting = asyncio.ensure_future(self.outgoing.get())
        await asyncio.wait({getting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            getting.cancel()
            self.task.result()
            return None if self.outgoing.empty() else self.outgoing.get_nowait()
        return getting.result()

    async def head(self):
        message = await self.next()
        assert message is not None
        assert message["type"] == "http.response.start", message
        self.status = message["status"]
        self.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}

    async def frame(self):
        """Return the next server-sent event as (event, data, id), or the next line of NDJSON; None at the end."""
        is_events = self.headers["content-type"] == "text/event-stream"
        mark = "\n\n" if is_events else "\n"
        while True:
            while mark in self.text:
                block, _, self.text = self.text.partition(mark)
                if not is_events:
                    if block:
                        return json.loads(block)
                    continue
                fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
                if "event" in fields:
                    return fields["event"], json.loads(fields["data"]), fields.get("id", "")
            message = await self.next()
            if message is None:
                return None
            self.text += message["body"].decode()

    async def frames(self):
        found = []
        while (frame := await self.frame()) is not None:
            found.append(frame)
        return found


class Api:
    """The application, called on a loop of its own thread as a server would."""

    def __init__(self, running, options):
        self.host = running
        log = logging.LoggerAdapter(logging.getLogger("test"), {})
        environment = AppEnvironment(
            topic="web",
            host="testhost",
            mount=MOUNT,
            gateway=running.gateway,
            client=None,
            log=log,
            clock=SystemClock(),
        )
        self.application = ApiApplication(environment, ApiOptions(app="api", **options))
        self.call = self.application.build()
        self.role = "admin"

    def scope(self, method, path, headers=(), role=None, query=None):
        role = role or self.role
        caller = ANONYMOUS if role == "anonymous" else self.host.caller(role)
        path, _, inline = path.partition("?")
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
        return {
            "type": "http", "method": method, "path": unquote(MOUNT + path), "root_path": MOUNT,
            "raw_path": (MOUNT + path).encode(), "query_string": (query or inline).encode(),
            "headers": [(name.encode(), value.encode()) for name, value in pairs],
            "ostler.caller": caller, "ostler.request_id": "r-1", "ostler.trace": dict(pairs).get("traceparent", ""),
        }  # fmt: skip

    def open(self, method, path, body=None, headers=(), **more):
        """Return an exchange; on a loop. Headers are a mapping or pairs."""
        headers = list(headers.items()) if isinstance(headers, dict) else list(headers)
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        if raw and "content-type" not in dict(headers):
            headers.append(("content-type", "application/json"))
        return Exchange(self.call, self.scope(method, path, headers, **more), raw)

    def exchange(self, scope):
        """Return an exchange without a body; on a loop."""
        return Exchange(self.call, scope, b"")

    def request(self, method, path, body=None, headers=(), **more):
        """Make a request and return the whole response."""

        async def exchange():
            opened = self.open(method, path, body, headers, **more)
            await opened.head()
            pieces = []
            while (message := await opened.next()) is not None:
                pieces.append(message["body"])
            await opened.task
            return Reply(opened.status, opened.headers, b"".join(pieces))

        return run(exchange())

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body, **more)


def run(work, timeout=20):
    """Run a coroutine on a loop of its own."""

    async def bounded():
        async with asyncio.timeout(timeout):
            return await work

    return asyncio.run(bounded())


@contextmanager
def running_api(**options):
    config = '[services.lamp]\nmanager = "lamp"\n'
    with host(config=config, managers={"lamp": LampManager}) as running:
        yield Api(running, options)


@pytest.fixture
def api():
    with running_api() as found:
        yield found


@pytest.fixture
def make_api():
    return running_api


@pytest.fixture(name="run")
def run_fixture():
    return run


class Connection(http.client.HTTPConnection):
    """A connection over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Site:
    """A real daemon and its API, over the unix socket `web.sock` of its root."""

    def __init__(self, daemon):
        self.daemon = daemon

    def connect(self):
        return Connection(self.daemon.root / "web.sock")

    def open(self, method, path, body=None, **headers):
        connection = self.connect()
        raw = None if body is None else json.dumps(body)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(
            method, f"/v1{path}", raw, {**({"Content-Type": "application/json"} if body is not None else {}), **names}
        )
        return connection, connection.getresponse()

    def __call__(self, method, path, body=None, **headers):
        connection, reply = self.open(method, path, body, **headers)
        found = reply.read()
        connection.close()
        return reply.status, json.loads(found) if found else None, reply.headers


@pytest.fixture(scope="session")
def make_site():
    return Site
