"""A tenth of `make soak`, so that growth is seen the day it comes."""

import pytest
import soak


@pytest.mark.timeout(120)
def test_a_daemon_does_not_grow_over_many_calls_of_all_kinds():
    before, after, load, _ = soak.soak(100_000)
    assert not soak.has_grown(before, after), (before, after)
    assert load.made == 110_000
    assert (load.refused, load.missing) == (1100, 1100)
    assert load.items > 4000
    assert load.connects == 110
