"""What a client promises, over the socket and over HTTP: the same results, errors, cancellation and ids."""

from __future__ import annotations

import itertools
import re

import msgspec
import pytest

from ostler import (
    Busy,
    Conflict,
    DeadlineExceeded,
    Event,
    InvalidInput,
    NotFound,
    Retry,
    UnsupportedVersion,
    WrongCallKind,
)
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import trace_context
from ostler.types import OperationState

REQUEST_ID = re.compile(r"[0-9a-f]{32}(-\d+)?")
names = (f"n{number}" for number in itertools.count())


class Echo(msgspec.Struct):
    text: str
    count: int
    image: bytes = b""
    tags: list[str] = []


@pytest.fixture(params=["socket", "http"])
def client(request, command_site):
    with command_site.client(request.param, timeout=20.0) as opened:
        yield opened


@pytest.fixture
def name():
    return next(names)


def test_a_result_is_plain_or_of_the_type_that_was_asked_for(client):
    text = "ünïcode \x00 \x1b 𝄞"
    plain = client.call("lamp", "echo", text=text, count=2**63 - 1)
    assert (plain["text"], plain["count"], plain["tags"]) == (text, 2**63 - 1, [])
    typed = client.on(type=Echo).call("lamp", "echo", text=text, image=b"\x00\xff", tags=["a", "b"])
    assert typed == Echo(text, 1, b"\x00\xff", ["a", "b"])


def test_texts_stand_for_numbers_for_a_lenient_client_alone(request, command_site, client):
    with pytest.raises(Exception, match="count") as caught:
        client.call("lamp", "echo", text="a", count="7")
    assert caught.value.exit_code == 2
    with command_site.client(request.node.callspec.params["client"], lenient=True) as lenient:
        found = lenient.on(type=Echo).call("lamp", "echo", text="a", count="7", tags='["x"]')
        assert found == Echo("a", 7, tags=["x"])


def test_a_version_that_the_service_does_not_have_is_refused(client):
    request = CallRequest("lamp", "echo", {"text": "a"}, version="1.0")
    assert client.send_request(request)["text"] == "a"
    with pytest.raises(UnsupportedVersion):
        client.send_request(request._replace(version="7.0"))
    with pytest.raises(UnsupportedVersion):
        list(client.open_stream(request._replace(version="7.0", method="numbers", arguments={"to": 1})))


def test_progress_is_reported_before_the_result(client):
    seen = []
    assert client.on(on_progress=seen.append).call("lamp", "slowly", steps=3) == "done"
    assert [(each.done, each.total, each.text) for each in seen][-1] == (3, 3, "step 3")


def test_a_call_without_a_deadline_ends_with_its_result(command_site):
    with command_site.client("http", timeout=None) as opened:
        assert opened.on(type=Echo).call("lamp", "echo", text="a").text == "a"


def test_what_on_progress_raises_ends_the_call_on_the_server(client, command_site, name):
    def interrupt(_report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.on(on_progress=interrupt).call("lamp", "wait", name=name)
    command_site.daemon.wait_log(f"wait {name} was cancelled")


def test_a_call_that_is_late_ends_with_its_deadline(client, name):
    with pytest.raises(DeadlineExceeded):
        client.on(timeout=0.2).call("lamp", "wait", name=name)


def test_a_method_that_yields_is_not_called(client, name):
    with pytest.raises(WrongCallKind) as caught:
        client.on(on_progress=print).call("lamp", "numbers", to=3, name=name)
    assert caught.value.details["streams"] is True
    assert client.call("lamp", "count_of", name=name) == 0


def test_a_method_that_does_not_yield_is_not_streamed(client, name):
    with pytest.raises(WrongCallKind), client.stream("lamp", "bump", name=name) as stream:
        list(stream)
    assert client.call("lamp", "count_of", name=name) == 0


def test_items_come_in_order_and_an_error_after_them(client):
    assert list(client.stream("lamp", "numbers", to=3000)) == list(range(3000))
    seen = []
    with pytest.raises(NotFound, match="no more"):
        seen.extend(client.stream("lamp", "numbers", to=0, fail=True))
    stream = client.stream("lamp", "numbers", to=2, fail=True)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(NotFound, match="no more"):
        next(stream)


def test_who_leaves_a_stream_ends_it_and_goes_on_with_calls(client, command_site, name):
    with client.stream("lamp", "tick", name=name) as stream:
        assert next(stream) == 1
        assert client.call("lamp", "count_of", name="nobody") == 0
    command_site.daemon.wait_log(f"the reader of {name} has left")


def test_an_item_that_does_not_come_in_time_is_an_error(client, name):
    with pytest.raises(DeadlineExceeded, match=r"no item|deadline"):
        list(client.on(timeout=0.3).stream("lamp", "tick", name=name))


def test_a_cast_is_accepted_and_runs(client, name):
    with client.events("lamp") as events:
        client.cast("lamp", "tell", name=name)
        assert next(each.name for each in events if isinstance(each, Event) and each.name == name) == name


def test_a_fanout_says_how_many_have_accepted_it(client, name):
    assert client.fanout("lamp", "bump", name=name) == 1
    with pytest.raises(InvalidInput):
        client.on(host="node1").fanout("lamp", "bump", name=name)


def test_an_operation_is_submitted_watched_and_has_a_result(client, name):
    operation = client.submit("lamp", "build", name=name)
    assert (operation.status.method, operation.status.host) == ("build", "node1")
    assert [status.state for status in operation.watch(20)][-1] is OperationState.SUCCEEDED
    assert operation.result(20) == f"{name} is built"


def test_the_same_id_is_the_same_operation(client, name):
    first = client.on(request_id=name).submit("lamp", "build", name=name)
    second = client.on(request_id=name).submit("lamp", "build", name=name)
    assert first.id == second.id
    assert first.id.startswith(name)
    with pytest.raises(Conflict):
        client.on(request_id=name).submit("lamp", "build", name="another")


def test_an_operation_can_be_cancelled(client, command_site, name):
    operation = client.submit("lamp", "hold", name=name)
    command_site.daemon.wait_log(f"hold {name} has begun")
    operation.cancel()
    assert [status.state for status in operation.watch(20)][-1] is OperationState.CANCELLED


def test_an_operation_has_its_time(client, name):
    operation = client.on(time_limit=0.2).submit("lamp", "hold", name=name)
    with pytest.raises(DeadlineExceeded):
        operation.result(20)


def test_attempts_with_one_id_run_once(client, name):
    request = CallRequest("lamp", "bump", {"name": name}, request_id=f"once-{name}")
    assert [client.send_request(request, Retry()) for _ in range(3)] == [1, 1, 1]
    assert [client.call("lamp", "bump", name=name) for _ in range(2)] == [2, 3]


def test_a_retry_tries_what_was_refused_again(client):
    with pytest.raises(Busy) as caught:
        client.on(retry=Retry(attempts=2, on=(Busy,)), timeout=20).call("lamp", "fail", kind="busy")
    assert (caught.value.attempts, caught.value.retry_after) == (2, 0.25)


def test_events_come_from_the_journal_and_then_live(client, name):
    for value in range(3):
        client.call("lamp", "tell", name=name, value=value)
    with client.events(f"lamp.*.{name}", since=1) as events:
        found = [next(events) for _ in range(3)]
        client.call("lamp", "tell", name=name, value=3)
        found.append(next(events))
    assert [each.payload["value"] for each in found] == [0, 1, 2, 3]
    assert all(1.7e9 < each.at < 1e10 and each.key == f"lamp.node1.{name}" for each in found)
    with client.events(f"lamp.*.{name}", since=found[2].sequence) as events:
        assert [next(events).sequence, next(events).sequence] == [each.sequence for each in found[2:]]


def test_the_last_event_of_each_key_comes_first_on_demand(client, name):
    with client.events(f"lamp.*.{name}") as events:
        for value in range(3):
            client.call("lamp", "tell", name=name, value=value)
        assert [next(events).payload["value"] for _ in range(3)] == [0, 1, 2]
    with client.events(f"lamp.*.{name}", last=True) as events:
        assert next(events).payload["value"] == 2
    with pytest.raises(InvalidInput):
        client.events("lamp", since=1, last=True)
    with pytest.raises(InvalidInput):
        client.events("lamp", since=0)


def test_a_client_can_be_closed_twice_and_its_streams_end(client):
    stream = client.events("lamp")
    stream.close()
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)
    client.close()
    client.close()


FAILURES = [
    ("lamp", "fail", {"kind": "missing"}),
    ("lamp", "fail", {"kind": "busy"}),
    ("lamp", "fail", {"kind": "own"}),
    ("lamp", "fail", {"kind": "crash"}),
    ("lamp", "fail", {}),
    ("lamp", "fail", {"kind": 7}),
    ("lamp", "fial", {"kind": "missing"}),
    ("lamp", "publish", {}),
    ("lamp", "init_host", {}),
    ("lamq", "fail", {"kind": "missing"}),
    ("volume", "get_volume", {"name": "nothing"}),
    ("ostler", "operation.show", {"operation": "nothing"}),
    ("ostler", "log_level", {"level": "loud"}),
    ("ostler", "service_show", {"topic": "nothing"}),
    ("ostler", "console.attach", {}),
]


@pytest.mark.parametrize("way", ["call", "progress", "cast", "submit", "stream"])
@pytest.mark.parametrize(("topic", "method", "arguments"), FAILURES)
def test_errors_are_the_same_as_over_the_socket(command_site, way, topic, method, arguments):
    def fail(over):
        with command_site.client(over, timeout=20.0) as client:
            try:
                if way == "stream":
                    return list(client.stream(topic, method, **arguments))
                view = client.on(on_progress=print) if way == "progress" else client
                getattr(view, "call" if way == "progress" else way)(topic, method, **arguments)
            except Exception as error:
                details = {key: value for key, value in error.details.items() if key not in ("since", "request_id")}
                return type(error), error.message, REQUEST_ID.sub("ID", error.hint), error.exit_code, details
        return None

    assert fail("http") == fail("socket")


def test_ids_and_traces_go_through(command_site):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = CallRequest("lamp", "echo", {"text": "a"}, request_id="find-me")
    with command_site.client("http") as client, trace_context(trace):
        found = client.send_request(request)
    assert found["request_id"] == "find-me"
    assert found["trace"].split("-")[1] == trace.split("-")[1]


def test_an_id_that_no_header_can_have_is_refused(command_site):
    with command_site.client("http") as client, pytest.raises(InvalidInput, match="printable ASCII"):
        client.on(request_id="a\r\nX-Evil: 1").submit("lamp", "build", name="a")
