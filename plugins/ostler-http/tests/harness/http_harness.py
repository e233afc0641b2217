"""A host with one HTTP service, applications for it, and clients that send what they are told."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading

import pytest

from ostler.testing import host
from ostler_http import Application, AppOptions
from ostler_http.problems import send_problem

TIMEOUT = 20


async def send_text(send, text, status=200, headers=()):
    body = text if isinstance(text, bytes) else text.encode()
    sent = [(b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


class EchoApp(Application):
    """Answers with what it has got."""

    started: list[str] = []
    stopped: list[str] = []

    class Options(AppOptions):
        greeting: str = "hello"

    def build(self):
        return self.handle

    async def start(self):
        self.started.append(self.options.greeting)

    async def stop(self, timeout):
        self.stopped.append(self.options.greeting)

    async def handle(self, scope, receive, send):
        if scope["type"] == "websocket":
            await self.talk(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        facts = {
            "greeting": self.options.greeting,
            "path": scope["path"],
            "root": scope["root_path"],
            "caller": scope["ostler.caller"].name,
            "role": scope["ostler.caller"].role,
            "trace": scope["ostler.trace"],
            "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
            "size": len(body),
        }
        await send_text(send, json.dumps(facts))

    async def talk(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message.get("text") or ""})


class OpenApp(EchoApp):
    """The same for everybody who can connect."""

    needs_role = False


class Blocker:
    """Holds an application until the test lets it go."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.released = threading.Event()

    def wait(self):
        self.entered.release()
        assert self.released.wait(TIMEOUT)

    def wait_until_entered(self):
        assert self.entered.acquire(timeout=TIMEOUT)


@pytest.fixture
def blocker():
    made = Blocker()
    yield made
    made.released.set()


class Web:
    """A host with one HTTP service, `web`."""

    def __init__(self, host):
        self.host = host

    def status(self):
        return self.host.call("web", "http_status")

    def address(self, number=0):
        return self.status()["addresses"][number]

    def port(self, number=0):
        return int(self.address(number).rpartition(":")[2])

    def refused(self, why):
        return self.status()["refused"].get(why, 0)

    def wait_refused(self, why, count=1):
        self.host.wait_for(lambda: self.refused(why) >= count, f"{count} refused for {why}")

    def connect(self, number=0):
        return socket.create_connection(("127.0.0.1", self.port(number)), timeout=TIMEOUT)

    def client(self, number=0):
        return contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port(number), timeout=TIMEOUT))

    def get(self, path, *, method="GET", body=None, token="", headers=None):
        """Return status, headers and body of a request on a connection of its own."""
        sent = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        with self.client() as client:
            client.request(method, path, body, sent)
            response = client.getresponse()
            return response.status, response.headers, response.read()

    def raw(self, data, number=0):
        """Send bytes, and return all that comes until the server closes the connection."""
        with self.connect(number) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
            return read_all(connection)


def read_all(connection):
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def read_until(connection, wanted):
    """Read until something has come; return all that has come until then."""
    found = b""
    while wanted not in found:
        part = connection.recv(65536)
        assert part, f"the server closed the connection; until then it sent {found!r}"
        found += part
    return found


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


DEFAULT = """
[services.web.apps."/open"]
app = "open"

[services.web.apps."/echo"]
app = "echo"
"""


def configuration(mounts=DEFAULT, options=""):
    return f'[services.web]\nmanager = "http"\n{options}\n{mounts}'


@pytest.fixture
def serve():
    """Run a service with the mounts and options given as TOML; `apps` are further registered applications."""

    @contextlib.contextmanager
    def start(mounts=DEFAULT, options="", *, apps=None, filters=None):
        extensions = {("http.app", "echo"): EchoApp, ("http.app", "open"): OpenApp}
        extensions |= {("http.app", name): app for name, app in (apps or {}).items()}
        extensions |= {("http.filter", name): cls for name, cls in (filters or {}).items()}
        config = configuration(mounts, options)
        with host(plugins=["ostler_http.plugin"], extensions=extensions, config=config) as running:
            yield Web(running)

    return start


async def raise_error(scope, receive, send):
    raise ValueError("a secret of the application")


async def refuse(scope, receive, send):
    await send_problem(scope, send, 418, "a teapot")
