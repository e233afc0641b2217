from __future__ import annotations

import pytest

from ostler.service.capabilities.service_capabilities import ALL_BACKENDS, ServiceCapabilities

FREE = {"free_bytes": 5}


@pytest.fixture
def state():
    made = ServiceCapabilities("volume", "node1", "run1")
    made.update_offer(["fast", "slow"], {})
    return made


def answer(state, name, now=10.0, **facts):
    state.complete_query(state.begin_query(name, now), {name: facts or FREE}, {})


def test_a_report_is_the_whole_of_what_is_known_with_ages(state):
    answer(state, "fast", 10.0, free=1)
    answer(state, "slow", 20.0, free=2)
    report = state.make_report(25.0, 1000.0)
    assert report.backends == {"fast": {"free": 1}, "slow": {"free": 2}}
    assert report.ages == {"fast": 15.0, "slow": 5.0}
    assert (report.instance, report.reported_at, report.enabled) == ("run1", 1000.0, True)


def test_each_change_of_a_report_has_a_number_of_its_own(state):
    numbers = [state.sequence]
    for change in (
        lambda: answer(state, "fast"),
        lambda: state.record_lease("fast", "l1", 0.0, released=False),
        lambda: state.update_offer(["fast"], {"slow": "stuck"}),
        lambda: state.fail_query(state.begin_query("fast", 0.0), "no idea"),
        lambda: state.withdraw("draining"),
    ):
        change()
        numbers.append(state.sequence)
    assert numbers == sorted(set(numbers))


def test_what_has_not_answered_is_named_as_such(state):
    answer(state, "fast")
    assert state.make_report(11.0, 0.0).withheld == {"slow": "its capabilities have not been received yet"}


def test_what_is_withheld_is_forgotten_and_asked_anew_when_it_is_back(state):
    answer(state, "fast")
    answer(state, "slow")
    late = state.begin_query("fast", 11.0)
    assert state.update_offer(["slow"], {"fast": "the driver is stuck"})
    state.complete_query(late, {"fast": FREE}, {})
    report = state.make_report(12.0, 0.0)
    assert (list(report.backends), report.withheld) == (["slow"], {"fast": "the driver is stuck"})
    state.sources["slow"].due_at = 99.0
    assert state.update_offer(["fast", "slow"], {})
    assert list(state.make_report(12.0, 0.0).backends) == ["slow"]
    assert (state.sources["fast"].due_at, state.sources["slow"].due_at) == (0.0, 99.0)
    assert not state.update_offer(["fast", "slow"], {})


def test_a_source_that_fails_takes_its_backends_with_it(state):
    answer(state, "fast")
    answer(state, "slow")
    state.fail_query(state.begin_query("fast", 11.0), "no idea")
    report = state.make_report(12.0, 0.0)
    assert (list(report.backends), report.withheld) == (["slow"], {"fast": "no idea"})
    answer(state, "fast")
    assert state.make_report(12.0, 0.0).withheld == {}


def test_nothing_to_say_leaves_what_was_said(state):
    answer(state, "fast", 10.0)
    state.keep_previous(state.begin_query("fast", 50.0))
    assert state.make_report(60.0, 0.0).ages["fast"] == 50.0


def test_a_manager_that_answers_for_all_replaces_all():
    state = ServiceCapabilities("pool", "node1", "run1")
    state.update_offer([ALL_BACKENDS], {})
    state.complete_query(state.begin_query(ALL_BACKENDS, 1.0), {"a": FREE, "b": FREE}, {"c": "it is odd"})
    state.complete_query(state.begin_query(ALL_BACKENDS, 2.0), {"b": FREE}, {})
    report = state.make_report(3.0, 0.0)
    assert (list(report.backends), report.withheld) == (["b"], {})


def test_a_lease_ends_with_an_answer_to_a_later_question_of_its_own_backend(state):
    before = state.begin_query("fast", 1.0)
    state.record_lease("fast", "l1", 1.0, released=False)
    state.complete_query(before, {"fast": FREE}, {})
    answer(state, "slow")
    assert state.make_report(2.0, 0.0).leases == {"l1": False}
    answer(state, "fast")
    assert state.make_report(2.0, 0.0).leases == {"l1": True}
    state.record_lease("fast", "l1", 3.0, released=True)
    assert state.make_report(3.0, 0.0).leases == {"l1": True}


def test_the_end_of_a_lease_is_told_for_as_long_as_schedulers_take_to_look_for_it(state):
    state.record_lease("fast", "l1", 1.0, released=True)
    assert state.make_report(200.0, 0.0).leases == {"l1": True}
    assert state.make_report(250.0, 0.0).leases == {"l1": True}
    assert state.make_report(300.0, 0.0).leases == {}


def test_an_answer_from_before_a_restart_of_a_service_is_no_answer_of_it(state):
    before = state.begin_query("fast", 1.0)
    state.reset_queries()
    state.update_offer(["fast"], {})
    assert not state.sources["fast"].query_in_progress
    state.begin_query("fast", 2.0)
    state.complete_query(before, {"fast": FREE}, {})
    assert state.make_report(3.0, 0.0).backends == {}


def test_leases_are_bounded(state):
    for number in range(3000):
        state.record_lease("fast", f"l{number}", 1.0, released=True)
    assert len(state.make_report(2.0, 0.0).leases) == 2000


def test_facts_of_all_backends_together_have_a_limit():
    state = ServiceCapabilities("pool", "node1", "run1")
    state.update_offer([ALL_BACKENDS], {})
    state.complete_query(state.begin_query(ALL_BACKENDS, 1.0), {f"b{n}": {"text": "x" * 60_000} for n in range(20)}, {})
    report = state.make_report(2.0, 0.0)
    assert (len(report.backends), len(report.withheld)) == (17, 3)


def test_what_has_changed_is_pending_until_a_later_question_is_answered(state):
    answer(state, "fast")
    answer(state, "slow")
    assert not state.is_pending(0.0)
    question = state.begin_query("fast", 1.0)
    assert state.mark_changed("fast") == ["fast"]
    assert state.is_pending(0.0)
    state.complete_query(question, {"fast": FREE}, {})
    assert state.is_pending(0.0)
    answer(state, "fast")
    assert not state.is_pending(0.0)
    assert state.mark_changed("") == ["fast", "slow"]
    state.sources["fast"].due_at = state.sources["slow"].due_at = 50.0
    assert not state.is_pending(1.0)


def test_a_withdrawal_names_why(state):
    answer(state, "fast")
    state.withdraw("the service is draining")
    report = state.make_report(12.0, 0.0)
    assert (report.backends, report.withheld) == ({}, {"fast": "the service is draining"})
    assert not state.has_offer
