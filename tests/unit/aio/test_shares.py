"""Shares of something bounded."""

from ostler.aio.shares import Shares, within_share


def test_one_account_alone_gets_half_and_there_is_always_some_for_another():
    shares = Shares(10)
    while shares.room("a"):
        shares.take("a")
    assert shares.used("a") == 5
    while shares.room("b"):
        shares.take("b")
    assert shares.used("b") == 3
    assert shares.room("c")


def test_something_large_is_not_taken_when_it_is_more_than_what_is_free():
    shares = Shares(100)
    assert shares.room("a", 100)
    shares.take("a", 40)
    assert not shares.room("a", 21)
    assert shares.room("a", 20)
    assert not shares.room("b", 61)


def test_what_was_given_back_is_free_again():
    shares = Shares(2)
    shares.take("a", 2)
    assert not shares.room("b")
    shares.give_back("a", 2)
    assert (shares.total, len(shares)) == (0, 0)
    assert shares.room("b")


def test_no_account_may_use_more_than_what_is_free():
    assert within_share(0, 1, 1)  # with a limit of one whoever comes first has it
    assert within_share(5, 5, 10)
    assert not within_share(5, 6, 10)
    assert not within_share(0, 1, 0)
