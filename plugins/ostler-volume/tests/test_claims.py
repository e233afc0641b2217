from __future__ import annotations

import threading

import pytest

from ostler import CallCancelled, Context
from ostler_volume.claims import Claims


def test_requests_share_a_name_and_reconciliation_does_not(ctx):
    claims = Claims()
    with claims.hold(ctx, "a", "b"), claims.hold(ctx, "a"):
        with claims.alone("a") as mine:
            assert not mine
        with claims.alone("c") as mine:
            assert mine
    with claims.alone("a") as mine, claims.alone("a") as also_mine:
        assert mine
        assert not also_mine


def test_a_request_waits_for_reconciliation(ctx):
    claims, got = Claims(), threading.Event()

    def work():
        with claims.hold(ctx, "a"):
            got.set()

    with claims.alone("a") as mine:
        assert mine
        thread = threading.Thread(target=work)
        thread.start()
        assert not got.is_set()
    thread.join(5)
    assert got.is_set()


def test_a_request_that_waits_can_be_cancelled():
    claims, ctx = Claims(), Context("volume", "test")
    with claims.alone("a"):
        ctx.cancel()
        with pytest.raises(CallCancelled), claims.hold(ctx, "a"):
            pass
    with claims.alone("a") as mine:  # nothing is held by the one that gave up
        assert mine


def test_an_error_lets_go():
    claims = Claims()
    with pytest.raises(ZeroDivisionError), claims.hold(Context("volume", "test"), "a"):
        raise ZeroDivisionError
    with claims.alone("a") as mine:
        assert mine


def test_of_many_names_the_free_ones_are_claimed_and_let_go_one_by_one(ctx):
    claims = Claims()
    with claims.hold(ctx, "a"), claims.all_alone(["a", "b", "c"]) as mine:
        assert mine == {"b", "c"}
        claims.release(mine, ["b"])
        assert mine == {"c"}
        with claims.hold(ctx, "b"), claims.alone("c") as also_mine:
            assert not also_mine
    with claims.alone("c") as mine:
        assert mine
