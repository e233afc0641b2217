from ostler.store import PeriodicRecords, PeriodicRun
from ostler.store.models import PeriodicHistoryRow
from ostler.store.records.periodic_records import KEPT_FAILURES, KEPT_RUNS, RunEntry


def test_runs_are_kept_by_service_and_task(store):
    records = PeriodicRecords(store, "node1")
    refresh = PeriodicRun("lamp", "refresh", runs=3, errors=1, last_run=5.0, last_seconds=0.1, last_error="no lamp")
    records.save([refresh, PeriodicRun("volume", "audit", runs=1)])
    assert records.list("lamp") == [refresh]
    records.save([refresh._replace(runs=4, last_error="")])
    assert [run.runs for run in records.list()] == [4, 1]


def test_hosts_do_not_mix_and_a_task_can_be_forgotten(store):
    one, two = PeriodicRecords(store, "node1"), PeriodicRecords(store, "node2")
    one.save([PeriodicRun("lamp", "refresh")])
    two.save([PeriodicRun("lamp", "refresh", runs=9)])
    one.forget("lamp", "refresh")
    assert one.list() == []
    assert two.list()[0].runs == 9


def test_nothing_to_save_is_no_write(store):
    before = store.stats()
    PeriodicRecords(store, "node1").save([])
    assert store.stats() == before


def entries(*numbers, error=""):
    return [RunEntry(float(number), 0.1, error) for number in numbers]


def test_a_history_keeps_the_newest_runs_and_the_newest_failures_before_those(store):
    records = PeriodicRecords(store, "node1")
    assert list(records.history("lamp", "refresh")) == []
    records.add_history({("lamp", "refresh"): entries(*range(30), error="no lamp")})
    for number in range(100, 100 + 3 * KEPT_RUNS):
        records.add_history({("lamp", "refresh"): entries(number), ("lamp", "other"): entries(number)})
    found = records.history("lamp", "refresh")
    assert [run.started for run in found[:KEPT_FAILURES]] == list(range(30 - KEPT_FAILURES, 30))
    assert [run.started for run in found[KEPT_FAILURES:]] == [float(100 + 2 * KEPT_RUNS + n) for n in range(KEPT_RUNS)]
    assert len(records.history("lamp", "other")) == KEPT_RUNS


def test_a_damaged_history_is_empty_and_is_written_again(store):
    records = PeriodicRecords(store, "node1")
    records.add_history({("lamp", "refresh"): entries(1)})
    store.write(lambda: PeriodicHistoryRow.update(runs="[[1,").execute())
    assert list(records.history("lamp", "refresh")) == []
    records.add_history({("lamp", "refresh"): entries(2)})
    assert list(records.history("lamp", "refresh")) == entries(2)


def test_a_pause_and_what_is_due_are_kept(store):
    run = PeriodicRun("lamp", "refresh", last_due=7.5, paused_at=5.0, paused_by="root", pause_reason="it moves")
    PeriodicRecords(store, "node1").save([run])
    assert PeriodicRecords(store, "node1").list() == [run]


def test_records_of_tasks_that_did_nothing_for_long_are_removed_with_their_history(store):
    now = store.retention_clock.now()
    records = PeriodicRecords(store, "node1")
    records.save(
        [
            PeriodicRun("lamp", "gone", 1, last_run=now - 500),
            PeriodicRun("lamp", "paused", 1, last_run=now - 500, paused_at=now - 500),
            PeriodicRun("lamp", "waits", last_due=now - 50),
            PeriodicRun("lamp", "runs", 1, last_run=now - 50),
        ]
    )
    records.add_history({("lamp", "gone"): entries(1), ("lamp", "runs"): entries(1)})
    assert records.prune(store.retention_clock, now - 100) == 1
    assert [run.task for run in records.list()] == ["paused", "runs", "waits"]
    assert list(records.history("lamp", "gone")) == []
    assert len(records.history("lamp", "runs")) == 1
    assert records.prune(store.retention_clock, now + 10) >= 0
