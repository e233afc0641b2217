from __future__ import annotations

import pytest

from ostler.service.capability_state import WHOLE, ServiceCapabilities

FREE = {"free_bytes": 5}


@pytest.fixture
def state():
    made = ServiceCapabilities("volume", "node1", "run1")
    made.offer(["fast", "slow"], {})
    return made


def answer(state, name, now=10.0, **facts):
    state.answered(state.ask(name, now), {name: facts or FREE}, {})


def test_a_report_is_the_whole_of_what_is_known_with_ages(state):
    answer(state, "fast", 10.0, free=1)
    answer(state, "slow", 20.0, free=2)
    report = state.report(25.0, 1000.0)
    assert report.backends == {"fast": {"free": 1}, "slow": {"free": 2}}
    assert report.ages == {"fast": 15.0, "slow": 5.0}
    assert (report.instance, report.reported_at, report.enabled) == ("run1", 1000.0, True)


def test_each_change_of_a_report_has_a_number_of_its_own(state):
    numbers = [state.sequence]
    for change in (
        lambda: answer(state, "fast"),
        lambda: state.lease("fast", "l1", 0.0, released=False),
        lambda: state.offer(["fast"], {"slow": "stuck"}),
        lambda: state.failed(state.ask("fast", 0.0), "no idea"),
        lambda: state.withdraw("draining"),
    ):
        change()
        numbers.append(state.sequence)
    assert numbers == sorted(set(numbers))


def test_what_has_not_answered_is_named_as_such(state):
    answer(state, "fast")
    assert state.report(11.0, 0.0).withheld == {"slow": "its capabilities have not come yet"}


def test_what_is_withheld_is_forgotten_and_asked_anew_when_it_is_back(state):
    answer(state, "fast")
    answer(state, "slow")
    late = state.ask("fast", 11.0)
    assert state.offer(["slow"], {"fast": "the driver is stuck"})
    state.answered(late, {"fast": FREE}, {})
    report = state.report(12.0, 0.0)
    assert (list(report.backends), report.withheld) == (["slow"], {"fast": "the driver is stuck"})
    state.sources["slow"].due = 99.0
    assert state.offer(["fast", "slow"], {})
    assert list(state.report(12.0, 0.0).backends) == ["slow"]
    assert (state.sources["fast"].due, state.sources["slow"].due) == (0.0, 99.0)
    assert not state.offer(["fast", "slow"], {})


def test_a_source_that_fails_takes_its_backends_with_it(state):
    answer(state, "fast")
    answer(state, "slow")
    state.failed(state.ask("fast", 11.0), "no idea")
    report = state.report(12.0, 0.0)
    assert (list(report.backends), report.withheld) == (["slow"], {"fast": "no idea"})
    answer(state, "fast")
    assert state.report(12.0, 0.0).withheld == {}


def test_nothing_to_say_leaves_what_was_said(state):
    answer(state, "fast", 10.0)
    state.no_news(state.ask("fast", 50.0))
    assert state.report(60.0, 0.0).ages["fast"] == 50.0


def test_a_manager_that_answers_for_all_replaces_all():
    state = ServiceCapabilities("pool", "node1", "run1")
    state.offer([WHOLE], {})
    state.answered(state.ask(WHOLE, 1.0), {"a": FREE, "b": FREE}, {"c": "it is odd"})
    state.answered(state.ask(WHOLE, 2.0), {"b": FREE}, {})
    report = state.report(3.0, 0.0)
    assert (list(report.backends), report.withheld) == (["b"], {})


def test_a_lease_ends_with_an_answer_to_a_later_question_of_its_own_backend(state):
    before = state.ask("fast", 1.0)
    state.lease("fast", "l1", 1.0, released=False)
    state.answered(before, {"fast": FREE}, {})
    answer(state, "slow")
    assert state.report(2.0, 0.0).leases == {"l1": False}
    answer(state, "fast")
    assert state.report(2.0, 0.0).leases == {"l1": True}
    state.lease("fast", "l1", 3.0, released=True)
    assert state.report(3.0, 0.0).leases == {"l1": True}


def test_the_end_of_a_lease_is_told_for_as_long_as_schedulers_take_to_look_for_it(state):
    state.lease("fast", "l1", 1.0, released=True)
    assert state.report(200.0, 0.0).leases == {"l1": True}
    assert state.report(250.0, 0.0).leases == {"l1": True}
    assert state.report(300.0, 0.0).leases == {}


def test_trap_an_answer_from_before_a_restart_of_a_service_is_no_answer_of_it(state):
    before = state.ask("fast", 1.0)
    state.begin_again()
    state.offer(["fast"], {})
    assert not state.sources["fast"].asking
    state.ask("fast", 2.0)
    state.answered(before, {"fast": FREE}, {})
    assert state.report(3.0, 0.0).backends == {}


def test_leases_are_bounded(state):
    for number in range(3000):
        state.lease("fast", f"l{number}", 1.0, released=True)
    assert len(state.report(2.0, 0.0).leases) == 2000


def test_facts_of_all_backends_together_have_a_limit():
    state = ServiceCapabilities("pool", "node1", "run1")
    state.offer([WHOLE], {})
    state.answered(state.ask(WHOLE, 1.0), {f"b{n}": {"text": "x" * 60_000} for n in range(20)}, {})
    report = state.report(2.0, 0.0)
    assert (len(report.backends), len(report.withheld)) == (17, 3)


def test_what_has_changed_is_pending_until_a_later_question_is_answered(state):
    answer(state, "fast")
    answer(state, "slow")
    assert not state.pending(0.0)
    question = state.ask("fast", 1.0)
    assert state.changed("fast") == ["fast"]
    assert state.pending(0.0)
    state.answered(question, {"fast": FREE}, {})
    assert state.pending(0.0)
    answer(state, "fast")
    assert not state.pending(0.0)
    assert state.changed("") == ["fast", "slow"]
    state.sources["fast"].due = state.sources["slow"].due = 50.0
    assert not state.pending(1.0)


def test_a_withdrawal_names_why(state):
    answer(state, "fast")
    state.withdraw("the service is draining")
    report = state.report(12.0, 0.0)
    assert (report.backends, report.withheld) == ({}, {"fast": "the service is draining"})
    assert not state.offers
