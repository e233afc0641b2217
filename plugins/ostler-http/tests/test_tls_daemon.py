"""TLS and client certificates in the real daemon: who a certificate is, what it may do, what a reload does."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import os
import ssl

import pytest
import trustme
from daemon_process import DaemonProcess

APP = """
async def hello(scope, receive, send):
    caller = scope["ostler.caller"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{caller.name} {caller.role}".encode()})
"""
CONFIG = """
[access]
operator = ["cert:alice"]

[services.web]
manager = "http"

[services.web.tls]
certificate = "{root}/cert.pem"
key = { file = "{root}/key.pem" }
client_ca = "{root}/ca.pem"

[services.web.apps."/"]
app = "hello_app:hello"

[services.web.apps."/v1"]
app = "api"
"""


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


def issue(daemon, ca, **arguments):
    issued = ca.issue_cert("localhost", **arguments)
    issued.cert_chain_pems[0].write_to_path(str(daemon.root / "cert.pem"))
    key = daemon.root / "key.pem"
    key.touch(0o600)
    issued.private_key_pem.write_to_path(str(key))


@pytest.fixture
def daemon(ca):
    made = DaemonProcess(CONFIG)
    with contextlib.closing(made):
        (made.root / "hello_app.py").write_text(APP)
        made.environ["PYTHONPATH"] = os.pathsep.join([made.environ["PYTHONPATH"], str(made.root)])
        (made.root / "ca.pem").write_bytes(ca.cert_pem.bytes())
        issue(made, ca)
        yield made.start()


@contextlib.contextmanager
def client(daemon, ca, name=""):
    address = daemon.command("http", "address", "web").stdout.strip()
    assert address.startswith("https://127.0.0.1:")
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if name:
        ca.issue_cert(common_name=name).configure_cert(context)
    made = http.client.HTTPSConnection("localhost", int(address.rpartition(":")[2]), timeout=20, context=context)
    with contextlib.closing(made):
        yield made


def ask(connection, path="/", method="GET"):
    connection.request(method, path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_a_certificate_has_the_role_that_the_configuration_gives_it(daemon, ca):
    with client(daemon, ca, "alice") as alice:
        assert ask(alice) == (200, "cert:alice operator")
        assert ask(alice, "/v1/reload", "POST")[0] == 403
    with client(daemon, ca, "bob") as bob:
        assert ask(bob)[0] == 403
    with client(daemon, ca) as nobody:
        assert ask(nobody)[0] == 401
    refused = [row for row in daemon.json("audit") if row["key"] == "cert:alice"]
    assert [row["method"] for row in refused] == ["reload"]


def test_a_reload_replaces_certificate_and_roles_and_keeps_the_connection(daemon, ca):
    with client(daemon, ca, "bob") as bob:
        assert ask(bob)[0] == 403
        before = bob.sock.getsockname(), bob.sock.getpeercert()["serialNumber"]
        issue(daemon, ca)
        daemon.configure(CONFIG.replace("cert:alice", "cert:bob"))
        daemon.command("reload")
        assert ask(bob) == (200, "cert:bob operator")
        assert bob.sock.getsockname() == before[0]
        with client(daemon, ca, "alice") as alice:
            assert ask(alice)[0] == 403
            assert alice.sock.getpeercert()["serialNumber"] != before[1]


def test_an_expired_certificate_is_refused_with_its_line_and_nothing_changes(daemon, ca):
    now = dt.datetime.now(tz=dt.UTC)
    issue(daemon, ca, not_before=now - dt.timedelta(days=9), not_after=now - dt.timedelta(days=1))
    said = daemon.command("reload", check=78).stderr
    assert "ostler.toml:9:15: services.web.tls.certificate: " in said
    assert "has expired" in said
    with client(daemon, ca, "alice") as alice:
        assert ask(alice)[0] == 200
