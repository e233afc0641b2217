from __future__ import annotations

import itertools
import threading

import pytest

from ostler import CapabilityReport
from ostler_scheduler.candidates import Candidates

FACTS = {"fast": {"free_bytes": 100}, "slow": {"free_bytes": 50}}


@pytest.fixture
def kept():
    return Candidates(stale_after=180, forget_after=1000)


NUMBERS = itertools.count(1)


def report(kept, now=0.0, **more):
    return kept.update(from_daemon(**{"instance": "run1", "sequence": next(NUMBERS), **more}), now)


def from_daemon(**more):
    return CapabilityReport(**{"topic": "volume", "host": "node1", "backends": FACTS, "reported_at": 5.0, **more})


def names(candidates):
    return [f"{one.topic}/{one.host}/{one.backend}" for one in candidates]


def test_every_backend_of_every_host_is_a_candidate_in_order(kept):
    report(kept, host="node2")
    report(kept)
    report(kept, topic="share", backends={"nfs": {}})
    assert names(kept.current(1.0)) == [
        "share/node1/nfs", "volume/node1/fast", "volume/node1/slow", "volume/node2/fast", "volume/node2/slow",
    ]  # fmt: skip
    assert names(kept.current(1.0, "share")) == ["share/node1/nfs"]


def test_a_new_report_takes_the_place_of_the_old_one_whole(kept):
    report(kept)
    report(kept, backends={"new": {"free_bytes": 1}}, enabled=False)
    [candidate] = kept.current(0.0)
    assert (candidate.backend, candidate.facts, candidate.enabled) == ("new", {"free_bytes": 1}, False)


def promised(kept, now=1.0):
    return [one.promised for one in kept.current(now)]


def test_a_lease_outlives_every_report_that_does_not_say_that_it_is_over(kept):
    report(kept)
    report(kept, host="node2")
    first = kept.grant_lease("volume", "node1", "fast", 30, 0.0)
    second = kept.grant_lease("volume", "node1", "fast", 5, 0.0)
    assert promised(kept) == [35, 0, 0, 0]
    assert kept.current(1.0)[0].free == 65
    report(kept, 2.0)
    assert promised(kept, 2.0) == [35, 0, 0, 0]
    report(kept, 3.0, leases={first: True, second: False, "another scheduler's": True})
    assert promised(kept, 3.0) == [5, 0, 0, 0]


@pytest.mark.failure_mode("State", "room that is counted or promised twice")
def test_a_report_from_before_a_request_delivered_after_it_wipes_no_promise(kept):
    report(kept)
    kept.grant_lease("volume", "node1", "fast", 90, 1.0)
    report(kept, 2.0, ages={"fast": 5.0})
    assert kept.current(2.0)[0].free == 10


def test_a_lease_of_which_nothing_is_heard_runs_out_and_one_at_work_does_not(kept):
    report(kept)
    kept.grant_lease("volume", "node1", "fast", 30, 0.0)
    at_work = kept.grant_lease("volume", "node1", "slow", 5, 0.0)
    report(kept, 40.0, leases={at_work: False})
    assert promised(kept, 59.0) == [30, 5]
    assert promised(kept, 60.0) == [0, 5]
    assert promised(kept, 100.0) == [0, 0]


def test_a_lease_is_given_back_once(kept):
    report(kept)
    lease = kept.grant_lease("volume", "node1", "fast", 30, 0.0)
    assert kept.release_lease(lease)
    assert not kept.release_lease(lease)
    assert promised(kept) == [0, 0]


def test_nothing_is_promised_where_no_room_is_asked_for(kept):
    report(kept)
    assert kept.grant_lease("volume", "node1", "fast", 0, 0.0) == ""


def test_a_promise_to_who_has_gone_is_nothing(kept):
    assert kept.grant_lease("volume", "node9", "fast", 30, 0.0) == ""
    assert kept.current(0.0) == []


def test_an_overtaken_report_is_no_news(kept):
    report(kept, sequence=8, backends={"new": {}})
    assert not report(kept, sequence=7)
    assert not report(kept, sequence=8)
    assert names(kept.current(0.0)) == ["volume/node1/new"]


def test_a_restarted_reporter_begins_anew_and_late_reports_of_the_run_before_do_not(kept):
    report(kept, sequence=900)
    assert report(kept, instance="run2", sequence=1, backends={"new": {}})
    assert not report(kept, instance="run1", sequence=901)
    assert names(kept.current(0.0)) == ["volume/node1/new"]


def test_a_withdrawal_takes_every_backend_away_at_once(kept):
    report(kept)
    report(kept, 1.0, backends={}, withheld={"fast": "the driver is stuck"})
    assert kept.current(1.0) == []
    assert kept.hosts_without_backends("volume") == ["node1"]
    assert kept.withheld_backends("volume") == [("node1", "fast", "the driver is stuck")]


def test_facts_are_as_old_as_the_question_that_they_answer(kept):
    report(kept, 100.0, ages={"fast": 30.0, "slow": 170.0})
    assert [one.age for one in kept.current(105.0)] == [35.0, 175.0]
    assert [one.gone != "" for one in kept.current(115.0)] == [False, True]


def test_a_report_is_stale_by_our_own_clock_since_it_came_in(kept):
    report(kept, 100.0, reported_at=9e9)  # the other host's clock is in the next centuries
    assert [one.gone for one in kept.current(280.0)] == ["", ""]
    stale = kept.current(281.0)[0]
    assert (stale.gone, stale.age) == ("its last report is 3min 1s old, the limit is 3min", 181.0)
    report(kept, 281.0, reported_at=0.0)
    assert kept.current(281.0)[0].gone == ""


def test_who_is_silent_for_long_is_forgotten(kept):
    report(kept)
    assert kept.current(1000.0)
    assert kept.current(1001.0) == []


def test_what_the_daemon_keeps_is_taken_over_and_what_is_stale_there_is_gone(kept):
    kept.merge_stored(
        [
            from_daemon(),
            from_daemon(host="node2", stale=True),
            from_daemon(host="node3", up=False),
            from_daemon(host="node4", enabled=False),
        ],
        asked_at=10.0,
        now=11.0,
    )
    found = {one.host: (one.gone, one.enabled, one.age) for one in kept.current(12.0)}
    assert found == {
        "node1": ("", True, 1.0),
        "node2": ("its report was already stale when this scheduler received it", True, 1.0),
        "node3": ("its service is down", True, 1.0),
        "node4": ("", False, 1.0),
    }


def test_the_report_we_have_does_not_get_younger_by_being_fetched_again(kept):
    report(kept, 0.0, sequence=1)
    kept.leases.timeout = 600.0
    kept.grant_lease("volume", "node1", "fast", 30, 0.0)
    kept.merge_stored([from_daemon(instance="run1", sequence=1)], asked_at=170.0, now=170.0)
    [fast, _] = kept.current(181.0)
    assert (fast.gone != "", fast.promised) == (True, 30)


def test_a_service_that_goes_down_or_is_disabled_is_seen_before_its_next_report(kept):
    report(kept, instance="")
    kept.merge_stored([from_daemon(up=False)], asked_at=1.0, now=1.0)
    assert kept.current(1.0)[0].gone == "its service is down"
    kept.merge_stored([from_daemon(enabled=False)], asked_at=2.0, now=2.0)
    assert (kept.current(2.0)[0].gone, kept.current(2.0)[0].enabled) == ("", False)


def test_a_missed_report_is_taken_from_the_daemon(kept):
    report(kept, 0.0)
    kept.merge_stored([from_daemon(reported_at=65.0, backends={"new": {}})], asked_at=70.0, now=70.0)
    assert [(one.backend, one.age) for one in kept.current(71.0)] == [("new", 1.0)]


def test_a_report_that_came_in_while_the_daemon_was_asked_is_the_newer_one(kept):
    report(kept, 10.5, reported_at=66.0, enabled=False)
    kept.merge_stored([from_daemon(reported_at=5.0)], asked_at=10.0, now=11.0)
    assert kept.current(11.0)[0].enabled is False


def test_a_service_without_a_ready_driver_is_known_as_silent(kept):
    report(kept, backends={})
    report(kept, host="node2")
    assert kept.current(0.0, "volume")[0].host == "node2"
    assert kept.hosts_without_backends("volume") == ["node1"]
    assert kept.hosts_without_backends("share") == []


def test_reports_promises_and_readers_on_many_threads_do_not_trip_each_other(kept):
    report(kept)
    start, failed = threading.Barrier(6), []

    def work(step):
        start.wait()
        try:
            for _ in range(300):
                step()
        except Exception as error:
            failed.append(error)

    steps = [
        lambda: report(kept, host="node2"),
        lambda: kept.grant_lease("volume", "node1", "fast", 1, 1.0),
        lambda: kept.grant_lease("volume", "node1", "fast", 1, 1.0),
        lambda: kept.current(1.0),
        lambda: kept.current(1.0, "volume"),
        lambda: kept.merge_stored([from_daemon(host="node3")], 2.0, 2.0),
    ]
    threads = [threading.Thread(target=work, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert kept.current(1.0)[0].promised == 600
