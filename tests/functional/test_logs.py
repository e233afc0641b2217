"""A real daemon whose log is not read, cannot be written or is configured by others, and one whose plugin hangs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from daemon_process import HERE, DaemonProcess, wait_for

PLUGIN = """
import logging.config
import time

from ostler import Context, Manager, exposed

log = logging.getLogger("odd")


class Odd(Manager):
    @exposed(role="operator")
    def talk(self, ctx: Context, lines: int) -> None:
        for _ in range(lines):
            log.warning("x" * 200)

    @exposed(role="operator")
    def configure(self, ctx: Context) -> None:
        logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL", "handlers": []}})
        logging.disable(logging.CRITICAL)
        raise ValueError("boom")
"""
ODD = '[services.odd]\nmanager = "odd:Odd"\n'


def with_plugin(daemon: DaemonProcess, source: str) -> DaemonProcess:
    daemon.plugins.mkdir()
    (daemon.plugins / "odd.py").write_text(source)
    daemon.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(daemon.plugins)])
    return daemon


@pytest.fixture
def unread() -> Iterator[int]:
    """A descriptor of a pipe that nobody reads."""
    reading, writing = os.pipe()
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.mark.failure_mode("Machine", "output that is closed, full or not read")
def test_standard_error_that_nobody_reads(make_daemon, unread) -> None:
    daemon = with_plugin(make_daemon(ODD), PLUGIN)
    pipe = f"/proc/{os.getpid()}/fd/{unread}"
    daemon.start(before=["sh", "-c", f'exec "$@" >{pipe} 2>&1', "sh"])
    daemon.call("odd", "talk", lines=15_000)
    assert "lines lost" in daemon.status()["log"]
    wait_for(lambda: "the log has not been read for" in str(daemon.status()["not_well"]), "the status to say so")
    daemon.command("reload")
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Machine", "output that is closed, full or not read")
@pytest.mark.parametrize("where", ["/dev/full", "&-"])
def test_standard_error_that_is_full_or_closed(make_daemon, where: str) -> None:
    daemon = make_daemon().start(before=["sh", "-c", f'exec "$@" 2>{where}', "sh"])
    status = daemon.status()
    assert status["log"].startswith("standard error (/dev/full)" if where == "/dev/full" else "nowhere")
    assert any("the log" in line for line in status["not_well"])
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Plugins", "one that configures or silences logging")
def test_a_plugin_that_silences_logging(make_daemon) -> None:
    daemon = with_plugin(make_daemon(ODD), PLUGIN).start()
    daemon.command("call", "odd", "configure", check=None)
    daemon.wait_log("ValueError: boom")
    daemon.wait_log("a plugin or a library changed how this process logs")
    assert "logging.disable" in daemon.status()["log"]
    assert daemon.stop() == 0
    daemon.wait_log("SIGTERM received: stopping")


@pytest.mark.failure_mode("Plugins", "an import or a hook that hangs")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_plugin_whose_import_hangs(make_daemon, number: int) -> None:
    daemon = with_plugin(make_daemon(ODD), "import socket\nleft, right = socket.socketpair()\nleft.recv(1)\n")
    daemon.start(wait=False)
    daemon.notices.wait(lambda f: "importing manager odd:Odd" in f.get("STATUS", "") and "EXTEND_TIMEOUT_USEC" in f)
    daemon.signal(number)
    assert daemon.wait_end(8) == 0
    daemon.wait_log("while starting: importing manager odd:Odd of service odd; nothing was started")
