import pytest

from ostler.clock import FakeClock
from ostler.errors import StoreError
from ostler.store import NewOperation, OperationOutcome, OperationRecords, Requester, requester_of
from ostler.store.session import current_session
from ostler.types import LOCAL_PEER, OperationState, Peer, Role

_ALICE = Peer(uid=1000, gid=1000, pid=7, name="uid 1000")
ALICE = Requester(_ALICE, Role.OPERATOR, _ALICE, "node1")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def records(clock):
    return OperationRecords(clock, "node1", "run-1")


def new(number=1, *, requester=ALICE, time_limit=None, topic="lamp"):
    return NewOperation(f"id-{number}", topic, "switch", b"\x80", 0, requester, "", time_limit)


def ended(state=OperationState.SUCCEEDED, **more):
    return OperationOutcome(state, **more)


def test_an_operation_goes_from_queued_over_running_to_its_end(store, records):
    record, is_new = store.write(lambda: records.insert(new()))
    assert (is_new, record.state, record.attempts, record.host) == (True, OperationState.QUEUED, 0, "node1")
    claimed = store.write(lambda: records.claim("id-1"))
    assert (claimed.state, claimed.attempts, claimed.owner) == (OperationState.RUNNING, 1, "run-1")
    done = store.write(lambda: records.end_attempt("id-1", ended(result=b"\x05"), progress=(3, 4, "three")))
    assert (done.state, done.result, done.owner, done.done, done.text) == (
        OperationState.SUCCEEDED, b"\x05", "", 3, "three",
    )  # fmt: skip


def test_the_same_id_again_is_the_same_operation(store, records):
    store.write(lambda: records.insert(new()))
    store.write(lambda: records.claim("id-1"))
    record, is_new = store.write(lambda: records.insert(new()))
    assert (is_new, record.state) == (False, OperationState.RUNNING)


@pytest.mark.parametrize("begin", [False, True])
def test_what_is_stored_is_what_the_record_says(store, records, begin):
    insertion = records.insertion(new(time_limit=7.5), begin=begin)
    record = insertion.record(store.write(insertion.statement))
    assert record == store.read(lambda: records.find("id-1"))
    assert (record.state, record.attempts) == ((OperationState.RUNNING, 1) if begin else (OperationState.QUEUED, 0))
    assert records.is_lease_valid(record) is begin
    assert store.write(records.insertion(new(), begin=begin).statement).changed == 0


def test_an_operation_is_claimed_once(store, records, clock):
    store.write(lambda: records.insert(new()))
    other = OperationRecords(clock, "node1", "run-2")
    assert store.write(lambda: records.claim("id-1")) is not None
    assert store.write(lambda: other.claim("id-1")) is None
    assert store.write(lambda: other.end_attempt("id-1", ended())) is None
    assert store.write(lambda: other.save_step(store.read(lambda: records.find("id-1")), 0, "a", b"\x01")) is False


def test_what_was_running_is_taken_over_once_and_counted(store, records, clock):
    store.write(lambda: records.insert(new()))
    store.write(lambda: records.claim("id-1"))
    after = OperationRecords(clock, "node1", "run-2")
    taken = store.write(lambda: after.take_over("id-1", "run-1"))
    assert (taken.interruptions, taken.owner, taken.state) == (1, "run-2", OperationState.RUNNING)
    assert store.write(lambda: OperationRecords(clock, "node1", "run-3").take_over("id-1", "run-1")) is None
    # Whoever was thought dead and is not can no longer end it.
    assert store.write(lambda: records.end_attempt("id-1", ended())) is None


def test_steps_stay_over_attempts_unless_they_are_dropped(store, records):
    store.write(lambda: records.insert(new()))
    record = store.write(lambda: records.claim("id-1"))
    assert store.write(lambda: records.save_step(record, 0, "copied", b"\x01"))
    assert store.write(lambda: records.save_step(record, 1, "checked", b"\x02"))
    store.write(lambda: records.end_attempt("id-1", ended(OperationState.QUEUED)))
    again = store.write(lambda: records.claim("id-1"))
    assert list(store.read(lambda: records.steps(again)).items()) == [("copied", b"\x01"), ("checked", b"\x02")]
    store.write(lambda: records.end_attempt("id-1", ended(OperationState.QUEUED), drop_steps=True))
    assert store.read(lambda: records.steps(again)) == {}


def test_pending_operations_are_those_of_the_topic_and_host_that_have_not_ended(store, records, clock):
    for number in range(4):
        store.write(lambda number=number: records.insert(new(number)))
    store.write(lambda: records.insert(new(9, topic="volume")))
    store.write(lambda: OperationRecords(clock, "node2", "run").insert(new(10)))
    store.write(lambda: records.claim("id-0"))
    store.write(lambda: records.end_attempt("id-0", ended()))
    store.write(lambda: records.claim("id-1"))
    store.write(lambda: records.end_attempt("id-1", ended(OperationState.WAITING, next_attempt_at=7.0)))
    found = store.read(lambda: records.pending("lamp"))
    assert [(row.id, row.state, row.next_attempt_at) for row in found] == [
        ("id-1", "waiting", 7.0), ("id-2", "queued", 0.0), ("id-3", "queued", 0.0),
    ]  # fmt: skip
    assert store.read(records.count_pending) == 5


def test_a_list_has_no_values_and_can_be_narrowed(store, records):
    store.write(lambda: records.insert(new(1)))
    store.write(lambda: records.insert(new(2, requester=Requester(LOCAL_PEER, Role.ADMIN, LOCAL_PEER))))
    store.write(lambda: records.claim("id-2"))
    store.write(lambda: records.end_attempt("id-2", ended(result=b"x" * 1000)))
    rows = store.read(lambda: records.select(limit=10))
    assert [(row.id, row.arguments, row.result) for row in rows] == [("id-1", b"", None), ("id-2", b"", None)]
    assert [row.id for row in store.read(lambda: records.select(account="1000"))] == ["id-1"]
    assert [row.id for row in store.read(lambda: records.select(states=[OperationState.SUCCEEDED]))] == ["id-2"]
    assert [row.id for row in store.read(lambda: records.select(limit=1))] == ["id-2"]
    assert store.read(lambda: records.select(topic="volume")) == []


def test_who_submitted_comes_back_as_it_was(store, records):
    store.write(lambda: records.insert(new(1)))
    store.write(lambda: records.insert(new(2, requester=Requester(LOCAL_PEER, Role.ADMIN, LOCAL_PEER))))
    assert requester_of(store.read(lambda: records.find("id-1"))) == ALICE
    assert requester_of(store.read(lambda: records.find("id-2"))).peer is LOCAL_PEER


def test_a_damaged_requester_is_an_error_that_names_the_operation(store, records):
    record, _ = store.write(lambda: records.insert(new()))
    broken = type(record)(**{name: getattr(record, name) for name in record.__struct_fields__} | {"requester": b"?"})
    with pytest.raises(StoreError, match="operation id-1 is damaged"):
        requester_of(broken)


def test_the_time_limit_goes_on_over_a_restart_and_a_clock_that_is_set(store, records, clock):
    store.write(lambda: records.insert(new(time_limit=60.0)))
    clock.advance(20)
    clock.set_wall(clock.wall() + 86400 * 365)  # within this boot the wall clock means nothing
    record = store.read(lambda: records.find("id-1"))
    assert records.time_left(record) == pytest.approx(40)
    clock.reboot("later")
    assert records.time_left(record) < 0
    clock.set_wall(record.submitted_at - 1000)  # set back: no more than the whole limit
    assert records.time_left(record) == 60.0


def test_a_lease_is_valid_until_it_expires_or_its_host_has_booted_again(store, records, clock):
    store.write(lambda: records.insert(new()))
    record = store.write(lambda: records.claim("id-1"))
    clock.advance(59)
    assert records.is_lease_valid(record)
    clock.advance(2)
    assert not records.is_lease_valid(record)
    store.write(lambda: records.renew_leases([("id-1", 1.0, 2.0, "half")]))
    renewed = store.read(lambda: records.find("id-1"))
    assert records.is_lease_valid(renewed)
    assert (renewed.done, renewed.total, renewed.text) == (1.0, 2.0, "half")
    clock.reboot("next")
    assert not records.is_lease_valid(renewed)
    # Another host cannot know that boot; it goes by the wall clock.
    assert OperationRecords(clock, "node2", "run").is_lease_valid(renewed)


def test_only_a_failed_or_cancelled_operation_is_queued_again(store, records):
    store.write(lambda: records.insert(new()))
    assert store.write(lambda: records.requeue("id-1", "retried")) is None
    store.write(lambda: records.end_unstarted("id-1", ended(OperationState.CANCELLED, error=b"\x00")))
    again = store.write(lambda: records.requeue("id-1", "retried by uid 0"))
    assert (again.state, again.why, again.error, again.attempts) == (
        OperationState.QUEUED, "retried by uid 0", None, 0,
    )  # fmt: skip


def end_many(store, records, count):
    def write():
        for number in range(count):
            records.insert(new(number))
            records.end_unstarted(f"id-{number}", ended(OperationState.CANCELLED))

    store.write(write)


def test_trimming_keeps_the_newest_and_never_touches_what_has_not_ended(store, records, clock):
    end_many(store, records, 5)
    store.write(lambda: records.insert(new(100)))
    clock.advance(1)
    assert store.write(lambda: records.trim(3, 0.0, store.retention_clock)) == 2
    assert [row.id for row in store.read(records.select)] == ["id-2", "id-3", "id-4", "id-100"]
    assert store.write(lambda: records.prune(0, clock.wall() - 3600)) == 0
    assert store.write(lambda: records.prune(1, clock.wall())) == 2
    assert store.write(lambda: records.prune(0, clock.wall())) == 1
    assert [row.id for row in store.read(records.select)] == ["id-100"]


def test_a_start_reads_pending_operations_by_their_own_index(store, records):
    end_many(store, records, 50)
    query = (
        "EXPLAIN QUERY PLAN SELECT id FROM operations INDEXED BY operations_pending WHERE host = 'node1'"
        " AND topic = 'lamp' AND state IN ('queued', 'running', 'waiting') ORDER BY number"
    )
    plan = store.read(lambda: [row[3] for row in current_session().database.execute_sql(query).fetchall()])
    assert "operations_pending" in plan[0]
    assert "SCAN operations" not in " ".join(plan)


def test_the_ids_that_begin_with_a_text_are_found(store, records):
    for number in (1, 10, 2):
        store.write(lambda number=number: records.insert(new(number)))
    assert store.read(lambda: records.find_by_prefix("id-2")) == ["id-2"]
    assert len(store.read(lambda: records.find_by_prefix("id-1"))) == 2
    assert store.read(lambda: records.find_by_prefix("%")) == []


def test_outside_of_the_store_there_are_no_records(records):
    with pytest.raises(StoreError, match=r"outside of store\.read"):
        records.find("id-1")
