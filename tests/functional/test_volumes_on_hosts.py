"""Volumes on another host, of which either daemon is killed while the content is copied."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daemon_process import DaemonProcess, wait_for
from host_processes import HostProcesses

VOLUME = """
[services.volume]
manager = "volume"
report_interval = 0.5
[services.volume.drivers.local]
driver = "file"
path = "{}"
copy_rate = "3MiB"
"""


@pytest.fixture
def hosts(make_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> HostProcesses:
    """Return two hosts with volumes, and an image on the second one."""
    hosts = HostProcesses(make_daemon)
    hosts.start(node1="", node2="")
    for name in ("node1", "node2"):
        hosts.configure(name, "", more=VOLUME.format(tmp_path / name))
        hosts[name].daemon.stop()
        hosts[name].start()
    (tmp_path / "node2" / "images").mkdir(exist_ok=True)
    (tmp_path / "node2" / "images" / "image").write_bytes(os.urandom(16 * 2**20))
    rows = {"node1", "node2"}
    wait_for(
        lambda: {
            row["host"] for row in hosts["node1"].daemon.call("ostler", "service_list")
            if row["topic"] == "volume" and row["up"]
        } == rows,
        "both to be up",
    )  # fmt: skip
    return hosts


def operations(daemon: DaemonProcess) -> list[dict[str, Any]]:
    return [row for row in daemon.call("ostler", "operation.list") if row["method"] == "create_volume"]


@pytest.mark.parametrize("killed", ["node1", "node2"])
def test_a_copy_on_another_host_goes_on_when_either_daemon_is_killed(
    hosts: HostProcesses, tmp_path: Path, killed: str
) -> None:
    here, there = hosts["node1"].daemon, hosts["node2"].daemon
    image = tmp_path / "node2" / "images" / "image"
    # By the host's name, as the daemon of this host cannot see the image.
    here.command(
        "submit", "volume", "create_volume", "--id", "copy", "name=data", f"image={image}", "backend=local",
        "on_host=node2",
    )  # fmt: skip
    wait_for(lambda: operations(there) and operations(there)[0]["done"], "the copy to begin")
    hosts[killed].daemon.signal(signal.SIGKILL)
    hosts[killed].daemon.wait_end()
    hosts[killed].start()
    here.command("operation", "watch", "copy")
    (mine,), (theirs,) = operations(here), operations(there)
    assert (mine["id"], mine["state"]) == ("copy", "succeeded")
    assert (theirs["id"], theirs["state"]) == ("copy.0", "succeeded")
    assert theirs["interruptions"] == (1 if killed == "node2" else 0)
    assert (tmp_path / "node2" / "volumes" / "data").read_bytes() == image.read_bytes()
    assert [(row["name"], row["host"], row["state"]) for row in here.json("volume", "list")] == [
        ("data", "node2", "available")
    ]
