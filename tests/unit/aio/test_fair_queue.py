"""The queue that is fair between clients."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.aio.fair_queue import FairQueue


def filled(limit, *pairs):
    queue = FairQueue(limit)
    for client, item in pairs:
        queue.put(client, item)
    return queue


def test_clients_are_served_by_turns_and_each_in_its_order():
    queue = filled(100, *[("many", number) for number in range(4)], ("one", "single"), ("two", "a"), ("two", "b"))
    assert [queue.pop() for _ in range(7)] == [0, "single", "a", 1, "b", 2, 3]
    assert len(queue) == 0


def test_one_client_alone_gets_half_of_the_room_and_some_is_left_for_another():
    queue = FairQueue(10)
    while queue.has_room("greedy"):
        queue.put("greedy", 1)
    assert len(queue) == 5
    assert queue.has_room("another")
    while queue.has_room("second"):
        queue.put("second", 1)
    assert queue.has_room("third")


def test_the_daemons_own_work_may_use_all_of_the_room():
    queue = FairQueue(3)
    for _ in range(3):
        assert queue.has_room(None)
        queue.put(None, 1)
    assert not queue.has_room(None)
    assert not queue.has_room("anybody")


def test_a_queue_for_one_takes_one():
    queue = FairQueue(1)
    assert queue.has_room("a")
    queue.put("a", 1)
    assert not queue.has_room("b")


def test_what_was_put_in_last_can_be_taken_back():
    queue = filled(10, ("a", 1), ("b", 2), ("a", 3))
    assert queue.withdraw("a") == 3
    assert queue.clear() == [1, 2]
    assert len(queue) == 0
    with pytest.raises(IndexError):
        queue.pop()


def test_a_client_with_fifty_connections_gets_as_many_turns_as_one_with_one():
    queue = FairQueue(1000)
    for number in range(50):
        queue.put("many", ("many", number), number)
    for number in range(3):
        queue.put("one", ("one", number), "its only one")
    order = [queue.pop()[0] for _ in range(6)]
    assert order == ["many", "one"] * 3


def test_the_connections_of_a_client_are_served_by_turns():
    queue = FairQueue(100)
    for number in range(3):
        queue.put("a", number, "busy")
    queue.put("a", "waiting", "quiet")
    assert [queue.pop() for _ in range(4)] == [0, "waiting", 1, 2]


def test_the_rooms_of_a_client_are_divided_among_its_connections():
    queue = FairQueue(9)
    while queue.has_room("a", "busy"):
        queue.put("a", 1, "busy")
    assert len(queue) == 3
    assert queue.has_room("a", "quiet")
    assert queue.has_room("b", "another")


def test_what_a_connection_put_in_last_can_be_taken_back():
    queue = FairQueue(10)
    queue.put("a", 1, "x")
    queue.put("a", 2, "y")
    assert queue.withdraw("a", "y") == 2
    assert queue.withdraw("a", "x") == 1
    assert len(queue) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), max_size=60))
def test_everything_comes_out_once_and_nobody_waits_for_more_than_one_of_each_other(pairs):
    queue = filled(1000, *[(client, (client, number)) for client, number in pairs])
    order = [queue.pop() for _ in pairs]
    for client in "abc":
        mine = [(who, number) for who, number in pairs if who == client]
        assert [item for item in order if item[0] == client] == mine
        turns = [at for at, item in enumerate(order) if item[0] == client]
        assert all(later - earlier <= 3 for earlier, later in pairwise(turns))
