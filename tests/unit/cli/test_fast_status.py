from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ostler.cli.json_values import to_shown
from ostler.types import (
    DaemonStatus,
    DriverState,
    DriverStatus,
    PluginState,
    PluginStatus,
    ReloadResult,
    ServiceState,
    ServiceStatus,
)

NOW = 1_800_000_000.0
GOLDEN = Path(__file__).parent / "golden"

VOLUME = ServiceStatus(
    topic="volume", host="node1", manager="volume", state=ServiceState.DEGRADED, why="driver b is failed: no room",
    since=NOW - 300, up=True, in_flight=2, beat=30, last_report=NOW - 4, workers=8,
    drivers=[
        DriverStatus(name="a", driver="file", state=DriverState.READY, since=NOW - 299),
        DriverStatus(
            name="b", driver="file", state=DriverState.FAILED, why="no room", since=NOW - 20, retry_at=NOW + 10, tries=3
        ),
    ],
)  # fmt: skip
SCHEDULER = ServiceStatus(
    topic="scheduler", host="node1", state=ServiceState.UP, since=NOW - 300, up=True, enabled=False,
    disabled_reason="new disks", disabled_by="alice",
)  # fmt: skip
ILL = DaemonStatus(
    host="node1", version="0.1.0", pid=4242, state=ServiceState.UP, since=NOW - 303, started=NOW - 304,
    rpc="ipc:///run/ostler/rpc.sock", memory=40_960_000, threads=14, services=[VOLUME, SCHEDULER],
    not_well=["driver b of volume is failed: no room", "service scheduler is disabled by alice: new disks"],
    last_reload=ReloadResult(ok=True, at=NOW - 60, summary="applied: 2 changes"),
)  # fmt: skip
WELL = msgspec.structs.replace(ILL, services=[], not_well=[], last_reload=None)


@pytest.fixture
def status(ostler: Any, client: Any) -> Any:
    def run(found: DaemonStatus, *words: str, terminal: bool = False) -> Any:
        client.answers["ostler", "status"] = found
        return ostler("status", *words, terminal=terminal)

    return run


def test_a_pipe_sees_daemon_services_drivers_and_what_is_not_well(status: Any) -> None:
    assert status(ILL) == (0, (GOLDEN / "status-pipe.txt").read_text(), "")


def test_a_terminal_sees_the_same(status: Any) -> None:
    assert status(ILL, terminal=True) == (0, (GOLDEN / "status-terminal.txt").read_text(), "")


def test_a_daemon_whose_services_are_up_is_well(status: Any) -> None:
    assert status(msgspec.structs.replace(ILL, not_well=[])).out.endswith("No problems.\n")


def test_a_daemon_without_services_says_what_to_do(status: Any) -> None:
    bare = msgspec.structs.replace(WELL, plugins=[])
    out = status(bare, terminal=True).out
    assert "No services are configured." in out
    assert "no plugin is installed. Install one into the environment of the daemon" in out
    assert "All is well" not in out
    lamp = PluginStatus(name="lamp", state=PluginState.LOADED)
    out = status(msgspec.structs.replace(bare, plugins=[lamp])).out
    assert "No services are configured. Loaded plugins: lamp. Add a table [services.NAME]" in out
    assert "All is well" not in out
    assert status(bare, "--check").code == 0


def test_where_other_hosts_reach_it_is_said_when_they_can(status: Any) -> None:
    out = status(msgspec.structs.replace(WELL, network="tcp://10.0.0.1:7890")).out
    assert "  listens on ipc:///run/ostler/rpc.sock, for other hosts on tcp://10.0.0.1:7890\n" in out


def test_json_is_the_whole_status(status: Any) -> None:
    found = msgspec.json.decode(status(ILL, "--json").out)
    assert found == msgspec.json.decode(msgspec.json.encode(to_shown(ILL)))
    assert found["since"] == "2027-01-15T07:54:57.000Z"
    assert found["services"][0]["enabled_at"] is None


def test_check_fails_when_something_is_not_well(status: Any) -> None:
    assert status(ILL, "--check").code == 1
    assert status(ILL, "--check", "--json").code == 1
    assert status(WELL, "--check").code == 0


def test_the_help_is_typers(ostler: Any) -> None:
    assert "--check" in ostler("status", "--help").out
