"""A tenth of `make growth`, so that growth is seen the day it comes."""

import growth
import pytest


@pytest.mark.timeout(120)
def test_a_daemon_does_not_grow_over_many_calls_of_all_kinds():
    before, after, load, _ = growth.grow(100_000)
    assert not growth.has_grown(before, after), (before, after)
    assert load.made == 110_000
    assert (load.refused, load.missing) == (1100, 1100)
    assert load.items > 4000
    assert load.connects == 110
