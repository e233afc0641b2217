import asyncio

import pytest

from ostler.clock import FakeClock
from ostler.errors import Conflict
from ostler.messaging.network.peer_identities import PeerIdentities, identity_mismatch
from ostler.types import HostIdentity

MINE = HostIdentity(name="node1", machine="m1", boot="b1", instance="i1")
KEY = "key of node2"


def other(instance="x", **facts):
    return HostIdentity(**{"name": "node2", "machine": "m2", "boot": "b2", "instance": instance, **facts})


class Bench:
    def __init__(self):
        self.clock = FakeClock()
        self.identities = PeerIdentities(MINE, self.clock)
        self.linked = None
        self.now = None

    def greet(self, who, host="node2", key=KEY):
        async def ask():
            return self.now

        asyncio.run(self.identities.check_peer(who, key, host, self.linked, ask))

    def refuses(self, who, match, **facts):
        with pytest.raises(Conflict, match=match):
            self.greet(who, **facts)


@pytest.mark.parametrize(
    ("found", "expected", "why"),
    [
        (other(), "node2", ""),
        (other(machine="m1", boot="b1"), "node2", ""),
        (other(machine="", boot=""), "node2", ""),
        (other(machine="m1", boot=""), "node2", ""),
        (
            other(name="node1"),
            "node2",
            r"two hosts are named node1: this one, and the one that [network] lists as node2",
        ),
        (other(name="node3"), "node2", "[network] lists it as node2, but its daemon is node3"),
        (other(machine="m1"), "node2", "node2 has the same machine id as node1: one is a copy of the other"),
        (other(name="x" * 900), "node2", f"[network] lists it as node2, but its daemon is {'x' * 255}... (645"),
    ],
)
def test_a_daemon_is_the_host_of_its_key_and_no_copy_of_this_one(found, expected, why):
    said = identity_mismatch(MINE, found, expected)
    assert said.startswith(why)
    assert bool(said) is bool(why)


def test_who_is_refused_is_told_and_shown_until_it_comes_no_more(caplog):
    b = Bench()
    for _ in range(3):
        b.refuses(other(name="node1"), "node1 refuses this host: two hosts are named node1")
    (line,) = b.identities.problems()
    assert line.startswith("refused a daemon that calls as node2: two hosts are named node1: this one, and the one")
    assert caplog.text.count("refused a daemon") == 1
    assert KEY in b.identities.disputed_keys
    b.clock.advance(61)
    assert b.identities.problems() == []
    assert KEY not in b.identities.disputed_keys


def test_one_that_was_started_anew_replaces_the_one_before():
    b = Bench()
    for instance in ("a", "b", "b", "c"):
        b.greet(other(instance))
    b.linked, b.now = other("c"), other("d")
    b.greet(other("d"))  # the loss of the link is not known yet
    b.now = None
    b.greet(other("e"))
    assert b.identities.problems() == []


def test_a_second_daemon_of_a_host_that_is_there_is_refused():
    b = Bench()
    b.linked = b.now = other("a")
    b.greet(other("a"))
    b.refuses(other("b", machine="m3"), r"two hosts are named node2: one on machine m3, one on machine m2")
    b.refuses(other("b"), r"two hosts are named node2: one at its address, and one that calls from another address")
    b.greet(other("a"), key="another key")
    assert len(b.identities.problems()) == 1


def test_two_that_call_in_turns_are_both_refused():
    b = Bench()
    b.greet(other("a"))
    b.greet(other("b"))
    b.refuses(other("a"), "two hosts are named node2 and call alternately")
    b.refuses(other("b"), "two hosts are named node2 and call alternately")


def test_one_that_is_right_again_is_let_in(caplog):
    b = Bench()
    b.refuses(other(name="node3"), "lists it as node2")
    caplog.set_level("INFO")
    b.greet(other())
    assert b.identities.problems() == []
    assert b.identities.disputed_keys == set()
    assert "node2 is the name of only one host again" in caplog.text


def test_one_of_an_earlier_version_says_nothing_that_could_be_doubted():
    b = Bench()
    b.linked = other("a")
    b.greet(other("", machine="", boot=""))
    assert b.identities.disputed_keys == set()
