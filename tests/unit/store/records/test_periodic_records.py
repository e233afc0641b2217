from ostler.store import PeriodicRecords, PeriodicRun


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
