"""What a scheduler on another host knows of a service, and how soon: real daemons, and what operators and faults do."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from daemon_process import DaemonProcess, wait_for
from host_processes import HostProcesses

from ostler import Client, DriverStuck

LAG = 1.0
"""Seconds within which a change is known on a link that lives."""
BOX = """
[services.box]
manager = "placement_manager:PlacementManager"
report_interval = 3
down_time = 8
capability_interval = 60
[services.box.drivers.one]
driver = "placement_manager:PlacementDriver"
call_timeout = 0.5
directory = "{folder}"
free = {free}
"""


def call(daemon: DaemonProcess, where: str, method: str, **arguments: Any) -> Any:
    """Call a method that has an argument `topic`."""
    with Client(root=str(daemon.root), timeout=20) as client:
        return client.call(where, method, **arguments)


class PlacementHosts(HostProcesses):
    """`node1` has a scheduler on a topic of its own and a small box, `node2` a large one; nobody is asked often."""

    def text(self, host, topics, known, file):
        text = super().text(host, topics, known, file).replace("poll_interval = 0.5", "poll_interval = 60")
        folder = host.daemon.root / "box"
        folder.mkdir(exist_ok=True)
        return text + BOX.format(folder=folder, free=10 if host.name == "node1" else 100)

    def configure(self, name, topics, **more):
        scheduler = '[services.placer]\nmanager = "scheduler"\n' if name == "node1" else ""
        super().configure(name, "", more=scheduler, **more)

    def one(self) -> DaemonProcess:
        return self["node1"].daemon

    def two(self) -> DaemonProcess:
        return self["node2"].daemon

    def seen(self) -> dict[str, dict[str, Any]]:
        """Return what the scheduler says of each host."""
        said = call(self.one(), "placer", "explain", topic="box", size=1)
        return {one["host"]: one for one in said["candidates"]}

    def chosen(self) -> str:
        """Return the host that is chosen now."""
        return next((host for host, one in self.seen().items() if one["chosen"]), "")

    def within(self, host: str, seconds: float = LAG) -> None:
        """Have a host chosen within so many seconds."""
        began = time.monotonic()
        wait_for(lambda: self.chosen() == host, f"{host} to be chosen", more=self.seen)
        assert time.monotonic() - began < seconds, self.seen()


@pytest.fixture
def hosts(make_daemon: Callable[..., DaemonProcess]) -> PlacementHosts:
    made = PlacementHosts(make_daemon)
    made.start(node1="", node2="")
    wait_for(lambda: made.chosen() == "node2", "node1 to know of node2", more=lambda: made.one().log)
    return made


def test_what_an_operator_says_on_another_host_is_known_within_a_second(hosts: PlacementHosts) -> None:
    two = hosts.two()
    for _ in range(2):
        call(two, "ostler", "service_disable", topic="box", reason="a new disk")
        hosts.within("node1")
        assert hosts.seen()["node2"]["reason"].endswith(": a new disk")
        call(two, "ostler", "service_enable", topic="box")
        hosts.within("node2")
    call(two, "ostler", "service_drain", topic="box")
    hosts.within("node1")
    assert "box on node2 is draining" in hosts.seen()["node2"]["reason"]


def test_a_failed_or_stuck_backend_is_known_within_a_second_of_its_own_daemon(hosts: PlacementHosts) -> None:
    two = hosts.two()
    (two.root / "box" / "broken").touch()
    hosts.within("node1", 3 + LAG)  # asked with each report
    assert "is_working returned False" in hosts.seen()["node2"]["reason"]
    (two.root / "box" / "broken").unlink()
    hosts.within("node2", 3 + LAG)
    (two.root / "box" / "hangs").touch()
    with pytest.raises(DriverStuck):
        two.call("box", "hang")
    hosts.within("node1")
    assert "is stuck" in hosts.seen()["node2"]["reason"]
    (two.root / "box" / "hangs").unlink()
    hosts.within("node2")


def test_a_host_killed_stopped_or_frozen_is_not_chosen_until_it_is_back(hosts: PlacementHosts) -> None:
    two = hosts.two()
    two.signal(signal.SIGKILL)
    hosts.within("node1")
    two.wait_end()
    hosts["node2"].start()
    hosts.within("node2")
    two.signal(signal.SIGSTOP)
    hosts.within("node1", 2 + 3 * LAG)  # `heartbeat_timeout`, and there is nothing that could tell sooner
    two.signal(signal.SIGCONT)
    hosts.within("node2", 3 * LAG)
    two.signal(signal.SIGTERM)
    hosts.within("node1")
    two.wait_end()


def test_a_scheduler_that_was_restarted_knows_all_hosts_with_its_first_answer(hosts: PlacementHosts) -> None:
    for _ in range(3):
        hosts.one().stop()
        hosts["node1"].start()
        assert hosts.chosen() == "node2", hosts.seen()


def test_a_healthy_host_is_seen_up_for_longer_than_its_down_time(hosts: PlacementHosts) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        assert hosts.chosen() == "node2", hosts.seen()
        rows = hosts.one().call("ostler", "service_list")
        assert all(row["up"] for row in rows), rows
        time.sleep(0.1)
