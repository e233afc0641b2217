"""What waits to be sent over one connection, and who is charged for it."""

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostler.messaging.unix.socket_stream import LARGE_PIECE_SIZE, SendQueue
from ostler.messaging.wire.peer_quotas import MemoryAccounts
from ostler.types import Peer


def account(accounts, uid=1):
    return accounts.open(uid, Peer(uid, uid, 1, f"uid {uid}"))


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


def move(queue, near, far):
    """Send all of it and return what came."""
    came = bytearray()
    while queue:
        try:
            queue.send(near)
        except BlockingIOError:
            pass
        try:
            while data := far.recv(1 << 20):
                came += data
        except BlockingIOError:
            pass
    return bytes(came)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(
        st.sampled_from([0, 1, 300, LARGE_PIECE_SIZE - 1, LARGE_PIECE_SIZE, LARGE_PIECE_SIZE + 1, 700_000]), max_size=30
    )
)
def test_all_pieces_come_in_their_order_and_nothing_is_charged_in_the_end(sizes):
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        accounts = MemoryAccounts()
        queue = SendQueue(account(accounts))
        pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
        for piece in pieces:
            queue.append(piece)
        assert queue.unsent_bytes == accounts.held_bytes == sum(sizes)
        assert move(queue, near, far) == b"".join(pieces)
        assert (queue.unsent_bytes, accounts.held_bytes) == (0, 0)


def test_a_large_piece_is_charged_whole_until_all_of_it_has_gone(pair):
    near, far = pair
    accounts = MemoryAccounts()
    queue = SendQueue(account(accounts))
    data = bytes(2_000_000)
    queue.append(memoryview(data)[500_000:])  # the beginning has gone already; the object is kept whole all the same
    assert (queue.unsent_bytes, accounts.held_bytes) == (1_500_000, 2_000_000)
    queue.send(near)
    assert 0 < queue.unsent_bytes < 1_500_000
    assert accounts.held_bytes == 2_000_000
    move(queue, near, far)
    assert accounts.held_bytes == 0


def test_what_is_dropped_is_charged_no_more():
    accounts = MemoryAccounts()
    queue = SendQueue(account(accounts))
    for piece in (b"small", bytes(100_000), b"small again"):
        queue.append(piece)
    queue.clear()
    assert not queue
    assert accounts.held_bytes == 0


def test_without_an_account_nobody_is_charged(pair):
    queue = SendQueue()
    queue.append(b"head")
    queue.append(bytes(200_000))
    assert move(queue, *pair) == b"head" + bytes(200_000)
