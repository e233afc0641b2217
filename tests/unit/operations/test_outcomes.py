from types import SimpleNamespace
from typing import Any

import pytest

from ostler.clock import FakeClock
from ostler.errors import Busy, Cancelled, Draining, DriverCrashed, DriverNotReady, InvalidInput, OperationInterrupted
from ostler.messaging.interface.exposure import Durable
from ostler.operations import outcomes
from ostler.store import NewOperation, OperationRecords, Requester, Store
from ostler.types import LOCAL_PEER, OperationState, Role


@pytest.fixture
def record(tmp_path):
    clock = FakeClock()
    store = Store.open(tmp_path / "state" / "ostler.db", clock=clock)
    records = OperationRecords(clock, "node1", "run-1")
    requester = Requester(LOCAL_PEER, Role.ADMIN, LOCAL_PEER)
    new = NewOperation("id-1", "lamp", "switch", b"\x80", 0, requester, "", None)
    store.write(lambda: records.insert(new))
    found = store.write(lambda: records.claim("id-1"))
    assert found is not None
    store.close()
    return found


def changed(record, **fields):
    return type(record)(**{name: getattr(record, name) for name in record.__struct_fields__} | fields)


def decide(record, *, error=None, policy=outcomes.NOT_DURABLE, is_stopping=False, **more):
    call: Any = SimpleNamespace(
        record=record, error=error, policy=policy, result=b"\x05", cancelled_by="", is_handed_over=False,
        is_clean_up=False, is_started=True, **more,
    )  # fmt: skip
    return outcomes.decide_after_attempt(call, is_stopping=is_stopping, now=100.0)


def test_a_result_is_kept(record):
    assert decide(record).outcome == (OperationState.SUCCEEDED, "", b"\x05", None, 0.0)


def test_an_error_is_kept_as_it_was(record):
    outcome = decide(record, error=InvalidInput("no such lamp", hint="buy one", lamp="desk")).outcome
    assert (outcome.state, outcome.why) == (OperationState.FAILED, "no such lamp; buy one")
    error = outcomes.decode_error(outcome.error)
    assert isinstance(error, InvalidInput)
    assert (error.message, error.hint, error.details) == ("no such lamp", "buy one", {"lamp": "desk"})


def test_what_may_succeed_later_is_tried_again_with_growing_waits(record):
    policy = Durable(attempts=3, backoff=10.0, max_backoff=15.0)
    first = decide(record, error=DriverNotReady("not yet"), policy=policy).outcome
    assert first.state is OperationState.WAITING
    assert "attempt 1 of 3 failed: not yet" in first.why
    assert 109.0 <= first.next_attempt_at <= 111.0
    second = decide(changed(record, attempts=2), error=Busy("full"), policy=policy).outcome
    assert 113.5 <= second.next_attempt_at <= 116.5
    assert decide(changed(record, attempts=3), error=Busy("full"), policy=policy).outcome.state is OperationState.FAILED


def test_what_can_never_be_right_is_not_tried_again(record):
    policy = Durable(attempts=3)
    assert decide(record, error=InvalidInput("no"), policy=policy).outcome.state is OperationState.FAILED


@pytest.mark.parametrize(
    ("policy", "state"),
    [
        (Durable(attempts=3, on_restart="retry"), OperationState.WAITING),
        (Durable(attempts=3, on_restart="resume"), OperationState.WAITING),
        (Durable(attempts=3), OperationState.FAILED),
        (Durable(attempts=3, on_restart="clean up", clean_up="undo"), OperationState.FAILED),
        (Durable(on_restart="retry"), OperationState.FAILED),
    ],
    ids=str,
)
@pytest.mark.parametrize("interruptions", [0, 1])
@pytest.mark.failure_mode("Plugins", "a driver that crashes in the midst of an operation")
def test_work_that_may_be_repeated_is_after_its_driver_crashed(record, policy, state, interruptions):
    interrupted = changed(record, attempts=1 + interruptions, interruptions=interruptions)
    assert decide(interrupted, error=DriverCrashed("killed by SIGSEGV"), policy=policy).outcome.state is state


def test_attempts_that_ended_with_the_daemon_are_not_counted(record):
    interrupted = changed(record, attempts=3, interruptions=2)
    policy = Durable(attempts=2, on_restart="retry")
    assert decide(interrupted, error=Busy("full"), policy=policy).outcome.state is OperationState.WAITING


def test_a_service_that_is_not_ready_after_a_restart_is_waited_for(record):
    interrupted = changed(record, attempts=2, interruptions=1)
    resumed = decide(interrupted, error=DriverNotReady("later"), policy=Durable(on_restart="resume"))
    assert resumed.outcome.state is OperationState.WAITING
    fresh = decide(record, error=DriverNotReady("later"), policy=Durable(on_restart="resume"))
    assert fresh.outcome.state is OperationState.FAILED


@pytest.mark.parametrize(
    ("on_restart", "state", "drops"),
    [
        ("resume", OperationState.QUEUED, False),
        ("retry", OperationState.QUEUED, True),
        ("fail", OperationState.FAILED, False),
    ],
)
def test_what_a_stop_cut_off_is_continued_as_declared(record, on_restart, state, drops):
    for error in (Cancelled("stopping"), Draining("stopping")):
        decision = decide(record, error=error, policy=Durable(on_restart=on_restart), is_stopping=True)
        assert (decision.outcome.state, decision.drop_steps) == (state, drops)


def test_what_was_claimed_while_its_service_began_to_drain_is_queued_again(record):
    call: Any = SimpleNamespace(
        record=record, error=Draining("draining"), policy=outcomes.NOT_DURABLE, cancelled_by="", is_handed_over=False,
        is_clean_up=False, is_started=False,
    )  # fmt: skip
    decision = outcomes.decide_after_attempt(call, is_stopping=False, now=0.0)
    assert decision is not None
    assert (decision.outcome.state, decision.drop_steps) == (OperationState.QUEUED, False)


def test_what_a_stop_cut_off_and_must_be_cleaned_up_is_left_to_the_next_start(record):
    policy = Durable(on_restart="clean up", clean_up="undo")
    assert decide(record, error=Cancelled("stopping"), policy=policy, is_stopping=True) is None


def test_an_error_of_its_own_during_a_stop_is_an_error(record):
    decision = decide(record, error=InvalidInput("no"), policy=Durable(on_restart="resume"), is_stopping=True)
    assert decision.outcome.state is OperationState.FAILED


def test_after_a_restart_it_is_continued_as_declared(record):
    def after(policy):
        return outcomes.decide_after_restart(changed(record, interruptions=1), policy)

    assert after(Durable(on_restart="resume")).outcome.state is OperationState.QUEUED
    assert after(Durable(on_restart="retry")).drop_steps
    assert after(Durable(on_restart="clean up", clean_up="undo")).must_clean_up
    failed = after(Durable())
    assert failed.outcome.state is OperationState.FAILED
    assert isinstance(outcomes.decode_error(failed.outcome.error), OperationInterrupted)


def test_a_method_that_is_gone_fails_its_operations_by_name(record):
    decision = outcomes.decide_after_restart(record, None)
    assert decision.outcome.state is OperationState.FAILED
    assert "lamp has no method switch now" in decision.outcome.why


def test_an_operation_that_ends_the_daemon_each_time_is_given_up(record):
    often = changed(record, interruptions=outcomes.MAX_INTERRUPTIONS)
    decision = outcomes.decide_after_restart(often, Durable(on_restart="resume"))
    assert decision.outcome.state is OperationState.FAILED
    assert "the daemon ended 5 times in the midst of it" in decision.outcome.why


def test_what_was_being_cancelled_when_the_daemon_ended_is_cancelled(record):
    asked = changed(record, interruptions=1, cancelled_by="uid 0")
    decision = outcomes.decide_after_restart(asked, Durable(on_restart="resume"))
    assert (decision.outcome.state, decision.outcome.why) == (OperationState.CANCELLED, "cancelled by uid 0")
    cleans = outcomes.decide_after_restart(asked, Durable(on_restart="clean up", clean_up="undo"))
    assert cleans.must_clean_up


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"on_restart": "again"}, "must be one of 'resume', 'retry', 'clean up', 'fail', not 'again'"),
        ({"on_drain": "later"}, "must be one of 'wait', 'hand over'"),
        ({"on_restart": "clean up"}, "belong together"),
        ({"clean_up": "undo"}, "belong together"),
        ({"attempts": 0}, "attempts must be 1 or more"),
        ({"backoff": 5.0, "max_backoff": 1.0}, "max_backoff not below backoff"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Durable(**fields)
