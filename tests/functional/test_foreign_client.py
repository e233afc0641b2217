"""`docs/wire.md` is enough to write a client: one that knows ZeroMQ and msgpack alone, against the real daemon."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import foreign_client
import pytest
from daemon_process import DaemonProcess, wait_for
from foreign_client import (
    BEAT,
    CANCEL,
    FANOUT,
    ITEMS,
    LENIENT,
    RETRY,
    STREAM,
    VERSION,
    WANTS_PROGRESS,
    ForeignCaller,
    ForeignCallError,
    ForeignSubscriber,
)

CONFIG = """
[daemon]
host = "h"
[events]
journal = ["kept"]
[services.echo]
manager = "faulty_managers:EchoManager"
[services.foreign]
manager = "foreign_client_manager:ForeignClientManager"
[services.kept]
manager = "publishing_managers:PublishingManager"
[services.plain]
manager = "publishing_managers:PublishingManager"
"""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def daemon() -> Iterator[DaemonProcess]:
    made = DaemonProcess(CONFIG)
    yield made.start()
    made.close()


@pytest.fixture
def caller(daemon: DaemonProcess) -> Iterator[ForeignCaller]:
    made = ForeignCaller(f"ipc://{daemon.root}/run/rpc.sock")
    yield made
    made.close()


@pytest.fixture
def subscribe(daemon: DaemonProcess) -> Iterator[Callable[..., ForeignSubscriber]]:
    made: list[ForeignSubscriber] = []

    def make(*prefixes: str, **more: Any) -> ForeignSubscriber:
        made.append(ForeignSubscriber(f"ipc://{daemon.root}/run/events.sock", *prefixes, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_client_knows_nothing_of_ostler() -> None:
    tree = ast.parse(Path(foreign_client.__file__).read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"__future__", "collections.abc", "itertools", "os", "typing", "zmq", "msgspec.msgpack"}


def test_a_call_is_one_array_each_way_and_a_short_one_has_its_defaults(caller: ForeignCaller) -> None:
    assert caller.call("echo", "echo", {"text": "hello"})["text"] == "hello"
    caller.send(1, VERSION, 99, "echo", "echo_async", {"text": "short"})
    assert caller.receive_reply(99)[2]["text"] == "short"


def test_fields_that_the_daemon_does_not_know_are_ignored(caller: ForeignCaller) -> None:
    known = (1, VERSION, 99, "echo", "echo", {"text": "new"}, 5.0, "id", 0, "", "", "", 0, None)
    caller.send(*known, "newer", {"still": 1})
    assert caller.receive_reply(99)[2]["text"] == "new"


def test_values_take_the_forms_that_the_page_says(caller: ForeignCaller) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    sent = {"colour": "blue", "blob": b"\0\xff", "size": {"width": 3}}
    for form in (when, "2026-01-02T03:04:05Z"):  # a msgpack timestamp or a text; a timestamp comes back
        found = caller.call("foreign", "forms", {**sent, "when": form})
        assert found == {**sent, "when": when, "size": {"width": 3, "height": 1}}
    assert caller.call("foreign", "double", {"number": "21"}, flags=LENIENT) == 42


@pytest.mark.parametrize(
    ("topic", "method", "arguments", "names"),
    [
        ("nowhere", "x", {}, ["ostler.ServiceNotFound"]),
        ("echo", "missing", {}, ["ostler.MethodNotFound"]),
        ("echo", "reset", {}, ["ostler.NotExposed"]),
        ("echo", "echo", {"text": 5}, ["ostler.InvalidArguments"]),
        ("echo", "ticks", {}, ["ostler.WrongCallKind"]),
        ("foreign", "refuse", {}, ["foreign_client_manager.OutOfPaper", "ostler.Conflict"]),
    ],
)
def test_a_failure_names_itself_and_its_bases(
    caller: ForeignCaller, topic: str, method: str, arguments: dict[str, Any], names: list[str]
) -> None:
    with pytest.raises(ForeignCallError) as caught:
        caller.call(topic, method, arguments)
    assert caught.value.names[: len(names)] == names
    assert caught.value.names[-1] == "ostler.OstlerError"
    if method == "refuse":
        assert (caught.value.message, caught.value.hint) == ("no paper left", "add some")
        assert caught.value.facts == {"sheets": 0}


def test_the_deadline_is_kept_by_the_server(caller: ForeignCaller) -> None:
    with pytest.raises(ForeignCallError) as caught:
        caller.call("echo", "sleep", {"seconds": 30}, timeout=0.2)
    assert caught.value.names[0] == "ostler.DeadlineExceeded"


def test_beats_name_the_requests_that_the_server_has(caller: ForeignCaller) -> None:
    number = caller.send_request("echo", "sleep", {"seconds": 30}, timeout=None)
    kind, _, ids, interval = caller.receive()
    assert (kind, ids, interval) == (BEAT, [number], 1.0)
    caller.send(CANCEL, VERSION, number)
    with pytest.raises(ForeignCallError) as caught:
        caller.receive_reply(number)
    assert caught.value.names[0] == "ostler.Cancelled"


def test_casts_and_fanouts_are_answered_with_how_many_accepted_them(caller: ForeignCaller, subscribe: Any) -> None:
    events = subscribe("fanout.echo.")
    assert caller.cast("echo", "echo") == 1
    assert caller.cast("echo", "echo", flags=FANOUT) == 1
    assert caller.cast("nowhere", "echo", flags=FANOUT) == 0
    event = events.event()
    assert (event["topic"], event["host"], event["name"]) == ("fanout.echo", "h", "echo")


def test_progress_comes_when_it_is_wanted_and_the_last_one_always_does(caller: ForeignCaller) -> None:
    number = caller.send_request("foreign", "work", {"steps": 50}, flags=WANTS_PROGRESS)
    assert caller.receive_reply(number)[2] == "done"
    assert caller.progress[-1] == [number, 50.0, 50.0, "step 50"]
    caller.progress.clear()
    assert caller.call("foreign", "work", {"steps": 50}) == "done"
    assert caller.progress == []


def test_a_stream_goes_on_as_long_as_there_is_credit(caller: ForeignCaller) -> None:
    assert list(caller.stream("foreign", "count", {"items": 100}, credit=8)) == [(n, n) for n in range(100)]

    number = caller.send_request("foreign", "count", {"items": 100}, timeout=None, flags=STREAM, credit=5)
    found: list[int] = []
    while (message := caller.receive())[0] != BEAT:  # it stands still by then
        assert message[0] == ITEMS
        assert message[3] == len(found)
        found += message[4]
    assert found == [0, 1, 2, 3, 4]
    caller.send(CANCEL, VERSION, number)
    with pytest.raises(ForeignCallError) as caught:
        caller.receive_reply(number)
    assert caught.value.names[0] == "ostler.Cancelled"


def test_a_request_that_may_come_again_runs_once(daemon: DaemonProcess, caller: ForeignCaller) -> None:
    first = caller.call("foreign", "next_number", request_id="a1b2", flags=RETRY)
    assert caller.call("foreign", "next_number", request_id="a1b2", flags=RETRY) == first
    other = ForeignCaller(f"ipc://{daemon.root}/run/rpc.sock")
    assert other.call("foreign", "next_number", request_id="a1b2", flags=RETRY) == first
    other.close()
    assert caller.call("foreign", "next_number", request_id="c3d4", flags=RETRY) == first + 1
    with pytest.raises(ForeignCallError) as caught:
        caller.call("foreign", "double", {"number": 1}, request_id="a1b2", flags=RETRY)
    assert caught.value.names[0] == "ostler.Conflict"


def test_host_version_id_and_trace_travel(caller: ForeignCaller, subscribe: Any) -> None:
    events = subscribe("plain.")
    caller.call("plain", "tell", {"count": 1}, request_id="mine", host="h", version="1.0", trace=TRACE)
    event = events.event()
    assert (event["request_id"], event["trace"][:35]) == ("mine", TRACE[:35])
    for more, name in (({"host": "elsewhere"}, "ServiceNotFound"), ({"version": "9.0"}, "UnsupportedVersion")):
        with pytest.raises(ForeignCallError) as caught:
            caller.call("plain", "tell", {"count": 1}, **more)
        assert caught.value.names[0] == f"ostler.{name}"


def test_what_is_no_message_is_answered_when_its_id_can_be_read(caller: ForeignCaller) -> None:
    for message, reason in (([1, 2, 7], "version"), ([10, 1, 7, None], "kind"), ([1, 1, 7, "echo"], "shape")):
        caller.send(*message)
        with pytest.raises(ForeignCallError) as caught:
            caller.receive_reply(7)
        assert caught.value.names[0] == "ostler.MalformedMessage"
        assert caught.value.facts["reason"] == reason
    assert caller.call("echo", "echo", {"text": "well"})["text"] == "well"


def test_events_heads_and_last_events(caller: ForeignCaller, subscribe: Any) -> None:
    before = subscribe("plain.").heads.get(("plain", "h"), [0])[0]
    caller.call("plain", "tell", {"count": 3, "name": "on"})
    caller.call("plain", "tell", {"count": 2, "name": "off"})
    late = subscribe("plain.", last=True)
    assert late.heads["plain", "h"][0] == before + 5
    seen = {event[2]: event[4] for event in late.last if event[0] == "plain"}
    assert (seen["on"], seen["off"]) == (before + 3, before + 5)
    caller.call("plain", "notify", {"priority": "info"})
    event = late.event()
    assert (event["name"], event["number"], event["priority"], event["kept"]) == (
        "thing.happened", before + 6, "info", 0,
    )  # fmt: skip
    topic, host, number, epoch, kept = late.head()
    assert (topic, host, number, epoch, kept) == ("plain", "h", before + 6, event["epoch"], 0)


def test_a_journaled_topic_is_read_from_a_number_and_goes_on_live(caller: ForeignCaller, subscribe: Any) -> None:
    caller.call("kept", "tell", {"count": 20})
    wait_for(lambda: (rows := caller.call("ostler", "event_topics")) and rows[0][3] == 20, "the journal")
    live = subscribe("kept.")
    caller.call("kept", "tell", {"count": 5})
    ((topic, host, first, last, epoch),) = caller.call("ostler", "event_topics")
    assert (topic, host, first) == ("kept", "h", 1)
    assert last >= 20
    found: list[int] = []
    after, more = 7, True
    while more:
        starts, events, more = caller.call("ostler", "events_since", {"positions": [["kept", after, 0]], "limit": 4})
        assert starts[0][:3] == ["kept", "h", after]
        assert starts[0][4] is False
        found += [event[4] for event in events]
        after = found[-1]
    while found[-1] < 25:
        event = live.event()
        assert event["kept"] == 1
        if event["number"] > found[-1]:
            found.append(event["number"])
    assert found == list(range(8, 26))
    starts, _, _ = caller.call("ostler", "events_since", {"positions": [["kept", 7, epoch + 1]], "limit": 4})
    assert starts[0][4] is True, "a run that the journal does not know"
