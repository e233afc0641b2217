import pytest
from msgspec import structs

from ostler.availability import (
    INFINITE_AGE,
    absence_reason,
    capability_lifetime,
    is_up,
    observed,
    refusal_reason,
    unavailable_reason,
)
from ostler.types import DriverState, DriverStatus, OperatorOverride, ServiceState, ServiceStatus


def row(**facts):
    return ServiceStatus(**{"topic": "volume", "host": "node2", "state": ServiceState.UP, **facts})


def driver(state, **facts):
    return DriverStatus(name="local", driver="file", state=state, **facts)


ABSENT = [
    (
        row(forced_down=OperatorOverride(by="bob", reason="its power is cut")),
        "volume on node2 was forced down by bob: its power is cut",
    ),
    (row(link="node2 has been unreachable for 7s: no cable"), "node2 has been unreachable for 7s: no cable"),
    (row(state=ServiceState.STOPPED), "volume on node2 is stopped"),
    (row(state=ServiceState.FAILED, why="no disk"), "volume on node2 is failed: no disk"),
    (row(age=9.0, down_time=8.0), "volume on node2 has not reported for 9s, its down time is 8s"),
    (row(age=61.0), "volume on node2 has not reported for 1min 1s, its down time is 1min"),
    (row(age=INFINITE_AGE), "volume on node2 has not reported, its down time is 1min"),
]
REFUSING = [
    (row(frozen=OperatorOverride(by="ann", reason="a new disk")), "volume on node2 is frozen by ann: a new disk"),
    (row(frozen=OperatorOverride(by="ann"), enabled=False), "volume on node2 is frozen by ann"),
    (row(state=ServiceState.STARTING, why="init_host"), "volume on node2 is starting: init_host"),
    (row(state=ServiceState.DRAINING), "volume on node2 is draining"),
    (row(enabled=False), "volume on node2 is disabled"),
    (row(addressable=False), "node2 is unreachable from here: it is not in [network.peers]"),
    (
        row(enabled=False, disabled_by="alice", disabled_reason="a new disk"),
        "volume on node2 is disabled by alice: a new disk",
    ),
]
UNABLE = [
    (row(state=ServiceState.DEGRADED, evidence={"is_working": "says no"}), "volume on node2: says no"),
    (row(state=ServiceState.DEGRADED, evidence={"threads": "all are busy"}), "volume on node2: all are busy"),
]
WELL = [
    row(),
    row(state=ServiceState.DEGRADED, evidence={"problems": "no sentences"}),
    row(age=59.0, report_interval=1.0),
    row(age=100.0, down_time=600.0),
]


@pytest.mark.parametrize(("service", "why"), ABSENT)
def test_one_that_is_not_there_answers_no_to_all_questions(service, why):
    assert absence_reason(service) == refusal_reason(service) == unavailable_reason(service, "local") == why


@pytest.mark.parametrize(("service", "why"), REFUSING)
def test_one_that_takes_no_work_is_there_all_the_same(service, why):
    assert absence_reason(service) == ""
    assert refusal_reason(service) == unavailable_reason(service, "local") == why


@pytest.mark.parametrize(("service", "why"), UNABLE)
def test_one_that_cannot_do_it_is_not_chosen_and_takes_what_must_go_there(service, why):
    assert absence_reason(service) == refusal_reason(service) == ""
    assert unavailable_reason(service) == why


@pytest.mark.parametrize("service", WELL)
def test_one_that_is_well_may_be_chosen(service):
    assert unavailable_reason(service, "local") == ""


def test_of_the_backends_of_a_service_those_that_are_well_may_be_chosen():
    stuck = driver(DriverState.STUCK, why="create did not return within its 1min")
    why = "driver local of volume on node2 is stuck: create did not return within its 1min"
    assert unavailable_reason(row(drivers=[stuck]), "local") == why
    assert unavailable_reason(row(drivers=[stuck]), "other") == unavailable_reason(row(drivers=[stuck])) == ""
    for about in ("working local", "driver_ready local"):
        service = row(drivers=[driver(DriverState.READY)], evidence={about: "driver local: read-only"})
        assert unavailable_reason(service, "local") == "volume on node2: driver local: read-only"
        assert unavailable_reason(service, "other") == ""


def test_a_driver_with_new_options_is_waited_for_and_one_tried_again_is_not():
    assert unavailable_reason(row(drivers=[driver(DriverState.INITIALISING, tries=1)]), "local") == ""
    assert "is initialising" in unavailable_reason(row(drivers=[driver(DriverState.INITIALISING, tries=2)]), "local")


def test_a_report_counts_for_three_intervals_of_whoever_reports():
    assert [capability_lifetime(interval) for interval in (20.0, 0.0, 0.05)] == [60.0, 180.0, 5.0]


@pytest.mark.parametrize("service", [each for each, _ in ABSENT])
def test_one_decision_says_that_it_is_down_whatever_was_said_before(service):
    assert not is_up(
        service.state, service.age, service.down_time, service.link, forced_down=service.forced_down is not None
    )
    assert not observed(structs.replace(service, up=True)).up


@pytest.mark.parametrize("service", [each for each, _ in REFUSING if each.addressable] + WELL)
def test_one_decision_says_that_it_is_up(service):
    assert is_up(
        service.state, service.age, service.down_time, service.link, forced_down=service.forced_down is not None
    )
    assert observed(service).up
