"""A real daemon with its API behind TLS, and the command that reaches it there or over its socket."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from daemon_process import HERE, DaemonProcess

from ostler import Client
from ostler.cli.command_line import run_command
from ostler.cli.http_client.address import HttpDaemon, find_http_daemon
from ostler.cli.http_client.client import HttpClient

HARNESS = Path(__file__).resolve().parent.parent / "harness"
CONFIG = """
[daemon]
host = "node1"

[access]
viewer = ["cert:ann"]

[services.lamp]
manager = "command_manager:CommandManager"

[services.volume]
manager = "volume"
scheduler = ""

[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"

[services.web]
manager = "http"
listen = ["127.0.0.1:0"]

[services.web.tls]
certificate = "{root}/server.pem"
key = { file = "{root}/server.key" }
client_ca = "{root}/ca.pem"

[services.web.apps."/v1"]
app = "api"

[services.plain]
manager = "http"
listen = ["127.0.0.1:0"]

[services.plain.apps."/v1"]
app = "api"
"""


class CommandResult(NamedTuple):
    code: int
    out: str
    err: str


class Site:
    """A daemon, the files by which it is reached, and its addresses."""

    def __init__(self, daemon, ca):
        self.daemon = daemon
        self.ca = ca
        self.files = daemon.root
        found = {row["service"]: row["address"] for row in daemon.json("http", "address")}
        self.address = found["web"].replace("127.0.0.1", "localhost") + "/v1"
        self.plain_address = found["plain"] + "/v1"
        for role in ("viewer", "operator", "admin"):
            secret = daemon.command("token", "new", role, "--role", role).stdout
            (self.files / f"{role}.token").write_text(secret, encoding="utf-8")

    def options(self, role="admin"):
        return [
            "--address", self.address, "--token-file", str(self.files / f"{role}.token"),
            "--ca-file", str(self.files / "ca.pem"),
        ]  # fmt: skip

    def target(self, role="admin") -> HttpDaemon:
        words = self.options(role)
        options = dict(zip(words[::2], words[1::2], strict=True))
        return find_http_daemon(self.address, options, {})

    def client(self, way, role="admin", **options):
        if way == "socket":
            return Client(root=str(self.daemon.root), **options)
        return HttpClient(self.target(role), **options)

    def run(self, *words, environ=None):
        """Run the command in this process."""
        out, err = io.StringIO(), io.StringIO()
        given = {"HOME": os.environ.get("HOME", "/"), "TERM": "dumb", **(environ or {})}
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command(words, given)
        assert "Traceback" not in err.getvalue(), err.getvalue()
        return CommandResult(code, out.getvalue(), err.getvalue())

    def over_socket(self, *words):
        return self.run("--root", str(self.daemon.root), *words)

    def over_http(self, *words, role="admin"):
        return self.run(*self.options(role), *words)


@pytest.fixture(scope="session")
def command_site(tmp_path_factory):
    ca = trustme.CA()
    daemon = DaemonProcess(CONFIG, environ={"PYTHONPATH": os.pathsep.join([str(HERE), str(HARNESS)])})
    root = daemon.root
    try:
        (root / "volumes").mkdir()
        server = ca.issue_cert("localhost", "127.0.0.1")
        server.cert_chain_pems[0].write_to_path(str(root / "server.pem"))
        server.private_key_pem.write_to_path(str(root / "server.key"))
        (root / "server.key").chmod(0o600)
        ca.cert_pem.write_to_path(str(root / "ca.pem"))
        own = ca.issue_cert("ann", common_name="ann")
        own.private_key_and_cert_chain_pem.write_to_path(str(root / "ann.pem"))
        yield Site(daemon.start(), ca)
    finally:
        daemon.close()
