import logging

import pytest

from ostler.errors import StoreUnavailable
from ostler.store import Outage


@pytest.fixture
def outage(clock):
    return Outage(logging.getLogger("test.outage"), "the services table", clock)


def test_it_is_said_once_and_once_when_it_is_back(outage, clock, caplog):
    assert not outage.worked()
    assert outage.failed(StoreUnavailable("it is locked"))
    for _ in range(5):
        clock.advance(10)
        assert not outage.failed(StoreUnavailable("it is full"))
    assert outage.worked()
    assert not outage.worked()
    assert [record.message for record in caplog.records] == [
        "the services table failed; further failures are not logged until it works again: it is locked",
        "the services table works again after 50s and 6 failed attempts",
    ]


def test_it_can_be_asked_why_and_since_when(outage, clock):
    outage.failed(ValueError("broken"))
    clock.advance(5)
    outage.failed(StoreUnavailable("it is full"))
    assert (outage.is_active, outage.why, outage.since) == (True, "it is full", clock.wall() - 5)
    outage.worked()
    assert (outage.is_active, outage.why) == (False, "")


def test_each_outage_is_said_anew(outage, caplog):
    for _ in range(3):
        outage.failed(ValueError("x"))
        outage.worked()
    assert len(caplog.records) == 6
