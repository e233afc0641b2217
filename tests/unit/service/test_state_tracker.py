from ostler.clock import FakeClock
from ostler.service.state_tracker import StateTracker
from ostler.types import ServiceState


def keeper() -> tuple[StateTracker, FakeClock, list[str]]:
    clock, seen = FakeClock(), []
    states = StateTracker(clock, lambda: seen.append(f"{states.state}: {states.why}"))
    return states, clock, seen


def test_a_complaint_makes_a_service_that_is_up_degraded_and_back() -> None:
    states, _, seen = keeper()
    states.enter(ServiceState.UP)
    states.set_problem("driver local", "driver local is stuck")
    states.set_problem("driver local", "")
    assert seen == ["up: ", "degraded: driver local is stuck", "up: "]


def test_a_complaint_in_the_start_counts_from_up_on() -> None:
    states, _, _ = keeper()
    states.set_problem("driver local", "no disk")
    assert states.state is ServiceState.STARTING
    states.enter(ServiceState.UP)
    assert (states.state, states.why) == (ServiceState.DEGRADED, "no disk")


def test_since_moves_with_the_state_and_not_with_its_reason() -> None:
    states, clock, _ = keeper()
    states.enter(ServiceState.UP)
    clock.advance(5)
    states.set_problem("a", "one")
    since = states.since
    clock.advance(5)
    states.set_problem("b", "two")
    assert states.since == since
    assert states.why == "one; two"


def test_nothing_is_told_when_nothing_changed() -> None:
    states, _, seen = keeper()
    states.enter(ServiceState.UP)
    states.set_problem("a", "")
    states.enter(ServiceState.UP)
    assert seen == ["up: "]
