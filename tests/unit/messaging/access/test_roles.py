import grp
import os
import pwd

import pytest

from ostler.messaging import Access
from ostler.types import LOCAL_PEER, Peer, Role

# private: _roles_by_user: that the memory is bounded shows in nothing else


def peer(uid, gid=-1):
    return Peer(uid, gid, 1, f"uid {uid}")


def test_by_default_root_and_the_daemons_user_may_do_all_and_nobody_else_anything():
    access = Access(own_uid=500)
    assert access.role_of(peer(0)) is Role.ADMIN
    assert access.role_of(peer(500)) is Role.ADMIN
    assert access.role_of(peer(501)) is None
    assert access.role_of(LOCAL_PEER) is Role.ADMIN


def test_a_peer_that_is_not_known_by_uid_gets_nothing_even_when_everybody_may_look():
    access = Access(viewer=["*"])
    assert access.role_of(Peer()) is None
    assert access.role_of(Peer(name="local")) is None, "only the very object is the daemon itself"
    assert access.role_of(peer(4242)) is Role.VIEWER


def test_the_highest_role_counts():
    access = Access(viewer=["*", "7"], operator=["7"], admin=["8"], own_uid=0)
    assert [access.role_of(peer(uid)) for uid in (6, 7, 8)] == [Role.VIEWER, Role.OPERATOR, Role.ADMIN]


def test_users_are_named_by_name_and_by_uid():
    user = pwd.getpwall()[-1]
    assert Access(operator=[user.pw_name], own_uid=-5).role_of(peer(user.pw_uid)) in (Role.OPERATOR, Role.ADMIN)
    assert Access(operator=[str(user.pw_uid)], own_uid=-5).role_of(peer(user.pw_uid)) in (Role.OPERATOR, Role.ADMIN)


def test_groups_are_those_the_user_has_now_not_those_of_the_connection_alone():
    group = grp.getgrall()[-1]
    access = Access(viewer=[f"@{group.gr_name}"], groups_of=lambda who: frozenset({group.gr_gid}), own_uid=0)
    assert access.role_of(peer(4242)) is Role.VIEWER
    assert Access(viewer=["@77"], own_uid=0).role_of(peer(4_000_000, gid=77)) is Role.VIEWER
    assert Access(viewer=["@77"], own_uid=0).role_of(peer(4_000_000, gid=78)) is None


def test_a_users_own_groups_are_looked_up():
    me = pwd.getpwuid(os.getuid())
    assert Access(viewer=[f"@{me.pw_gid}"], own_uid=-5).role_of(peer(me.pw_uid, me.pw_gid)) is not None


def test_names_that_nobody_has_are_told():
    access = Access(viewer=["nobody-has-this-name"], admin=["@no-such-group"])
    assert access.unknown_names == ["@no-such-group", "nobody-has-this-name"]


def test_roles_are_remembered_but_not_without_end():
    asked = []
    access = Access(viewer=["@7"], own_uid=0, groups_of=lambda who: asked.append(who) or frozenset())
    for _ in range(3):
        access.role_of(peer(9))
    assert len(asked) == 1
    for uid in range(1, 5000):
        access.role_of(peer(uid))
    assert len(access._roles_by_user) <= 4096


@pytest.mark.parametrize("name", ["", "-1", "@"])
def test_odd_names_match_nobody(name):
    assert Access(viewer=[name], own_uid=0).role_of(peer(4242)) is None


def test_a_key_has_the_roles_of_its_name_and_none_when_it_has_no_name():
    access = Access(
        viewer=["*", "key:node2"], operator=["key:node2"], admin=["key:node9"], keys={"K2": "node2", "K3": "node3"}
    )
    assert access.role_of(Peer(key="K2")) is Role.OPERATOR
    assert access.role_of(Peer(key="K3")) is None, "everybody is every local user"
    assert access.role_of(Peer(key="K9")) is None
    assert access.unknown_names == ["key:node9"]
