"""Shares of something bounded."""

from ostler.aio.fair_quota import FairQuota, is_within_share


def test_one_account_alone_gets_half_and_there_is_always_some_for_another():
    shares = FairQuota(10)
    while shares.has_room("a"):
        shares.acquire("a")
    assert shares.used("a") == 5
    while shares.has_room("b"):
        shares.acquire("b")
    assert shares.used("b") == 3
    assert shares.has_room("c")


def test_something_large_is_not_taken_when_it_is_more_than_what_is_free():
    shares = FairQuota(100)
    assert shares.has_room("a", 100)
    shares.acquire("a", 40)
    assert not shares.has_room("a", 21)
    assert shares.has_room("a", 20)
    assert not shares.has_room("b", 61)


def test_what_was_given_back_is_free_again():
    shares = FairQuota(2)
    shares.acquire("a", 2)
    assert not shares.has_room("b")
    shares.release("a", 2)
    assert (shares.total, len(shares)) == (0, 0)
    assert shares.has_room("b")


def test_no_account_may_use_more_than_what_is_free():
    assert is_within_share(0, 1, 1)  # with a limit of one whoever comes first has it
    assert is_within_share(5, 5, 10)
    assert not is_within_share(5, 6, 10)
    assert not is_within_share(0, 1, 0)
