from typing import Any

import pytest

from ostler.operations import OperationQueue


@pytest.fixture
def queue():
    made = OperationQueue("lamp", max_running=2, max_queued=10)
    made.is_open = True
    return made


def run(queue, operation_id) -> None:
    call: Any = object()
    queue.start(operation_id, call)


def test_no_more_run_at_once_than_are_allowed(queue):
    for number in range(3):
        queue.put(f"id-{number}", "alice")
    begun = []
    while queue.has_free_slot and queue.has_waiting:
        begun.append(queue.pop()[0])
        run(queue, begun[-1])
    assert begun == ["id-0", "id-1"]
    queue.end("id-0")
    assert queue.has_free_slot


def test_callers_take_turns(queue):
    for number in range(3):
        queue.put(f"a{number}", "alice")
    queue.put("b0", "bob")
    assert [queue.pop() for _ in range(4)] == [("a0", "alice"), ("b0", "bob"), ("a1", "alice"), ("a2", "alice")]


def test_how_many_may_wait_can_be_changed_and_what_waits_stays(queue):
    for number in range(4):
        queue.put(f"a{number}", f"user{number}")
    queue.max_queued = 4
    assert not queue.has_room("bob")
    assert len(queue) == 4
    queue.max_queued = 12
    assert queue.has_room("bob")


def test_a_refusal_says_whether_it_is_the_share_of_the_caller_that_is_used_up(queue):
    for number in range(5):
        queue.put(f"a{number}", "alice")
    assert not queue.has_room("alice")
    refused = queue.full_error()
    assert refused.is_own_share
    assert refused.message == "5 operations of lamp are waiting, and this caller has used its share of them"
    queue.max_queued = 5
    assert (queue.full_error().is_own_share, queue.full_error().message) == (False, "5 operations of lamp are waiting")


def test_an_operation_is_in_the_queue_once(queue):
    queue.put("id-1", "alice")
    queue.put("id-1", "alice")
    assert len(queue) == 1
    run(queue, queue.pop()[0])
    queue.put("id-1", "alice")
    assert not queue.has_waiting
    queue.end("id-1")
    queue.put("id-1", "alice")
    assert queue.has_waiting


def test_nothing_begins_while_it_is_closed(queue):
    queue.is_open = False
    queue.put("id-1", "alice")
    assert queue.has_waiting
    assert not queue.has_free_slot


def test_a_later_attempt_is_queued_when_it_is_due(queue):
    queue.put_later("id-2", "alice", at=20.0)
    queue.put_later("id-1", "alice", at=10.0)
    assert queue.enqueue_due(5.0) == 10.0
    assert not queue.has_waiting
    assert queue.enqueue_due(10.0) == 20.0
    assert queue.pop() == ("id-1", "alice")
    assert queue.enqueue_due(30.0) is None


def test_a_slot_that_was_reserved_is_given_back(queue):
    queue.reserve("id-1")
    queue.reserve("id-2")
    assert not queue.has_free_slot
    queue.release("id-1")
    assert queue.is_idle
    queue.put("id-1", "alice")  # it was not begun, so it may wait again
    assert queue.has_waiting


def test_one_caller_cannot_fill_it(queue):
    while queue.has_room("alice"):
        queue.put(f"id-{len(queue)}", "alice")
    assert len(queue) == 5
    assert queue.has_room("bob")
