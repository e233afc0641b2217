import asyncio
from types import SimpleNamespace

from ostler.clock import FakeClock
from ostler.config.paths import Paths
from ostler.daemon.control.daemon_status import StatusReporter, status_problems
from ostler.daemon.daemon_parts import DaemonParts
from ostler.service.state_tracker import StateTracker
from ostler.types import DriverState, DriverStatus, PluginState, PluginStatus, ServiceState, ServiceStatus


def service(**facts) -> ServiceStatus:
    return ServiceStatus(**{"topic": "lamp", "host": "node1", "state": ServiceState.UP, "up": True, **facts})


def test_nothing_is_said_when_all_is_well() -> None:
    assert status_problems([service()], [PluginStatus(name="lamp", state=PluginState.LOADED)]) == []


def test_a_driver_is_named_once_with_its_state_and_why() -> None:
    why = "driver shelf is failed: no folder; is_working returned False"
    drivers = [DriverStatus(name="shelf", driver="file", state=DriverState.FAILED, why="no folder")]
    evidence = {"driver shelf": "driver shelf is failed: no folder", "is_working": "is_working returned False"}
    lines = status_problems([service(state=ServiceState.DEGRADED, why=why, drivers=drivers, evidence=evidence)], [])
    assert lines == ["service lamp: is_working returned False", "driver shelf of lamp is failed: no folder"]


def test_a_sentence_with_semicolons_is_one_line() -> None:
    why = "driver shelf: open /dev/sdb; 3 tries; giving up"
    assert status_problems([service(state=ServiceState.DEGRADED, why=why, evidence={"working shelf": why})], []) == [
        f"service lamp: {why}"
    ]
    elsewhere = service(state=ServiceState.DEGRADED, why=why, here=False, host="node2")
    assert status_problems([elsewhere], []) == [f"service lamp on node2: {why}"]


def test_failed_disabled_and_silent_services_are_named_with_the_reason() -> None:
    lines = status_problems(
        [
            service(state=ServiceState.FAILED, why="the disk is on fire"),
            service(topic="door", enabled=False, disabled_by="alice", disabled_reason="painting"),
            service(topic="gate", up=False),
        ],
        [],
    )
    assert "service lamp is failed: the disk is on fire" in lines
    assert "service door is disabled by alice: painting" in lines
    assert any("gate" in line and "down" in line for line in lines)


def test_services_of_other_hosts_that_were_stopped_are_nobodys_trouble() -> None:
    assert status_problems([service(here=False, state=ServiceState.STOPPED, up=False)], []) == []


def test_failed_plugins_are_named_and_disabled_ones_are_not() -> None:
    plugins = [
        PluginStatus(name="bad", state=PluginState.FAILED, why="ImportError: no"),
        PluginStatus(name="off", state=PluginState.DISABLED, why="by configuration"),
    ]
    assert status_problems([], plugins) == ["plugin bad is failed: ImportError: no"]


def test_the_status_joins_the_services_with_the_problems_of_every_source() -> None:
    async def rows():
        return [service(state=ServiceState.FAILED, why="no disk")]

    accounts = SimpleNamespace(held_bytes=10, limit=100)
    messaging = SimpleNamespace(network_address="", quotas=SimpleNamespace(memory_accounts=accounts))
    parts = DaemonParts(None, messaging, None, SimpleNamespace(host="node1", rows=rows))
    reporter = StatusReporter(
        Paths.find("/srv/here", {}),
        1000.0,
        StateTracker(FakeClock(), lambda: None),
        SimpleNamespace(statuses=list),
        parts,
        last_reload=lambda: None,
        pending_restart=list,
        problem_sources=[lambda: ["the store is full"], list, lambda: ["a task failed"]],
    )
    status = asyncio.run(reporter.status())
    assert status.not_well[:3] == ["service lamp is failed: no disk", "the store is full", "a task failed"]
    assert (status.host, status.started, status.callers_memory, status.max_memory) == ("node1", 1000.0, 10, 100)
    assert status.rpc == "ipc:///srv/here/run/rpc.sock"
