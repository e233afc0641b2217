import pytest
from msgspec.structs import replace

from ostler.clock import FakeClock
from ostler.errors import MessageTooLarge
from ostler.service.state_notifier import StateNotifier
from ostler.types import BreakerState, DriverState, DriverStatus, PluginState, PluginStatus, ServiceState


class Hub:
    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.error = None

    def notify(self, topic, priority, event_type, payload, context=None, *, in_log=False):
        if self.error is not None:
            raise self.error
        assert in_log, "the log has a line of its own"
        self.told.append((topic, priority, event_type, payload))

    @property
    def names(self):
        return [each[2] for each in self.told]


@pytest.fixture
def hub():
    return Hub()


@pytest.fixture
def events(hub):
    return StateNotifier(hub, "node1", FakeClock())


def driver(state, why=""):
    return DriverStatus(name="local", driver="file", state=state, why=why, since=7.0)


def test_each_change_of_a_service_is_told_once_with_why_and_since(events, hub):
    events.notify_service("lamp", ServiceState.STARTING, "registering", 1.0)
    events.notify_service("lamp", ServiceState.UP, "", 2.0)
    events.notify_service("lamp", ServiceState.DEGRADED, "driver local is stuck", 3.0)
    events.notify_service("lamp", ServiceState.DEGRADED, "driver local is stuck; driver two is stuck", 3.0)
    events.notify_service("lamp", ServiceState.UP, "", 4.0)
    assert hub.names == ["service.degraded", "service.up"], "that it starts as it should is no news"
    assert hub.told[0] == (
        "ostler", "warn", "service.degraded",
        {"host": "node1", "topic": "lamp", "why": "driver local is stuck", "since": 3.0, "was": "up"},
    )  # fmt: skip


def test_a_driver_that_fails_at_each_try_is_told_once_and_then_that_it_is_ready(events, hub):
    events.notify_driver("lamp", driver(DriverState.INITIALISING))
    events.notify_driver("lamp", driver(DriverState.READY))
    assert hub.told == [], "that it came up as it should is told by its service"
    for _ in range(3):
        events.notify_driver("lamp", driver(DriverState.FAILED, "no disk"))
        events.notify_driver("lamp", driver(DriverState.INITIALISING))
    events.notify_driver("lamp", driver(DriverState.READY))
    events.notify_driver("lamp", driver(DriverState.STUCK, "create has not come back"))
    events.notify_driver("lamp", driver(DriverState.STOPPED))
    assert hub.names == ["driver.failed", "driver.ready", "driver.stuck"]
    assert hub.told[0][3] == {
        "host": "node1", "topic": "lamp", "driver": "local", "why": "no disk", "since": 7.0, "was": "ready",
    }  # fmt: skip


def test_a_peer_is_lost_back_or_refused(events, hub):
    events.notify_peer("node2", "lost", "nobody answers", 1.0)
    events.notify_peer("node2", "lost", "nobody answers", 1.0)
    events.notify_peer("node2", "back", "", 2.0)
    events.notify_peer("node2", "refused", "it is node3", 3.0)
    assert [(each[1], each[2]) for each in hub.told] == [
        ("warn", "peer.lost"), ("info", "peer.back"), ("error", "peer.refused"),
    ]  # fmt: skip
    assert hub.told[2][3] == {"host": "node1", "peer": "node2", "why": "it is node3", "since": 3.0, "was": "back"}


def test_what_an_operator_says_is_told_with_who_and_a_bounded_reason(events, hub):
    events.notify_operator("lamp", "disabled", "uid 0", "x" * 9000)
    assert (hub.names, hub.told[0][3]["by"]) == (["service.disabled"], "uid 0")
    assert len(hub.told[0][3]["why"]) < 2100


def test_what_cannot_be_told_is_said_in_the_log_and_harms_nobody(events, hub, caplog):
    hub.error = MessageTooLarge("too large")
    events.notify_service("lamp", ServiceState.FAILED, "", 2.0)
    assert "notification service.failed was not sent" in caplog.text
    StateNotifier(None, "node1", FakeClock()).notify_service("lamp", ServiceState.FAILED, "", 2.0)


def test_changes_of_a_circuit_breaker_are_told_but_not_that_it_is_closed_at_first(events, hub):
    for state in (BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED):
        events.notify_driver("lamp", replace(driver(DriverState.READY), breaker=state, last_error="work: no light"))
    assert hub.names == ["breaker.open", "breaker.half_open", "breaker.closed"]
    assert [each[1] for each in hub.told] == ["warn", "info", "info"]
    assert hub.told[0][3]["driver"] == "local"
    assert hub.told[0][3]["why"] == "work: no light"


def test_plugins_that_failed_or_are_quarantined_are_told_and_no_others(events, hub):
    for state in PluginState:
        events.notify_plugin(PluginStatus(name=str(state), state=state, why="no", since=3.0))
    assert hub.names == ["plugin.failed", "plugin.quarantined"]
    assert hub.told[1][1:] == (
        "error", "plugin.quarantined",
        {"host": "node1", "plugin": "quarantined", "why": "no", "since": 3.0, "was": ""},
    )  # fmt: skip
