"""When a request is sent again."""

import pytest

from ostler.clock import FakeClock
from ostler.errors import (
    Busy,
    ConnectionLost,
    DaemonNotRunning,
    InvalidInput,
    MessagingError,
    MethodNotFound,
    NotFound,
    ServiceNotFound,
)
from ostler.messaging.clients.operation import SUBMIT_RETRY
from ostler.messaging.clients.retry import Retry, RetryAttempts


def attempts(policy=None, timeout=60.0):
    clock = FakeClock()
    return RetryAttempts(policy or Retry(), clock, timeout), clock


def test_each_wait_is_about_twice_the_one_before_up_to_the_longest():
    made, _ = attempts(Retry(attempts=10, backoff=1, max_backoff=4), None)
    for most in (1, 2, 4, 4, 4):
        wait = made.delay_after(Busy("full"))
        assert most / 2 < wait <= most


def test_what_the_server_asks_for_is_waited():
    made, _ = attempts(Retry(backoff=0.1))
    assert made.delay_after(Busy("full", retry_after=7)) == 7
    assert made.delay_after(Busy("full", retry_after="soon")) < 1


def test_the_last_attempt_raises_its_error_and_says_how_many_there_were():
    made, _ = attempts(Retry(attempts=3))
    made.delay_after(Busy("full"))
    made.delay_after(Busy("full"))
    error = Busy("full")
    with pytest.raises(Busy) as caught:
        made.delay_after(error)
    assert caught.value is error
    assert error.attempts == 3


def test_other_errors_are_raised_at_once():
    for error in (NotFound("gone"), ConnectionLost("lost")):
        made, _ = attempts()
        with pytest.raises(type(error)):
            made.delay_after(error)
        assert "attempts" not in error.details
    made, _ = attempts(Retry(on=()))
    with pytest.raises(Busy):
        made.delay_after(Busy("full"))


def test_a_method_that_is_not_found_is_never_tried_again():
    made, _ = attempts(Retry(on=(MessagingError,)))
    with pytest.raises(MethodNotFound):
        made.delay_after(MethodNotFound("no such method"))
    made, _ = attempts(Retry(on=(ServiceNotFound,)))
    assert made.delay_after(ServiceNotFound("it is being added")) > 0


def test_a_daemon_that_is_not_there_is_waited_for_only_once_it_was_lost():
    made, _ = attempts(SUBMIT_RETRY)
    with pytest.raises(DaemonNotRunning):
        made.delay_after(DaemonNotRunning("nothing listens"))
    made, _ = attempts(SUBMIT_RETRY)
    made.delay_after(ConnectionLost("killed"))
    for error in (DaemonNotRunning("nothing listens"), ServiceNotFound("not there yet")):
        made.delay_after(error)
    with pytest.raises(MethodNotFound):
        made.delay_after(MethodNotFound("no such method"))


def test_a_request_that_may_have_been_accepted_is_never_said_not_to_have_been():
    made, _ = attempts(Retry(attempts=2, on=(ConnectionLost,), after_loss=(ServiceNotFound,)))
    made.delay_after(ConnectionLost("killed"))
    with pytest.raises(ConnectionLost):
        made.delay_after(ServiceNotFound("not there yet"))


def test_no_attempt_is_made_beyond_the_deadline():
    made, clock = attempts(Retry(attempts=9, backoff=1), 5)
    assert made.remaining_time() == 5
    clock.advance(4)
    assert made.remaining_time() == 1
    with pytest.raises(Busy):
        made.delay_after(Busy("full", retry_after=1))
    clock.advance(4)
    assert made.remaining_time() == 0


def test_a_daemon_that_is_not_back_is_told_as_the_loss_that_it_was():
    made, _ = attempts(Retry(attempts=2, on=(MessagingError,)))
    made.delay_after(ConnectionLost("may or may not have been executed"))
    with pytest.raises(ConnectionLost):
        made.delay_after(DaemonNotRunning("nobody listens"))


@pytest.mark.parametrize(
    "policy",
    [
        Retry(attempts=0),
        Retry(backoff=-1),
        Retry(max_backoff=-1),
        Retry(on=(ValueError,)),
        Retry(on=("Busy",)),
        Retry(on=(MethodNotFound,)),
        Retry(after_loss=("Busy",)),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(policy):
    with pytest.raises(InvalidInput):
        attempts(policy)


def test_a_request_is_sent_until_it_goes_well_with_what_is_left_of_its_time():
    made, clock = attempts(Retry(backoff=1), 60.0)
    told, answers = [], [Busy("full"), Busy("full"), "done"]

    def send(timeout):
        told.append(timeout)
        if isinstance(found := answers.pop(0), Busy):
            raise found
        return found

    assert made.run(send, clock.advance) == "done"
    assert told[0] == 60.0
    assert 57.0 <= told[2] < 59.0  # 1 s and 2 s, less up to a half at random
    assert sorted(told, reverse=True) == told


async def test_on_a_loop_it_is_sent_in_the_same_way():
    made, clock = attempts(Retry(attempts=2, backoff=1), 60.0)
    waits = []

    async def send(timeout):
        raise Busy("full")

    async def pause(wait):
        waits.append(wait)
        clock.advance(wait)

    with pytest.raises(Busy) as caught:
        await made.arun(send, pause)
    assert caught.value.attempts == 2
    assert len(waits) == 1
