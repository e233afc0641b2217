"""The W3C trace context."""

import asyncio
import threading

import pytest

from ostler.clock import FakeClock
from ostler.errors import InvalidInput
from ostler.messaging import Context, serving
from ostler.messaging.clients.client_core import ClientCore
from ostler.messaging.wire.envelope import decode_to_server
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import current_trace, is_valid_traceparent, trace_context

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00"


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (GOOD, True),
        (OTHER, True),
        (GOOD.replace("00-4", "01-4") + "-more", True),
        ("", False),
        ("rubbish", False),
        (GOOD + "-more", False),
        (GOOD.upper(), False),
        (GOOD.replace("00-4", "ff-4"), False),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        (f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", False),
        (GOOD[:-1] + "\n", False),
        (GOOD[:-2] + "٣٣", False),
    ],
)
def test_what_is_a_traceparent(text, is_one) -> None:
    assert is_valid_traceparent(text) is is_one


def test_the_trace_of_the_request_that_is_served_is_current() -> None:
    context = Context("lamp", "switch")
    context.trace = GOOD
    assert current_trace() == ""
    with serving(context):
        assert current_trace() == GOOD
        with trace_context(OTHER):
            assert current_trace() == OTHER
        assert current_trace() == GOOD


def test_what_is_no_traceparent_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidInput, match="not a valid W3C traceparent"), trace_context("nonsense"):
        pass


def test_threads_that_copy_their_context_and_tasks_have_it() -> None:
    async def main():
        with trace_context(GOOD):
            return await asyncio.gather(asyncio.create_task(coroutine()), asyncio.to_thread(current_trace))

    async def coroutine():
        return current_trace()

    assert asyncio.run(main()) == [GOOD, GOOD]
    seen = []
    with trace_context(GOOD):
        thread = threading.Thread(target=lambda: seen.append(current_trace()))
        thread.start()
        thread.join()
    assert seen == [""]  # a thread that somebody starts himself begins with nothing


def test_a_client_sends_the_trace_along() -> None:
    core = ClientCore(FakeClock())
    with trace_context(GOOD):
        _, data = core.start_call(CallRequest("lamp", "switch", {}), lambda result, error: None)
    assert decode_to_server(data).trace == GOOD
    _, data = core.start_call(CallRequest("lamp", "switch", {}), lambda result, error: None)
    assert decode_to_server(data).trace == ""


def test_a_trace_chosen_in_one_request_is_not_that_of_another_served_meanwhile() -> None:
    outer, inner = Context("lamp", "outer"), Context("lamp", "inner")
    inner.trace = GOOD
    with serving(outer), trace_context(OTHER):
        with serving(inner):
            assert current_trace() == GOOD
        assert current_trace() == OTHER
