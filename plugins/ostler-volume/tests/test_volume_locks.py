from __future__ import annotations

import threading

import pytest

from ostler import Cancelled, Context
from ostler_volume.volume_locks import VolumeLocks


def test_requests_share_a_name_and_reconciliation_does_not(ctx):
    claims = VolumeLocks()
    with claims.lock_shared(ctx, "a", "b"), claims.lock_shared(ctx, "a"):
        with claims.lock_exclusive("a") as mine:
            assert not mine
        with claims.lock_exclusive("c") as mine:
            assert mine
    with claims.lock_exclusive("a") as mine, claims.lock_exclusive("a") as also_mine:
        assert mine
        assert not also_mine


def test_a_request_waits_for_reconciliation(ctx):
    claims, got = VolumeLocks(), threading.Event()

    def work():
        with claims.lock_shared(ctx, "a"):
            got.set()

    with claims.lock_exclusive("a") as mine:
        assert mine
        thread = threading.Thread(target=work)
        thread.start()
        assert not got.is_set()
    thread.join(5)
    assert got.is_set()


def test_a_request_that_waits_can_be_cancelled():
    claims, ctx = VolumeLocks(), Context("volume", "test")
    with claims.lock_exclusive("a"):
        ctx.cancel()
        with pytest.raises(Cancelled), claims.lock_shared(ctx, "a"):
            pass
    with claims.lock_exclusive("a") as mine:  # nothing is held by the one that gave up
        assert mine


def test_an_error_lets_go():
    claims = VolumeLocks()
    with pytest.raises(ZeroDivisionError), claims.lock_shared(Context("volume", "test"), "a"):
        raise ZeroDivisionError
    with claims.lock_exclusive("a") as mine:
        assert mine


def test_of_many_names_the_free_ones_are_claimed_and_let_go_one_by_one(ctx):
    claims = VolumeLocks()
    with claims.lock_shared(ctx, "a"), claims.lock_all_exclusive(["a", "b", "c"]) as mine:
        assert mine == {"b", "c"}
        claims.release_exclusive(mine, ["b"])
        assert mine == {"c"}
        with claims.lock_shared(ctx, "b"), claims.lock_exclusive("c") as also_mine:
            assert not also_mine
    with claims.lock_exclusive("c") as mine:
        assert mine
