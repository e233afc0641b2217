"""What peers make the daemon hold."""

import pytest

from ostler.errors import Busy
from ostler.messaging.wire.peer_quotas import MemoryAccounts
from ostler.types import Peer

MIB = 1024 * 1024


def account(accounts, uid, **options):
    return accounts.open(uid, Peer(uid, uid, 1, f"uid {uid}"), **options)


def fill(account_, step=MIB):
    while account_.has_room(step):
        account_.charge(step)
    return account_.held_bytes


def test_one_alone_gets_half_and_there_is_always_some_for_another():
    accounts = MemoryAccounts(96 * MIB)
    assert fill(account(accounts, 1)) == 48 * MIB
    assert fill(account(accounts, 2)) == 24 * MIB
    assert fill(account(accounts, 3)) == 12 * MIB
    assert accounts.held_bytes <= accounts.limit


def test_who_may_do_everything_uses_all_and_some_more():
    accounts = MemoryAccounts(96 * MIB)
    fill(account(accounts, 1))
    root = account(accounts, 0, privileged=True)
    assert fill(root) == 48 * MIB + 32 * MIB


def test_connections_of_a_user_share_an_account_that_is_forgotten_when_empty():
    accounts = MemoryAccounts()
    first, second = account(accounts, 1), account(accounts, 1)
    assert first is second
    first.charge(10)
    first.close()
    second.close()
    assert accounts.stats()["accounts"] == {"uid 1": 10}  # a request that goes on
    first.release(10)
    assert accounts.stats() == {"held": 0, "limit": accounts.limit, "refused": 0, "accounts": {}}
    assert account(accounts, 1) is not first


def test_a_refusal_says_who_holds_how_much_and_which_limit_it_is():
    accounts = MemoryAccounts(10 * MIB)
    mine = account(accounts, 1)
    fill(mine)
    error = mine.no_room_error("shop.sell")
    assert isinstance(error, Busy)
    assert error.message == ("shop.sell was refused: uid 1 uses 5MiB of the daemon's memory, all peers 5MiB of 10MiB")
    assert error.details["limit"] == "max_memory"
    assert accounts.stats()["refused"] == 1


@pytest.mark.parametrize(("held", "calls"), [(8 * MIB, []), (40 * MIB, ["much", "freed"])])
def test_when_much_was_held_and_is_not_any_more_somebody_is_told(held, calls):
    told = []
    accounts = MemoryAccounts(on_high_usage=lambda: told.append("much"), on_freed=lambda: told.append("freed"))
    mine = account(accounts, 1)
    for _ in range(held // MIB):
        mine.charge(MIB)
    for _ in range(held // MIB):
        mine.release(MIB)
    assert told == calls


def test_bytes_that_several_hold_are_charged_once_and_to_one_who_holds_them_still():
    accounts = MemoryAccounts()
    first, second = account(accounts, 1), account(accounts, 2)
    event = bytes(MIB)
    first.charge_shared(event)
    second.charge_shared(event)
    second.charge_shared(event)
    assert (first.held_bytes, second.held_bytes, accounts.held_bytes) == (MIB, 0, MIB)
    first.release_shared(event)
    assert (first.held_bytes, second.held_bytes, accounts.held_bytes) == (0, MIB, MIB)
    second.release_shared(event)
    assert accounts.held_bytes == MIB
    second.release_shared(event)
    assert (second.held_bytes, accounts.held_bytes) == (0, 0)


def test_what_others_hold_anyhow_needs_no_room():
    accounts = MemoryAccounts(4 * MIB)
    first, second = account(accounts, 1), account(accounts, 2)
    event, another = bytes(3 * MIB), bytes(3 * MIB)
    first.charge_shared(event)
    assert second.has_room_for(event)
    assert not second.has_room_for(another)
