import contextvars

import pytest

from ostler.store.write_job import WriteJob
from ostler.store.write_queue import WriteQueue


def job(label):
    return WriteJob(lambda: None, label, False, 0.0, contextvars.Context(), None, None)


def put(queue, account, *labels):
    return [queue.put(account, job(label)) for label in labels]


def popped(queue):
    return [queue.pop().label for _ in range(queue.normal_count)]


def test_accounts_take_turns_and_each_keeps_its_order():
    queue = WriteQueue(100)
    put(queue, "a", "a1", "a2", "a3")
    put(queue, "b", "b1", "b2")
    put(queue, None, "own")
    assert len(queue) == 6
    assert popped(queue) == ["a1", "b1", "own", "a2", "b2", "a3"]
    assert not queue


def test_an_account_gets_no_more_than_there_is_room_left():
    queue = WriteQueue(10)
    assert put(queue, "a", *"123456") == [True] * 5 + [False]
    assert put(queue, "b", *"123") == [True, True, True]  # two that want all of it get a third each
    assert put(queue, "b", "4") == [False]


def test_the_daemons_own_may_use_all_the_room():
    queue = WriteQueue(3)
    assert put(queue, None, *"1234") == [True, True, True, False]
    assert put(queue, "a", "1") == [False]
    assert queue.normal_count == 3


def test_a_limit_of_one_lets_the_first_in():
    queue = WriteQueue(1)
    assert put(queue, "a", "1", "2") == [True, False]


def test_all_are_taken_out_at_once_urgent_ones_first():
    queue = WriteQueue(10)
    put(queue, "a", "a1", "a2")
    queue.urgent.append(job("beat"))
    assert len(queue) == 3
    assert [each.label for each in queue.pop_all()] == ["beat", "a1", "a2"]
    assert len(queue) == 0
    with pytest.raises(StopIteration):
        queue.pop()
