"""The plugin in the real daemon: sockets of systemd, memory without it, reload, certificates, events and status."""

from __future__ import annotations

import http.client
import os
import sys
import tempfile
from pathlib import Path

import pytest
from daemon_process import DaemonProcess, wait_for

APP = """
async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["ostler.caller"].name.encode()})
"""
CONFIG = """
[services.web]
manager = "http"
listen = LISTEN

[services.web.apps."/"]
app = "hello_app:hello"
filters = []
"""


@pytest.fixture
def make():
    made = []

    def start(listen, before=(), config=CONFIG):
        daemon = listen if isinstance(listen, DaemonProcess) else DaemonProcess(config.replace("LISTEN", listen))
        made.append(daemon)
        (daemon.root / "hello_app.py").write_text(APP)
        daemon.environ["PYTHONPATH"] = os.pathsep.join([daemon.environ["PYTHONPATH"], str(daemon.root)])
        return daemon.start(before=before)

    yield start
    for daemon in made:
        daemon.close()


def get(port, path="/"):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request("GET", path)
    response = client.getresponse()
    body = response.read()
    client.close()
    return response.status, body


def address_of(daemon):
    return daemon.command("http", "address", "web").stdout.strip()


def port_of(daemon):
    return int(address_of(daemon).rpartition(":")[2])


def test_it_serves_is_listed_and_stops(make):
    daemon = make('["127.0.0.1:0"]')
    port = port_of(daemon)
    assert get(port) == (200, b"anonymous")
    assert f"web listens on http://127.0.0.1:{port}" in daemon.command("status").stdout
    rows = daemon.json("http", "list")
    assert rows[0]["addresses"] == [f"http://127.0.0.1:{port}"]
    assert daemon.json("http", "address") == [{"service": "web", "address": f"http://127.0.0.1:{port}"}]
    assert daemon.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        get(port)


HANDING_OVER = """
import os, socket, sys
made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
with open(sys.argv[1], "w") as file:
    file.write(" ".join(str(each.getsockname()[1]) for each in made))
high = [os.dup2(each.fileno(), 50 + place) for place, each in enumerate(made)]
for place, number in enumerate(high, 3):
    os.dup2(number, place)
os.environ.update(LISTEN_FDS="2", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="web:web")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_sockets_that_systemd_hands_over_are_taken_by_their_name_and_kept(make):
    config = CONFIG + '[services.other]\nmanager = "http"\nlisten = ["systemd:nosuch"]\n'
    with tempfile.NamedTemporaryFile("r+", prefix="ostler-ports-") as file:
        daemon = make('["systemd:web"]', [sys.executable, "-c", HANDING_OVER, file.name], config)
        ports = [int(each) for each in file.read().split()]
        assert [get(port) for port in ports] == [(200, b"anonymous")] * 2
        daemon.wait_log("systemd has handed over no socket named nosuch")
        daemon.command("reload")
        daemon.command("service", "restart", "web")
        assert [get(port) for port in ports] == [(200, b"anonymous")] * 2


def test_the_daemon_without_an_http_service_imports_nothing_of_it(make):
    daemon = make('["127.0.0.1:0"]', config="")
    maps = Path(f"/proc/{daemon.running.pid}/maps").read_text()
    assert "httptools" not in maps
    assert "_ssl" not in maps


def test_a_reload_adds_a_service_and_removes_it(make):
    daemon = make('["127.0.0.1:0"]')
    port = port_of(daemon)
    more = '[services.more]\nmanager = "http"\n[services.more.apps."/"]\napp = "hello_app:hello"\nfilters = []\n'
    daemon.configure(more, "conf.d/more.toml")
    daemon.command("reload")
    other = int(daemon.command("http", "address", "more").stdout.strip().rpartition(":")[2])
    assert get(other) == (200, b"anonymous")
    (daemon.root / "etc" / "conf.d" / "more.toml").unlink()
    daemon.command("reload")
    wait_for(lambda: "more" not in daemon.command("http", "address").stdout, "the end of the service")
    assert get(port) == (200, b"anonymous")


def test_a_broken_plugin_leaves_out_only_the_service_that_needs_it(make):
    daemon = DaemonProcess(BROKEN + CONFIG.replace("LISTEN", '["127.0.0.1:0"]'))
    daemon.install("broken", "raise ValueError('no such library')")
    make(daemon)
    assert get(port_of(daemon)) == (200, b"anonymous")
    checked = daemon.command("check", check=None, env=daemon.environ).stderr
    assert "warning: service first is left out: " in checked
    assert 'no installed plugin provides the app "of-the-broken-plugin"' in checked


BROKEN = """
[services.first]
manager = "http"

[services.first.apps."/"]
app = "of-the-broken-plugin"
"""


def test_options_of_applications_are_shown_with_their_origin_and_compared(make):
    daemon = make('["127.0.0.1:0"]')
    shown = daemon.command("config", "cat", env=daemon.environ).stdout
    assert "hello_app:hello" in shown
    daemon.configure(CONFIG.replace("LISTEN", '["127.0.0.1:0"]').replace("filters = []", 'filters = ["auth"]'))
    assert "services.web.apps" in daemon.command("config", "diff", check=None, env=daemon.environ).stdout
    daemon.command("reload")
    assert get(port_of(daemon))[0] == 401
    assert "nothing" in daemon.command("reload", "--plan").stdout.lower()
