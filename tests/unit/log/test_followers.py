from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from ostler import log
from ostler.errors import Busy
from ostler.log.followers import FOLLOWERS, MAX_FOLLOWERS, MAX_WAITING_RECORDS, NOBODY, Filter, Follower
from ostler.redaction import SECRETS

LOGGER = logging.getLogger("ostler.followed")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log.set_up(stream=stream, environ={})
    guard = log.start_guard()
    yield stream
    guard.stop()


@pytest.fixture
def follow(stream: io.StringIO) -> Iterator[object]:
    added: list[Follower] = []

    def start(**wanted: object) -> Follower:
        follower = Follower(Filter(**wanted), lambda: None)  # type: ignore[arg-type]
        FOLLOWERS.add(follower)
        added.append(follower)
        return follower

    yield start
    for each in added:
        FOLLOWERS.remove(each)
    assert FOLLOWERS.level == NOBODY


def messages(follower: Follower) -> list[str]:
    return [record.message for record in follower.take().records]


def test_a_follower_gets_what_the_log_leaves_out_and_the_log_does_not_change(stream, follow):
    follower, other = follow(level=logging.DEBUG), follow()
    LOGGER.debug("fine")
    LOGGER.info("coarse")
    assert messages(follower) == ["fine", "coarse"]
    assert messages(other) == ["coarse"]
    assert "fine" not in stream.getvalue()
    assert "coarse" in stream.getvalue()


def test_when_nobody_follows_nothing_below_the_level_is_formatted(stream, follow):
    class Loud:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    LOGGER.debug("%s", Loud())
    assert not LOGGER.isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"logger": "ostler.followed"}, ["own", "service", "request"]),
        ({"logger": "ostler.follow"}, []),
        ({"service": "volume"}, ["service"]),
        ({"request_id": "r1"}, ["request"]),
        ({"level": logging.ERROR}, []),
    ],
)
def test_records_are_chosen_by_logger_service_request_and_level(stream, follow, wanted, expected):
    follower = follow(**wanted)
    LOGGER.info("own")
    log.adapter(LOGGER, service="volume").info("service")
    log.adapter(LOGGER, request_id="r1").warning("request")
    assert messages(follower) == expected


def test_secrets_are_redacted_as_in_the_log(stream, follow):
    follower = follow()
    SECRETS.add("hunter2-hunter2")
    LOGGER.warning("the password is %s", "hunter2-hunter2", extra=log.extra(note="hunter2-hunter2"))
    taken = follower.take().records[0]
    assert "hunter2" not in f"{taken}"
    assert "hunter2" not in stream.getvalue()


def test_what_is_not_taken_is_dropped_and_counted(stream, follow):
    follower = follow()
    for number in range(MAX_WAITING_RECORDS + 5):
        LOGGER.info("line %s", number)
    taken = follower.take()
    assert (len(taken.records), taken.dropped) == (MAX_WAITING_RECORDS, 5)
    LOGGER.info("again")
    assert (messages(follower), follower.take().dropped) == (["again"], 0)
    big = follow()
    for _ in range(100):
        LOGGER.info("x" * 15_000)
    assert big.take().dropped > 20


def test_a_record_that_cannot_be_shown_harms_neither_log_nor_follower(stream, follow):
    class Evil:
        def __str__(self) -> str:
            raise SystemExit

    follower = follow(level=logging.DEBUG)
    LOGGER.debug("%s", Evil())
    assert len(follower.take().records) == 1


def test_too_many_followers_are_refused(stream, follow):
    for _ in range(MAX_FOLLOWERS):
        follow()
    with pytest.raises(Busy, match="follow the log already"):
        follow()


def test_a_forked_child_passes_nothing_on(stream, follow):
    woken = threading.Event()
    follower = Follower(Filter(), woken.set)
    FOLLOWERS.add(follower)
    try:
        child = os.fork()
        if child == 0:
            LOGGER.info("from the child")
            os._exit(1 if woken.is_set() else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        FOLLOWERS.remove(follower)
