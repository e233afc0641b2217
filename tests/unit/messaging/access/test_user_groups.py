"""The groups of users: what a user database that does not answer costs."""

import asyncio
import os
import threading
import time

import pytest

from ostler.errors import Busy
from ostler.messaging import Access, Context, exposed
from ostler.messaging.access.roles import LOOKUP_TIMEOUT, GroupLookup, read_user_groups
from ostler.types import Peer, Role
from support.waiting import wait_until

BOB, EVE = Peer(1000, 1000, 7, "uid 1000"), Peer(1001, 1001, 8, "uid 1001")


class Database:
    """A user database that answers when the test lets it."""

    def __init__(self):
        self.answers, self.asked = threading.Event(), []

    def find(self, peer):
        self.asked.append(peer.uid)
        assert self.answers.wait(10)
        return frozenset({50, peer.gid})


@pytest.fixture
def database():
    made = Database()
    yield made
    made.answers.set()


def test_what_is_known_at_once_is_returned_at_once(database):
    database.answers.set()
    groups = GroupLookup(database.find)
    assert groups.get_groups(BOB) == frozenset({50, 1000})
    assert not groups.is_pending(BOB)
    assert GroupLookup().get_groups(Peer(os.getuid(), os.getgid(), 1, "me")) == read_user_groups(
        Peer(os.getuid(), os.getgid(), 1, "me")
    )


@pytest.mark.failure_mode("Machine", "a user database that hangs")
def test_a_user_database_that_hangs_holds_the_loop_up_for_a_moment_once(database):
    groups = GroupLookup(database.find)
    began = time.monotonic()
    for _ in range(20):
        assert groups.get_groups(BOB) is None
    for uid in range(2000, 2020):
        assert groups.get_groups(Peer(uid, uid, 1, f"uid {uid}")) is None
    assert time.monotonic() - began < 8 * LOOKUP_TIMEOUT
    assert len(database.asked) <= 8, "no thread for each of them"
    database.answers.set()
    wait_until(lambda: groups.get_groups(BOB) == frozenset({50, 1000}))


def test_a_user_has_its_own_group_alone_until_the_others_are_known(database):
    access = Access(viewer=["@1000"], operator=["@50"], own_uid=0, groups_of=database.find)
    assert access.role_of(BOB) is Role.VIEWER
    assert access.role_of(EVE) is None
    assert access.is_pending(BOB)
    assert access.is_pending(EVE)
    database.answers.set()
    wait_until(lambda: access.role_of(BOB) is Role.OPERATOR)
    wait_until(lambda: access.role_of(EVE) is Role.OPERATOR)
    assert not access.is_pending(BOB)
    assert not access.is_pending(Peer(key="K", name="key:node2"))


class Shop:
    @exposed(role="operator")
    async def buy(self, ctx: Context) -> None: ...


async def test_who_may_turn_out_to_have_the_role_is_told_to_come_again(bench, database):
    from ostler.messaging.wire.envelope import PROTOCOL_VERSION, Failure, Request, encode_request

    bench.add("shop", Shop())
    bench.apply(access=Access(viewer=["@1000"], operator=["@50"], own_uid=0, groups_of=database.find))
    for number, peer in enumerate((BOB, EVE)):
        request = Request(PROTOCOL_VERSION, number, "shop", "buy", {}, None, "r-1", 0)
        bench.wire.take("client", encode_request(request), peer)
    said = bench.answers()
    assert [type(answer) for answer in said] == [Failure, Failure]
    assert {answer.names[0] for answer in said} == {f"ostler.{Busy.__name__}"}
    assert "not known yet" in said[0].message
    database.answers.set()
    wait_until(lambda: bench.dispatcher.access.role_of(EVE) is Role.OPERATOR)
    bench.wire.take("client", encode_request(Request(PROTOCOL_VERSION, 9, "shop", "buy", {}, None, "r-2", 0)), EVE)
    async with asyncio.timeout(5):
        while type(bench.answers()[-1]) is Failure:
            await asyncio.sleep(0.001)


def test_one_user_with_many_groups_does_not_take_all_look_ups(database):
    groups = GroupLookup(database.find)
    for gid in range(20):
        groups.get_groups(Peer(1000, gid, 1, "uid 1000"))
    assert database.asked == [1000, 1000]
    groups.get_groups(EVE)
    wait_until(lambda: database.asked == [1000, 1000, 1001])


def test_groups_that_come_late_are_told_of_once(database):
    told = []
    groups = GroupLookup(database.find, lambda: told.append(threading.current_thread().name))
    assert groups.get_groups(BOB) is None
    assert told == []
    database.answers.set()
    wait_until(lambda: told == ["ostler-groups-1000"])
    assert groups.get_groups(BOB) == frozenset({50, 1000})
    assert groups.get_groups(EVE) == frozenset({50, 1001})
    assert len(told) == 1, "nobody had to do without those"


@pytest.mark.failure_mode("Machine", "no memory for a thread")
def test_groups_are_not_known_yet_where_no_thread_can_look_them_up(monkeypatch):
    def fail(_thread):
        raise RuntimeError("can't start new thread")

    lookup = GroupLookup(lambda peer: frozenset({50, peer.gid}))
    with monkeypatch.context() as patched:
        # The limit of tasks is that of the user, and would hold for the whole run of the tests.
        patched.setattr(threading.Thread, "start", fail)
        assert lookup.get_groups(BOB) is None
    assert lookup.get_groups(BOB) == frozenset({50, 1000})
