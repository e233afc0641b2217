"""What changes below a daemon that nobody has restarted: its packages are replaced, its host gets another name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_process import DaemonProcess

import ostler
import ostler_scheduler
import ostler_volume

JOURNALED = """
from ostler import Context, Manager, exposed


class Odd(Manager):
    journal_events = True

    @exposed(role="operator")
    def put(self, ctx: Context, text: str) -> None:
        self.client.publish("put", {"text": text})

    @exposed(role="operator")
    def late(self, ctx: Context) -> str:
        from odd.parts.late import VALUE

        return VALUE
"""
SCHEDULER_AND_VOLUME = """
[services.scheduler]
manager = "scheduler"
[services.volume]
manager = "volume"
report_interval = "1s"
[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"
"""


def move_away(site: Path) -> None:
    site.rename(site.with_name("gone"))


def remove(site: Path) -> None:
    shutil.rmtree(site)


def overwrite(site: Path) -> None:
    for path in site.rglob("*.py"):
        path.write_text("raise ImportError('of another version')\n")


@pytest.mark.failure_mode("Life", "packages replaced while the daemon starts")
@pytest.mark.parametrize("replace", [move_away, remove, overwrite])
def test_packages_replaced_right_after_ready(make_daemon, replace: Callable[[Path], None]) -> None:
    daemon = make_daemon('[services.odd]\nmanager = "odd:Odd"\n')
    site = daemon.root / "site"
    for package in (ostler, ostler_volume, ostler_scheduler):
        shutil.copytree(package.__path__[0], site / package.__name__)
    (site / "odd" / "parts").mkdir(parents=True)
    (site / "odd" / "__init__.py").write_text(JOURNALED)
    (site / "odd" / "parts" / "late.py").write_text("VALUE = 'as it was'\n")
    daemon.environ["PYTHONPATH"] = str(site)
    daemon.start()
    replace(site)
    assert daemon.call("odd", "late") == "as it was"
    daemon.command("describe", "odd")
    daemon.call("odd", "put", text="a")
    assert '"a"' in daemon.command("events", "--from", "1", "--count", "1").stdout
    daemon.command("reload")
    assert daemon.stop() == 0
    assert "No module named" not in daemon.log
    assert "of another version" not in daemon.log


def named(name: str) -> list[str]:
    """Return the words before a command that make it see a host of that name."""
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name]


@pytest.mark.failure_mode("Machine", "a host that gets another name")
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the host another name")
def test_a_host_that_gets_another_name(make_daemon: Callable[[str], DaemonProcess]) -> None:
    daemon = make_daemon(SCHEDULER_AND_VOLUME).start(before=named("alpha.example.org"))
    daemon.command("volume", "create", "old", "--size", "1MiB")
    daemon.command("service", "disable", "volume", "--reason", "the disk is dying")
    daemon.stop()
    seen = len(daemon.notices.received)
    daemon.start(wait=False, before=named("ip-10-0-0-7"))
    daemon.wait_ready(seen)
    daemon.wait_log("alpha")
    assert "old" in daemon.command("volume", "list").stdout
    daemon.command("volume", "create", "new", "--size", "1MiB", check=1)
    assert '"old"' in daemon.command("events", "--from", "1", "--count", "1").stdout
    rows = daemon.command("status").stdout
    assert "ip-10-0-0-7" in rows
    assert " alpha" not in rows
