"""The audit log on its way to the store."""

import asyncio
import json

import msgspec
import pytest

from ostler.clock import FakeClock
from ostler.errors import InternalError, MalformedMessage, NotPermitted, ServiceNotFound, StoreUnavailable
from ostler.messaging import Context
from ostler.messaging.access.secret_arguments import SecretText
from ostler.messaging.interface.exposure import exposed
from ostler.messaging.observers.audit_log import (
    MAX_UNKNOWN_NAMES,
    REFUSAL_WINDOW,
    AuditLog,
    find_origin,
    format_arguments,
    format_entry,
)
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.endpoint import Endpoint
from ostler.messaging.wire.envelope import PROTOCOL_VERSION, Request
from ostler.messaging.wire.request_context import Relayed
from ostler.types import LOCAL_PEER, Peer, Role

# private: _entries_by_account: that the memory is bounded shows in nothing else

BOB = Peer(1000, 1000, 7, "uid 1000")
EVE = Peer(1001, 1001, 8, "uid 1001")


class Lamp:
    @exposed()
    async def switch(self, ctx: object, lamp: str, on: bool = True, code: SecretText = "") -> None: ...

    @exposed(changes=False)
    async def look(self, ctx: object) -> None: ...


ENDPOINT = Endpoint("lamp", "here", Lamp(), None)


def find(topic, name):
    return ENDPOINT.methods.get(name) if topic == "lamp" else None


def call(method="switch", peer=BOB, arguments=None, *, admitted=True, topic="lamp"):
    packed = msgspec.Raw(msgspec.msgpack.encode({"lamp": "desk"} if arguments is None else arguments))
    made = Call(Request(PROTOCOL_VERSION, 1, topic, method, packed, request_id="r-1"), peer, FakeClock())
    made.is_admitted = made.is_started = admitted
    if find(topic, method) is not None:
        made.method = find(topic, method)
    return made


def relayed(changes):
    made = call()
    made.context = Context("ostler", "relay", peer=BOB, clock=FakeClock())
    made.context.relayed = Relayed("node2", "lamp.switch", Role.OPERATOR, changes)
    return made


class Nested(Call):
    __slots__ = ("parent",)


def nested(parent, *, admitted=True):
    packed = msgspec.Raw(msgspec.msgpack.encode({"lamp": "the-desk"}))
    made = Nested(Request(PROTOCOL_VERSION, 1, "lamp", "switch", packed, request_id="r-1.1"), LOCAL_PEER, FakeClock())
    made.parent, made.is_admitted, made.is_started, made.method = parent, admitted, admitted, find("lamp", "switch")
    if parent is not None:
        made.context.inherit(parent)  # as the dispatcher does
    return made


class Book:
    """Keeps what it is told, or is away."""

    def __init__(self, **options):
        self.clock = FakeClock()
        self.rows = {}
        self.unreachable_error = False
        self.find = find
        self.write = self.keep
        self.log = AuditLog(self.clock, self._write, self._find, **options)

    def _find(self, topic, name):
        return self.find(topic, name)

    async def _write(self, entries):
        return await self.write(entries)

    async def keep(self, entries):
        if self.unreachable_error:
            raise StoreUnavailable("the disk is full")
        numbers = []
        for entry in entries:
            number = entry.number or len(self.rows) + 1
            self.rows[number] = entry
            numbers.append(number)
        return numbers

    def flushed(self):
        asyncio.run(self.log.flush())
        return list(self.rows.values())


@pytest.fixture
def book():
    return Book()


def test_what_changes_something_is_kept_with_who_what_when_and_how(book) -> None:
    book.log.record(call(arguments={"lamp": "desk", "on": False, "code": "1234"}), None)
    book.log.record(call("look"), None)
    book.log.record(call("look"), ServiceNotFound("it looked in vain"))
    (entry,) = book.flushed()
    assert (entry.who, entry.uid, entry.pid, entry.topic, entry.method) == ("uid 1000", 1000, 7, "lamp", "switch")
    assert json.loads(entry.arguments) == {"lamp": "desk", "on": False, "code": "***"}
    assert (entry.result, entry.refused, entry.request_id, entry.at) == ("done", False, "r-1", book.clock.wall())


def test_the_same_refusal_within_a_minute_is_one_entry_that_counts(book) -> None:
    for _ in range(5):
        book.log.record(call(admitted=False), NotPermitted("no"))
    assert [row.times for row in book.flushed()] == [5]
    book.log.record(call(admitted=False), NotPermitted("no"))
    book.log.record(call(admitted=False, peer=EVE), NotPermitted("no"))
    book.log.record(call("look", admitted=False), NotPermitted("no"))
    book.log.record(call(admitted=False), MalformedMessage("what"))
    assert [row.times for row in book.flushed()] == [6, 1, 1, 1]
    book.clock.advance(REFUSAL_WINDOW)
    book.log.record(call(admitted=False), NotPermitted("no"))
    assert [row.times for row in book.flushed()] == [6, 1, 1, 1, 1]


def test_work_that_was_begun_and_failed_is_an_entry_each_time(book) -> None:
    for _ in range(3):
        book.log.record(call(), InternalError("it broke"))
    assert [(row.result, row.refused) for row in book.flushed()] == [("InternalError", False)] * 3


def test_names_that_are_made_up_do_not_fill_the_disk(book) -> None:
    for number in range(10_000):
        book.log.record(call(f"made_up_{number}", admitted=False, topic=f"topic{number}"), ServiceNotFound("no"))
    rows = book.flushed()
    assert len(rows) == MAX_UNKNOWN_NAMES + 1
    assert sum(row.times for row in rows) == 10_000


def test_a_store_that_is_away_is_said_once_and_the_lines_are_in_the_log(book, caplog) -> None:
    book.unreachable_error = True
    for _ in range(2):
        book.log.record(call(), None)
        assert book.flushed() == []
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "cannot write the audit log" in line]) == 1
    assert [json.loads(line.removeprefix("audit: "))["method"] for line in lines if line.startswith("audit: ")] == [
        "switch"
    ] * 2
    book.unreachable_error = False
    book.log.record(call(), None)
    assert len(book.flushed()) == 1
    assert "writing the audit log to the database again" in caplog.text


def test_more_than_can_wait_goes_to_the_log(caplog) -> None:
    book = Book(max_queued=3)
    for _ in range(5):
        book.log.record(call(), None)
    assert caplog.text.count("audit: ") == 2
    assert len(book.flushed()) == 3
    assert book.log.stats() == {"kept": 3, "to_log": 2, "waiting": 0}


async def test_the_first_of_its_kind_is_handed_over_at_once(book) -> None:
    running = asyncio.create_task(book.log.run())
    book.log.record(call(admitted=False), NotPermitted("no"))
    for _ in range(5):
        await asyncio.sleep(0)
    running.cancel()
    assert len(book.rows) == 1


def test_a_defect_costs_the_caller_nothing(book, caplog) -> None:
    book.find = None
    book.log.record(call(), None)
    assert "could not build an audit log entry: lamp.switch from uid 1000" in caplog.text


def test_a_call_between_managers_is_its_requests_and_the_daemons_own_is_not_kept(book) -> None:
    outer = Context("vault", "put", peer=BOB)
    outer.secrets = ("the-desk",)
    middle = Context("vault", "more", peer=LOCAL_PEER)
    middle.inherit(outer)
    assert find_origin(nested(middle)) is BOB
    assert find_origin(nested(Context("vault", "periodic"))) is None
    assert find_origin(nested(None)) is None
    book.log.record(nested(middle), None)
    book.log.record(nested(None), None)
    book.log.record(nested(middle, admitted=False), ServiceNotFound("no"))
    (entry,) = book.flushed()
    assert (entry.who, entry.request_id) == ("uid 1000", "r-1.1")
    assert entry.arguments == '{"lamp":"***"}'  # what the outer request keeps secret, handed on as it is


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({}, ""),
        ({"lamp": "desk"}, '{"lamp":"desk"}'),
        ({"lamp": "x" * 300}, '{"lamp":"(303 bytes)"}'),
        ({"lamp": b"\x00"}, '{"lamp":"(1 bytes)"}'),
        ({"lamb": "desk", "code": "1234"}, '{"lamb":"***","code":"***"}'),
        ({"lamp": {"password": "x", "n": 1}}, '{"lamp":{"password":"***","n":1}}'),
        (["desk"], "(6 bytes, not valid arguments)"),
        ({3: "desk"}, "(7 bytes, not valid arguments)"),
        ({"lamp": "x" * 70_000}, "(70011 bytes)"),
    ],
)
def test_arguments_are_shown_short_and_without_secrets(arguments, shown) -> None:
    assert format_arguments(msgspec.msgpack.encode(arguments), find("lamp", "switch")) == shown


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x81", b"\x81\xa4lamp\xc1", b"\xdf\xff\xff\xff\xff"])
def test_bytes_that_are_no_arguments_are_shown_as_such(raw) -> None:
    assert "bytes" in format_arguments(raw, find("lamp", "switch"))


def test_arguments_of_a_method_that_is_not_there_are_not_shown() -> None:
    assert format_arguments(msgspec.msgpack.encode({"x": "secret perhaps"}), None) == '{"x":"***"}'


def test_a_line_for_the_log_holds_everything(book) -> None:
    book.log.record(call(), None)
    (entry,) = book.flushed()
    assert json.loads(format_entry(entry))["who"] == "uid 1000"


def test_whatever_goes_wrong_in_writing_the_lines_are_not_lost(book, caplog) -> None:
    async def broken(entries):
        raise ValueError("a defect")

    book.write = broken
    book.log.record(call(), None)
    book.flushed()
    assert caplog.text.count("audit: {") == 1


async def test_who_flushes_waits_for_what_is_being_written_and_counts_share_an_entry(book) -> None:
    go, keep = asyncio.Event(), book.keep

    async def slowly(entries):
        await go.wait()
        return await keep(entries)

    book.write = slowly
    book.log.record(call(admitted=False), NotPermitted("no"))
    first = asyncio.create_task(book.log.flush())
    await asyncio.sleep(0)
    book.log.record(call(admitted=False), NotPermitted("no"))
    reading = asyncio.create_task(book.log.flush())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not reading.done()
    go.set()
    await asyncio.gather(first, reading)
    assert [(number, row.times) for number, row in book.rows.items()] == [(1, 2)]


def test_who_is_refused_before_there_is_a_request_is_kept_and_cannot_fill_the_log(book):
    no = NotPermitted("nobody has the key")
    for key in ("made-up-1", "made-up-2"):
        book.log.record_refusal(Peer(key=key, name="10.0.0.7"), "ostler", "connect", no)
    book.log.record_refusal(EVE, "ostler", "subscribe", no)
    book.log.record_refusal(EVE, "ostler", "connect", no)
    rows = book.flushed()
    assert [(entry.who, entry.method, entry.times, entry.refused) for entry in rows] == [
        ("10.0.0.7", "connect", 2, True), ("uid 1001", "subscribe", 1, True), ("uid 1001", "connect", 1, True),
    ]  # fmt: skip
    assert (rows[0].key, rows[0].result, rows[0].text) == ("made-up-1", "NotPermitted", "nobody has the key")
    for number in range(100):
        book.log.record_refusal(Peer(name=f"10.0.1.{number}"), "ostler", "connect", no)
    assert len(book.flushed()) <= 3 + MAX_UNKNOWN_NAMES
    book.clock.advance(REFUSAL_WINDOW + 1)
    book.log.record_refusal(EVE, "ostler", "connect", no)
    assert book.flushed()[-1].times == 1


def test_many_kinds_of_refusals_of_one_do_not_end_the_count_of_another(book, monkeypatch) -> None:
    book.log.record(call(admitted=False, peer=EVE), NotPermitted("no"))
    for number in range(5000):
        kind = type(f"Refused{number}", (NotPermitted,), {})
        book.log.record(call(admitted=False), kind("no"))
    book.log.record(call(admitted=False, peer=EVE), NotPermitted("no"))
    assert [row.times for row in book.flushed() if row.uid == EVE.uid] == [2]
    assert sum(map(len, book.log._entries_by_account.values())) <= 257


def test_those_who_are_refused_are_counted_apart_for_a_bounded_number_of_them(book) -> None:
    for uid in range(3000):
        book.log.record(call(admitted=False, peer=Peer(uid, uid, 1, f"uid {uid}")), NotPermitted("no"))
    assert len(book.log._entries_by_account) <= 1024


def test_of_what_is_relayed_is_kept_what_changes_something_on_the_other_host():
    book = Book()
    book.log.record(relayed(changes=False), None)
    book.log.record(relayed(changes=True), None)
    assert len(book.flushed()) == 1
    assert book.log.in_flight_entry(relayed(changes=False)) is None
    assert book.log.in_flight_entry(relayed(changes=True)) is not None


async def test_refusals_of_two_tokens_are_two_entries(book) -> None:
    for name in ("token:one", "token:two", "token:one"):
        book.log.record(call(admitted=False, peer=Peer(name=name, principal=name)), NotPermitted("no"))
    await book.log.flush()
    found = {entry.key: entry.times for entry in book.rows.values()}
    assert found == {"token:one": 2, "token:two": 1}
