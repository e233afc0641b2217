import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostler.errors import Conflict, EncodeError, MalformedMessage, MessageTooLarge
from ostler.messaging.wire.envelope import (
    CAST,
    PROTOCOL_VERSION,
    Accepted,
    Cancel,
    Failure,
    Keepalive,
    ProgressReport,
    Reply,
    Request,
    decode_to_client,
    decode_to_server,
    encode_failure,
    encode_message,
    encode_reply,
    encode_request,
    error_from_failure,
    peek_header,
)

REASONS = {"", "empty", "msgpack", "shape", "version", "kind"}


def reason_of(decode, data):
    try:
        decode(data)
    except MalformedMessage as error:
        return error.reason
    return ""


def pack(*fields):
    return msgspec.msgpack.encode(fields)


def test_a_request_is_an_array_with_its_fields_in_order():
    data = encode_request(
        Request(PROTOCOL_VERSION, 7, "lamp", "switch", {"on": True}, 1.5, "a-7", CAST, "node1", "1.2", "00-a", 5)
    )
    fields = [1, 1, 7, "lamp", "switch", {"on": True}, 1.5, "a-7", CAST, "node1", "1.2", "00-a", 5]
    assert msgspec.msgpack.decode(data) == fields
    request = decode_to_server(data)
    assert bytes(request.arguments) == msgspec.msgpack.encode({"on": True})
    assert (request.topic, request.method, request.timeout, request.flags) == ("lamp", "switch", 1.5, CAST)


def test_fields_that_a_peer_leaves_out_have_defaults_and_those_it_adds_are_ignored():
    short = decode_to_server(pack(1, 1, 7, "lamp", "switch", {}))
    assert (short.timeout, short.request_id, short.flags, short.host, short.version) == (None, "", 0, "", "")
    assert decode_to_server(pack(2, 1, 7, "of a later version")) == Cancel(PROTOCOL_VERSION, 7)


def test_every_message_to_a_client_comes_back_as_it_was():
    for message in (
        Accepted(PROTOCOL_VERSION, 1, 3), ProgressReport(PROTOCOL_VERSION, 1, 2.0, 3.0, "x"),
        Keepalive(PROTOCOL_VERSION, [1, 2], 1.0),
        Failure(PROTOCOL_VERSION, None, ["a.B"], "m", "h", {"k": [1]}),
    ):  # fmt: skip
        assert decode_to_client(encode_message(message)) == message
    reply = decode_to_client(encode_reply(5, {"a": 1}, 100, "lamp", "switch"))
    assert isinstance(reply, Reply)
    assert msgspec.msgpack.decode(reply.result) == {"a": 1}


def test_an_error_travels_with_its_bases_and_facts():
    failure = decode_to_client(encode_failure(3, Conflict("it is there", hint="take another", name="a")))
    assert failure.names == ["ostler.Conflict", "ostler.RequestError", "ostler.OstlerError"]
    error = error_from_failure(failure)
    assert type(error) is Conflict
    assert (error.message, error.hint, error.details) == ("it is there", "take another", {"name": "a"})


@pytest.mark.parametrize(
    ("data", "reason", "number"),
    [
        (b"", "empty", None),
        (b"\xc1", "msgpack", None),
        (b"\x81\x01\x02", "msgpack", None),
        (b"\xdd\xff\xff\xff\xff", "msgpack", None),
        (pack("1", 1, 7), "msgpack", None),
        (pack(1, 2, 7, "lamp"), "version", 7),
        (pack(10, 1, 7, None), "kind", 7),
        (pack(99, 1, 7), "shape", 7),
        (pack(1, 1, 70000, "lamp"), "shape", 70000),
        (pack(1, 1, 2**64 - 1, "lamp", "switch", {}), "shape", None),
        (pack(1, 1, -1, "lamp", "switch", {}), "shape", None),
        (pack(1, 1, 7, "lamp", "switch", {}, -1.0), "shape", 7),
        (pack(1, 1, 7, "l" * 256, "switch", {}), "shape", 7),
        (b"\x91" * 100_000, "msgpack", None),
        (encode_request(Request(PROTOCOL_VERSION, 9, "lamp", "switch", {}))[:-3], "shape", 9),
    ],
)
def test_what_is_no_request_has_a_one_word_reason_and_its_number_if_readable(data, reason, number):
    with pytest.raises(MalformedMessage) as caught:
        decode_to_server(data)
    assert caught.value.details == {"reason": reason, "id": number}


def test_limits_are_kept_and_named():
    with pytest.raises(
        MessageTooLarge, match=r"the request to lamp\.switch has 1\d\d bytes, the limit is 100"
    ) as caught:
        encode_request(Request(PROTOCOL_VERSION, 1, "lamp", "switch", {"a": "x" * 100}), 100)
    assert caught.value.details["limit"] == 100
    with pytest.raises(MessageTooLarge, match=r"the result of lamp\.switch"):
        encode_reply(1, "x" * 100, 100, "lamp", "switch")


@pytest.mark.parametrize("value", [object(), 2**70, {"a": {1, object()}}, "\ud800"])
def test_what_cannot_be_encoded_is_said_by_name(value):
    with pytest.raises(EncodeError, match=r"an argument of lamp\.switch cannot be encoded"):
        encode_request(Request(PROTOCOL_VERSION, 1, "lamp", "switch", {"a": value}))
    with pytest.raises(EncodeError, match=r"the result of lamp\.switch"):
        encode_reply(1, value, 1000, "lamp", "switch")


def test_peek_reads_wide_numbers_and_stops_at_what_is_none():
    assert peek_header(pack(1, 300, 2**40, "x")) == [1, 300, 2**40]
    assert peek_header(pack(1, None, 3)) == [1]
    assert peek_header(b"\xdc\x00\x03\x01\x01\x05") == [1, 1, 5]
    assert peek_header(b"\x93\x01\xcd\x01") == [1]


@pytest.mark.failure_mode("RPC", "garbage frames, truncated and random (fuzzed)")
@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_never_more_than_a_bad_envelope(data):
    for decode in (decode_to_server, decode_to_client):
        assert reason_of(decode, data) in REASONS


@pytest.mark.failure_mode("RPC", "garbage frames, truncated and random (fuzzed)")
def test_truncated_and_bent_messages_are_never_more_than_a_bad_envelope():
    random_ = random.Random(4)
    whole = encode_request(Request(PROTOCOL_VERSION, 7, "lamp", "switch", {"on": True, "deep": [[[{}]]]}, 1.5, "a-7"))
    for _ in range(20_000):
        data = bytearray(whole[: random_.randrange(len(whole) + 1)])
        for _ in range(random_.randrange(4)):
            if data:
                data[random_.randrange(len(data))] = random_.randrange(256)
        assert reason_of(decode_to_server, bytes(data)) in REASONS
