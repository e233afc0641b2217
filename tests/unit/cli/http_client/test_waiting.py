"""How long the server is waited for."""

from __future__ import annotations

import pytest

from ostler.cli.http_client.connection import Wait
from ostler.errors import ConnectionLost, DeadlineExceeded


def test_a_stream_without_a_sign_of_life_counts_as_lost():
    wait = Wait("lamp.watch", None, is_stream=True)
    assert wait.next_pause() == 60
    assert isinstance(wait.timeout_error(), ConnectionLost)


def test_a_call_is_waited_for_until_its_deadline():
    assert 29 < Wait("lamp.show", 30).next_pause() <= 31
    assert Wait("lamp.show", None).next_pause() is None
    assert 0.9 < Wait("lamp.show", 0.2, is_stream=True).next_pause() <= 1.2


def test_what_has_no_time_is_not_sent():
    with pytest.raises(DeadlineExceeded, match="had passed before it started"):
        Wait("lamp.show", 0).check()
    Wait("lamp.show", None).check()
