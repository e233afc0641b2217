"""`/metrics` and the health endpoints of a real daemon: while it starts, works, hangs and stops."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from daemon_process import DaemonProcess, wait_for
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ostler import Client, OstlerError
from ostler.daemon.control.metrics.catalogue import CATALOGUE

PROMTOOL = shutil.which("promtool")
CONFIG = """
[services.web]
manager = "http"
listen = ["unix:{root}/web.sock", "127.0.0.1:0"]
[services.web.apps."/metrics"]
app = "metrics"
[services.web.apps."/"]
app = "health"
timeout = "2s"
[services.lamp]
manager = "metrics_manager:{manager}"
required = true
"""


class UnixConnection(http.client.HTTPConnection):
    """A connection to a unix socket: the caller is the user of this process."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))


def get(daemon: DaemonProcess, path: str, **headers: str) -> tuple[int, str]:
    connection = UnixConnection(daemon.root / "web.sock")
    try:
        connection.request("GET", path, headers={name.title(): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.fixture
def start(make_daemon):
    def run(manager: str, gate: Path | None = None, *, wait: bool = True) -> DaemonProcess:
        daemon = make_daemon(environ={"OSTLER_TEST_GATE": str(gate)} if gate is not None else None)
        daemon.configure(CONFIG.format(root=daemon.root, manager=manager))
        daemon.start(wait=wait)
        return daemon

    return run


def test_prometheus_reads_every_metric_of_the_daemon(start):
    daemon = start("IdleManager")
    status, text = get(daemon, "/metrics", accept="application/openmetrics-text")
    assert status == 200
    found = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert {"ostler_requests_total", "ostler_service_state", "process_cpu_seconds_total"} <= found
    # Metrics of plugins are declared by them, and described on their pages.
    ours = {name for name in found if name.startswith(("ostler_", "process_"))}
    ends = ("_bucket", "_count", "_sum", "")
    assert [name for name in ours if not any(name.removesuffix(end) in CATALOGUE for end in ends)] == []
    assert {"http_connections", "http_connections_accepted_total"} <= found


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; Debian's package prometheus has it")
def test_promtool_finds_nothing_wrong_with_the_metrics(start):
    daemon = start("IdleManager")
    daemon.call("lamp", "modules")
    status, text = get(daemon, "/metrics")
    assert (status, "ostler_request_duration_seconds_bucket" in text) == (200, True)
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_who_has_no_token_gets_no_metrics_over_tcp_and_who_has_one_does(start):
    daemon = start("IdleManager")
    address = next(each for each in daemon.call("web", "http_status")["addresses"] if each.startswith("http://"))
    host, _, port = address.removeprefix("http://").partition(":")

    def ask(path: str, token: str = "") -> int:
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        found = connection.getresponse()
        found.read()
        connection.close()
        return found.status

    secret = daemon.command("token", "new", "prometheus", "--role", "viewer").stdout.split()[0]
    assert [ask("/metrics"), ask("/metrics", secret), ask("/metrics", "wrong"), ask("/readyz")] == [401, 200, 401, 200]


def test_health_while_the_daemon_starts_works_and_stops(start, tmp_path):
    gate = tmp_path / "gate"
    daemon = start("SlowManager", gate, wait=False)
    daemon.wait_log("listening on")
    assert get(daemon, "/livez")[0] == 200
    status, text = get(daemon, "/startupz")
    assert (status, "waiting for lamp: init_host" in text) == (503, True)
    assert get(daemon, "/readyz")[0] == 503
    assert get(daemon, "/readyz/lamp")[0] == 503
    gate.touch()
    daemon.wait_ready()
    paths = ["/livez", "/startupz", "/readyz", "/readyz/lamp"]
    wait_for(lambda: [get(daemon, path) for path in paths] == [(200, "ok\n")] * 4, "the verdicts")
    gate.unlink()
    caller = threading.Thread(target=call, args=(daemon, "wait"))
    caller.start()
    wait_for(lambda: any(each["in_flight"] for each in daemon.status()["services"]), "the call")
    daemon.signal(15)
    daemon.wait_log("service lamp is draining")
    wait_for(lambda: get(daemon, "/readyz?verbose")[0] == 503, "the verdict")
    assert "the daemon is stopping" in get(daemon, "/readyz?verbose")[1]
    assert get(daemon, "/livez")[0] == 200
    gate.touch()
    caller.join()
    assert daemon.wait_end() == 0


def call(daemon: DaemonProcess, method: str) -> None:
    try:
        with Client(root=daemon.root, timeout=30) as client:
            client.call("lamp", method)
    except OstlerError:  # the daemon was hanging, or stops
        pass


def test_health_says_so_when_the_loop_of_the_daemon_hangs_and_when_it_is_over(start, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    daemon = start("SlowManager", gate)
    gate.unlink()
    caller = threading.Thread(target=call, args=(daemon, "block"))
    caller.start()
    try:
        wait_for(lambda: get(daemon, "/livez")[0] == 503, "the verdict")
        status, text = get(daemon, "/readyz")
        assert (status, "the event loop of the daemon has not answered for" in text) == (503, True)
    finally:
        gate.touch()
        caller.join()
    wait_for(lambda: get(daemon, "/livez") == (200, "ok\n"), "it to answer again")
