import msgspec
import pytest

from ostler.clock import FakeClock
from ostler.errors import (
    Cancelled,
    Conflict,
    ConnectionLost,
    DaemonNotRunning,
    DeadlineExceeded,
    EncodeError,
    MalformedMessage,
)
from ostler.messaging import Context, serving
from ostler.messaging.clients.client_core import ClientCore
from ostler.messaging.wire.envelope import Keepalive, encode_failure, encode_message, encode_reply
from ostler.messaging.wire.request import CallRequest


class Caller:
    def __init__(self, **options):
        self.clock = FakeClock()
        self.core = ClientCore(self.clock, **options)
        self.ends = []

    def ask(self, **options):
        arguments = options.pop("arguments", {})
        ends = self.ends
        return self.core.start_call(
            CallRequest("lamp", "switch", arguments, **options),
            lambda value, error: ends.append(value if error is None else error),
        )


def fields(data):
    return msgspec.msgpack.decode(data)


def test_a_reply_settles_its_call_and_no_other():
    caller = Caller()
    _, first = caller.ask(arguments={"on": True})
    _, second = caller.ask()
    assert [fields(first)[2], fields(second)[2]] == [1, 2]
    assert fields(first)[5] == {"on": True}
    caller.core.receive(encode_reply(2, "two", 100, "", ""))
    caller.core.receive(encode_reply(2, "again", 100, "", ""))
    caller.core.receive(encode_failure(1, Conflict("one")))
    assert caller.ends[0] == "two"
    assert type(caller.ends[1]) is Conflict
    assert caller.core.pending_calls == []


def test_request_ids_differ_between_clients_and_carry_the_request_they_were_made_in():
    first, second = (fields(Caller().ask()[1])[7] for _ in range(2))
    assert first != second
    with serving(Context("outer", "method", request_id="abc-5")):
        assert fields(Caller().ask()[1])[7] == "abc-5.1"


@pytest.mark.parametrize(
    ("asked", "left", "sent"), [(None, None, 60), (5, None, 5), (None, 3, 3), (5, 3, 3), (2, 3, 2), (0, None, 0)]
)
def test_a_call_has_what_is_asked_but_no_more_than_is_left(asked, left, sent):
    caller = Caller()
    deadline = None if left is None else caller.clock.monotonic() + left
    with serving(Context("outer", "method", deadline=deadline, clock=caller.clock)):
        assert fields(caller.ask(timeout=asked)[1])[6] == sent


def test_no_call_is_made_for_a_request_that_is_over():
    caller = Caller()
    context = Context("outer", "method", deadline=caller.clock.monotonic() - 1, clock=caller.clock)
    with serving(context), pytest.raises(DeadlineExceeded):
        caller.ask()
    context.deadline = None
    context.cancel()
    with serving(context), pytest.raises(Cancelled):
        caller.ask()
    assert caller.core.pending_calls == []


def test_a_deadline_ends_the_call_and_cancels_it_on_the_server():
    caller = Caller()
    caller.ask(timeout=2)
    caller.clock.advance(2.1)
    assert caller.core.check_deadlines(caller.clock.monotonic()) == [], (
        "the server's own answer says more; it has a moment"
    )
    caller.clock.advance(0.2)
    out = caller.core.check_deadlines(caller.clock.monotonic())
    assert [fields(data) for data in out] == [[2, 1, 1]]
    assert type(caller.ends[0]) is DeadlineExceeded
    assert caller.core.next_check() is None


def test_silence_of_four_intervals_is_a_dead_server():
    caller = Caller(timeout=None)
    caller.ask()
    caller.clock.advance(3.9)
    assert caller.core.check_deadlines(caller.clock.monotonic()) == []
    caller.core.receive(encode_message(Keepalive(1, [1], 10.0)))
    caller.clock.advance(39)
    assert caller.core.check_deadlines(caller.clock.monotonic()) == [], "the server has told its interval"
    caller.clock.advance(2)
    caller.core.check_deadlines(caller.clock.monotonic())
    assert type(caller.ends[0]) is ConnectionLost


def test_a_beat_that_does_not_name_a_call_is_no_sign_of_its_life():
    caller = Caller(timeout=None)
    caller.ask()
    caller.ask()
    for _ in range(5):
        caller.clock.advance(1)
        caller.core.receive(encode_message(Keepalive(1, [2], 1.0)))
        caller.core.check_deadlines(caller.clock.monotonic())
    assert type(caller.ends[0]) is ConnectionLost
    assert [pending.number for pending in caller.core.pending_calls] == [2]


def test_progress_is_told_and_is_a_sign_of_life():
    caller = Caller(timeout=None)
    found = []
    _, data = caller.ask(on_progress=found.append)
    assert fields(data)[8] & 8
    caller.clock.advance(3.9)
    caller.core.receive(encode_message((13, 1, 1, 2.0, 4.0, "half")))
    caller.clock.advance(3.9)
    assert caller.core.check_deadlines(caller.clock.monotonic()) == []
    assert found == [(2.0, 4.0, "half")]


def test_a_progress_callback_that_raises_ends_the_call():
    caller = Caller()

    def fail(progress):
        raise LookupError

    caller.ask(on_progress=fail)
    out = caller.core.receive(encode_message((13, 1, 1, 2.0, 4.0, "half")))
    assert [fields(data) for data in out] == [[2, 1, 1]]
    assert type(caller.ends[0]) is LookupError


def test_everybody_hears_of_a_lost_server_by_the_name_of_their_call():
    caller = Caller()
    caller.ask()
    caller.ask()
    caller.core.fail_all(ConnectionLost("x"))
    assert ["lamp.switch" in str(end) for end in caller.ends] == [True, True]
    caller.ask()
    caller.core.fail_all(DaemonNotRunning("not there"))
    assert type(caller.ends[2]) is DaemonNotRunning


def test_cancel_is_sent_once():
    caller = Caller()
    pending, _ = caller.ask()
    assert fields(caller.core.cancel(pending)) == [2, 1, 1]
    assert caller.core.cancel(pending) is None
    caller.core.receive(encode_reply(1, "late", 100, "", ""))
    assert caller.ends == []


def test_a_call_that_cannot_be_encoded_leaves_nothing_behind():
    caller = Caller()
    with pytest.raises(EncodeError):
        caller.ask(arguments={"on": object()})
    assert caller.core.pending_calls == []


def test_results_are_decoded_to_the_type_that_is_asked_for():
    caller = Caller()
    caller.ask(result_type=list[int])
    caller.ask(result_type=int)
    caller.core.receive(encode_reply(1, (1, 2), 100, "", ""))
    caller.core.receive(encode_reply(2, "x", 100, "", ""))
    assert caller.ends[0] == [1, 2]
    assert type(caller.ends[1]) is MalformedMessage


def test_a_lenient_client_says_so():
    assert fields(Caller(lenient=True).ask()[1])[8] == 1


@pytest.mark.parametrize("interval", [1e300, float("inf")])
def test_no_server_makes_itself_be_waited_for_without_end(interval):
    caller = Caller(timeout=None)
    pending, _ = caller.ask()
    caller.core.receive(encode_message(Keepalive(1, [1], interval)))
    assert caller.core.next_check_of(pending) == caller.clock.monotonic() + 240
