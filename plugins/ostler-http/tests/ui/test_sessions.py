"""Sessions: what begins them, what ends them, and what is kept of them."""

from __future__ import annotations

import pytest

from ostler import NotPermitted, Peer
from ostler_http.ui.login_codes import CODE_LIFETIME, LoginCodes
from ostler_http.ui.login_limit import PERIOD, LoginLimit
from ostler_http.ui.session_store import SessionStore

USER = Peer(0, 0, 42, "uid 0")


@pytest.fixture
def store(gateway, clock):
    return SessionStore(gateway, clock, idle=100, lifetime=1000, limit=3)


def test_a_session_acts_as_the_caller_of_its_token(store):
    session_id, caller = store.open_with_token("operator-secret")
    assert caller.name == store.caller(session_id).name == "token:operator"


def test_sessions_have_ids_that_cannot_be_guessed_or_repeat(store):
    ids = {store.open_with_token("viewer-secret")[0] for _ in range(20)}
    assert len(ids) == 20
    assert min(len(one) for one in ids) >= 43


def test_a_session_ends_when_nobody_uses_it(store, clock):
    session_id, _ = store.open_with_token("viewer-secret")
    clock.advance(99)
    assert store.caller(session_id) is not None
    clock.advance(99)
    assert store.caller(session_id) is not None
    clock.advance(100)
    assert store.caller(session_id) is None


def test_a_page_that_is_only_kept_up_to_date_does_not_keep_its_session(store, clock):
    session_id, _ = store.open_with_token("viewer-secret")
    clock.advance(60)
    assert store.caller(session_id, is_use=False) is not None
    clock.advance(40)
    assert store.caller(session_id, is_use=False) is None


def test_a_session_ends_after_its_lifetime_however_much_it_is_used(store, clock):
    session_id, _ = store.open_with_token("viewer-secret")
    for _ in range(19):
        clock.advance(50)
        assert store.caller(session_id) is not None
    clock.advance(50)
    assert store.caller(session_id) is None


def test_a_session_ends_with_its_token(store, gateway):
    session_id, _ = store.open_with_token("viewer-secret")
    del gateway.tokens["viewer-secret"]
    assert store.caller(session_id) is None
    gateway.tokens["viewer-secret"] = "viewer"
    assert store.caller(session_id) is None, "a session that has ended began again"


def test_a_session_has_the_role_that_its_caller_has_now(store, gateway):
    session_id, _ = store.open_for_user(USER)
    gateway.users[0] = "viewer"
    assert store.caller(session_id).role == "viewer"
    gateway.users[0] = None
    assert store.caller(session_id) is None


def test_a_caller_without_a_role_gets_no_session(store, gateway):
    gateway.users[0] = None
    with pytest.raises(NotPermitted, match="no role"):
        store.open_for_user(USER)
    assert len(store) == 0


def test_the_session_that_was_not_used_for_longest_ends_when_there_are_too_many(store):
    ids = [store.open_with_token("viewer-secret")[0] for _ in range(3)]
    store.caller(ids[0])
    store.open_with_token("viewer-secret")
    assert [store.caller(one) is not None for one in ids] == [True, False, True]


def test_whoever_logs_in_often_ends_only_sessions_of_their_own(store):
    admin, _ = store.open_with_token("admin-secret")
    viewers = [store.open_with_token("viewer-secret")[0] for _ in range(10)]
    assert store.caller(admin) is not None
    assert [store.caller(one) is not None for one in viewers] == [False] * 8 + [True] * 2


def test_whoever_makes_many_login_links_takes_none_of_others(clock):
    codes = LoginCodes(clock)
    code = codes.issue(USER)
    for _ in range(300):
        codes.issue(Peer(1000, 1000, 7, "uid 1000"))
    assert codes.redeem(code) == USER


def test_memory_has_neither_tokens_nor_ids_of_sessions(store):
    session_id, _ = store.open_with_token("viewer-secret")
    kept = repr(vars(store))
    assert "viewer-secret" not in kept
    assert session_id not in kept


@pytest.mark.parametrize("session_id", ["", "x", "\udce4", "a" * 10_000])
def test_an_id_that_is_not_known_is_nobody(store, session_id):
    assert store.caller(session_id) is None
    store.close(session_id)


def test_a_code_is_used_up_at_its_first_use(clock):
    codes = LoginCodes(clock)
    code = codes.issue(USER)
    assert code not in repr(vars(codes))
    assert codes.redeem(code) == USER
    assert codes.redeem(code) is None


def test_a_code_expires_after_minutes(clock):
    codes = LoginCodes(clock)
    code = codes.issue(USER)
    clock.advance(CODE_LIFETIME)
    assert codes.redeem(code) is None


def test_codes_that_nobody_uses_are_bounded(clock):
    codes = LoginCodes(clock)
    first = codes.issue(USER)
    last = [codes.issue(USER) for _ in range(200)][-1]
    assert codes.redeem(first) is None
    assert codes.redeem(last) == USER


def test_an_address_that_fails_often_has_to_wait_and_others_do_not(clock):
    limit = LoginLimit(clock, 3)
    for _ in range(3):
        assert limit.seconds_to_wait("192.0.2.1") == 0
        limit.record_failure("192.0.2.1")
    assert limit.seconds_to_wait("192.0.2.1") == PERIOD
    assert limit.seconds_to_wait("192.0.2.2") == 0
    clock.advance(PERIOD)
    assert limit.seconds_to_wait("192.0.2.1") == 0


def test_addresses_that_fail_are_bounded(clock):
    limit = LoginLimit(clock, 1)
    for number in range(1001):
        limit.record_failure(str(number))
    assert limit.seconds_to_wait("0") == 0
    assert limit.seconds_to_wait("1000") > 0


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("unix", "192.0.2.2", False),
    ],
)
def test_addresses_of_one_network_of_ipv6_wait_together(clock, one, other, together):
    limit = LoginLimit(clock, 1)
    limit.record_failure(one)
    assert (limit.seconds_to_wait(other) > 0) is together
