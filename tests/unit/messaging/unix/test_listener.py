"""Connections that were accepted are opened in the turn of their user."""

import asyncio
import socket

from ostler.aio.round_robin import DeficitRoundRobin
from ostler.messaging.unix.listener import AcceptQueue
from ostler.types import Peer

# private: _open_connection, _queues: opening a connection takes no time here

ANN, BEN = Peer(4001, 4001, 1, "uid 4001"), Peer(4002, 4002, 2, "uid 4002")


class Busy:
    """A flow that has work whenever it is asked."""

    account, rank = "busy", 1

    def __init__(self):
        self.over = False

    def run(self, until):
        return not self.over


class Opened:
    """Notes whose connections are opened, and takes its time."""

    def __init__(self):
        self.turns = DeficitRoundRobin()
        self.arrivals = AcceptQueue(self.turns, self.take_in)
        self.of = []
        self.sockets = []

    def connect(self, peer):
        ours, theirs = socket.socketpair()
        self.sockets += [ours, theirs]
        self.arrivals.add(ours, peer)
        return ours

    def take_in(self, connected, peer):
        self.of.append(peer)

    def close(self):
        for each in self.sockets:
            each.close()


async def test_one_that_comes_while_nobody_waits_is_opened_at_once():
    opened = Opened()
    opened.connect(ANN)
    assert opened.of == [ANN]
    assert len(opened.arrivals) == 0
    opened.close()


async def test_a_hundred_of_one_user_stand_before_nobody_else():
    opened, busy = Opened(), Busy()
    opened.turns.enqueue(busy)  # from now on all wait for their turn
    for _ in range(100):
        opened.connect(ANN)
    opened.connect(BEN)
    assert opened.of == []
    assert len(opened.arrivals) == 101
    # The first connection uses up the share of its user: a slice of time is over when it is opened.
    opened.arrivals._queues[4001]._open_connection = lambda connected, peer: (opened.take_in(connected, peer), wait())
    while BEN not in opened.of:
        await asyncio.sleep(0)
    assert opened.of.index(BEN) <= 2
    busy.over = True
    while len(opened.of) < 101:
        await asyncio.sleep(0)
    assert opened.arrivals._queues == {}
    opened.close()


def wait():
    until = asyncio.get_running_loop().time() + 0.001
    while asyncio.get_running_loop().time() < until:
        pass


async def test_those_that_wait_are_closed_with_the_listener():
    opened, busy = Opened(), Busy()
    opened.turns.enqueue(busy)
    connected = opened.connect(ANN)
    opened.arrivals.close()
    assert connected.fileno() == -1
    busy.over = True
    await asyncio.sleep(0.01)
    assert opened.of == []
    opened.close()
