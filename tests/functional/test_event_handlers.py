"""Event handlers of managers in daemons that are killed, on several hosts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from daemon_process import DaemonProcess, wait_for
from host_processes import HostProcesses

BULB = '[services.bulb]\nmanager = "event_handling_manager:BulbManager"\n'


@pytest.fixture
def hosts(make_daemon: Callable[..., DaemonProcess]) -> HostProcesses:
    """Return two hosts with a service that publishes events and follows those of both."""
    made = HostProcesses(make_daemon)
    made.start(node1="", node2="")
    for name in ("node1", "node2"):
        made[name].daemon.stop()
        made.configure(name, "", more=BULB)
        made[name].start()
    for name in ("node1", "node2"):
        follows_both(made[name].daemon)
    return made


def follows_both(daemon: DaemonProcess) -> None:
    def hosts() -> bool:
        return [row["hosts"] for row in daemon.json("handler", "list")] == [["node1", "node2"]]

    wait_for(hosts, "the handler to follow both hosts", more=lambda: daemon.log)


def seen(daemon: DaemonProcess, *expected: str) -> None:
    """Wait until a handler was called with these events of node2 at least once each, in this order."""

    def once() -> bool:
        found = [event for event in daemon.call("bulb", "seen") if event.startswith("node2")]
        return list(dict.fromkeys(found)) == list(expected)

    wait_for(once, f"the events {expected}", more=lambda: f"{daemon.call('bulb', 'seen')}\n{daemon.log}")


def test_a_handler_continues_with_both_hosts_after_either_was_killed(hosts: HostProcesses) -> None:
    one, two = hosts["node1"].daemon, hosts["node2"].daemon
    two.call("bulb", "switch", number=1)
    one.call("bulb", "switch", number=7)
    seen(one, "node2 1")
    # Events of different hosts come in no order.
    wait_for(lambda: "node1 7" in one.call("bulb", "seen"), "its own event", more=lambda: one.log)
    two.running.kill()
    two.wait_end()
    hosts["node2"].start()
    two.call("bulb", "switch", number=2)
    seen(one, "node2 1", "node2 2")
    # What was published while the handler's daemon was away comes at its next start.
    one.running.kill()
    one.wait_end()
    two.call("bulb", "switch", number=3)
    hosts["node1"].start()

    def has_missed() -> bool:
        return "node2 3" in one.call("bulb", "seen")

    wait_for(has_missed, "the missed event", more=lambda: one.log)
    assert not [event for event in one.call("bulb", "seen") if event.endswith("gap")]
