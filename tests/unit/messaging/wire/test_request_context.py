import pytest

from ostler.clock import FakeClock
from ostler.errors import Cancelled, DeadlineExceeded
from ostler.messaging import Context, current_context, serving
from ostler.messaging.wire.request_context import describe_current_request
from ostler.types import Peer


def test_what_is_left_is_counted_on_the_monotonic_clock():
    clock = FakeClock()
    context = Context("lamp", "switch", deadline=clock.monotonic() + 5, clock=clock)
    clock.set_wall(0)
    clock.advance(2)
    assert context.remaining() == 3
    context.check()
    clock.advance(9)
    assert context.remaining() == 0
    with pytest.raises(DeadlineExceeded):
        context.check()
    assert Context("lamp", "switch").remaining() is None


def test_a_cancel_is_seen_and_told():
    context, told = Context("lamp", "switch"), []
    forget = context.on_cancel(lambda: told.append("forgotten"))
    context.on_cancel(lambda: told.append("first"))
    forget()
    context.cancel()
    context.on_cancel(lambda: told.append("late"))
    assert told == ["first", "late"]
    assert context.cancelled
    with pytest.raises(Cancelled):
        context.check()


def test_progress_is_a_sign_of_life_even_when_nobody_listens():
    clock, found = FakeClock(), []
    silent = Context("lamp", "switch", clock=clock)
    silent.progress(1)
    assert silent.last_progress == clock.monotonic()
    Context("lamp", "switch", on_progress=found.append).progress(1, 2, "x")
    assert found == [(1, 2, "x")]


def test_serving_is_for_the_block():
    context = Context("lamp", "switch")
    with serving(context):
        assert current_context() is context
    assert current_context() is None


@pytest.mark.parametrize("wrong", [(0.3, "a third"), ("1",), (1, 2, 3)])
def test_progress_of_another_type_is_said_where_the_mistake_is(wrong):
    seen = []
    context = Context("lamp", "switch", on_progress=seen.append)
    with pytest.raises(TypeError, match="two numbers and a text"):
        context.progress(*wrong)
    assert seen == []


def test_a_request_is_described_with_its_caller_and_its_id():
    assert describe_current_request() == ""
    with serving(Context("volume", "create", request_id="abc", peer=Peer(uid=1000, name="uid 1000"))):
        assert describe_current_request() == "volume.create of uid 1000 (request abc)"
    with serving(Context("volume", "tidy")):  # a periodic task
        assert describe_current_request() == "volume.tidy of local"
