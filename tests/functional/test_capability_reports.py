"""What a scheduler believes, with the real daemon: changes are known, withdrawn is gone, room comes back."""

from __future__ import annotations

from typing import Any

import pytest
from daemon_process import DaemonProcess, wait_for

from ostler import Client, NoCapacity, OstlerError

CONFIG = """
[services.scheduler]
manager = "scheduler"
[services.volume]
manager = "volume"
[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"
reserve = "0B"
"""


@pytest.fixture
def daemon(make_daemon) -> DaemonProcess:
    made: DaemonProcess = make_daemon(CONFIG).start()
    return made


def candidates(client: Client) -> dict[str, Any]:
    return {one["backend"]: one for one in client.call("scheduler", "candidates")}


def room(client: Client) -> int:
    """Return a size of which the backend has room for one, and not for two."""
    return int(candidates(client)["local"]["facts"]["promise_limit_bytes"]) * 6 // 10 // 512 * 512


@pytest.mark.failure_mode("State", "room that was freed and is still counted")
def test_room_that_was_freed_is_seen_at_once(daemon: DaemonProcess) -> None:
    with Client(root=str(daemon.root)) as client:
        size = room(client)  # ready means that the scheduler knows the backend
        for number in range(20):
            client.call("volume", "create_volume", name=f"v{number}", size=size)
            with pytest.raises(NoCapacity):
                client.call("volume", "create_volume", name="second", size=size)
            client.call("volume", "delete_volume", name=f"v{number}")


@pytest.mark.failure_mode("State", "room that was freed and is still counted")
def test_room_of_a_create_that_failed_is_given_back(daemon: DaemonProcess) -> None:
    with Client(root=str(daemon.root)) as client:
        size = room(client)
        for _ in range(5):
            with pytest.raises(OstlerError):
                client.call("volume", "create_volume", name="v", size=size, image="/no/such/image")
        client.call("volume", "create_volume", name="v", size=size)


@pytest.mark.failure_mode("State", "room that is counted or promised twice")
def test_room_that_is_taken_past_the_scheduler_is_seen_at_once(daemon: DaemonProcess) -> None:
    with Client(root=str(daemon.root)) as client:
        size = room(client) // 512 // 3 * 512
        client.call("volume", "create_volume", name="base", size=size, backend="local")
        client.call("volume", "create_snapshot", volume="base", name="s")
        client.call("volume", "create_volume", name="clone", source="base")
        known = wait_for(lambda: candidates(client)["local"]["facts"]["volumes"] == 2, "the clone to be known", 1.0)
        assert known
        facts = candidates(client)["local"]["facts"]
        assert facts["provisioned_bytes"] == 3 * size
        assert candidates(client)["local"]["promised"] == 0


@pytest.mark.failure_mode("Plugins", "capabilities that are odd, very large or cannot be read")
def test_one_backend_that_is_odd_or_slow_hides_no_other(make_daemon) -> None:
    daemon = make_daemon(
        CONFIG + '[services.volume.drivers.odd]\ndriver = "odd_report_drivers:OddReportDriver"\npath = "{root}/odd"\n'
        '[services.volume.drivers.slow]\ndriver = "odd_report_drivers:SlowReportDriver"\npath = "{root}/slow"\n'
    )
    daemon.start()
    with Client(root=str(daemon.root)) as client:
        assert list(candidates(client)) == ["local"]
        said = client.call("scheduler", "explain", topic="volume")["candidates"]
        why = {one["backend"]: one["reason"] for one in said}
        assert "capabilities of backend odd are not plain JSON" in why["odd"]
        assert why["slow"] == "not offered: its capabilities have not been received yet"


@pytest.mark.failure_mode("Plugins", "a driver that never comes back")
def test_a_stuck_driver_is_withdrawn_at_once_and_offered_again_when_it_is_back(make_daemon) -> None:
    daemon = make_daemon(
        CONFIG.replace('"file"', '"odd_report_drivers:HangingDeleteDriver"') + 'copy_budget = "0.5s"\n'
    )
    daemon.start()
    hang = daemon.root / "volumes" / "hang"
    with Client(root=str(daemon.root)) as client:
        client.call("volume", "create_volume", name="v", size="1MiB")
        hang.touch()
        with pytest.raises(OstlerError, match=r"stuck|has not returned"):
            client.call("volume", "delete_volume", name="v")
        wait_for(lambda: not candidates(client), "the withdrawal", 1.0)
        with pytest.raises(NoCapacity, match="the driver is stuck"):
            client.call("volume", "create_volume", name="w", size="1MiB")
        hang.unlink()
        wait_for(lambda: candidates(client), "the backend to be back", 2.0)
        client.call("volume", "create_volume", name="w", size="1MiB")
