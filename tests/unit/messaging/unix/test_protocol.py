"""ZMTP without I/O: whatever pieces it comes in, and whatever it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.messaging.unix.protocol import ProtocolError, ZmtpConnection, encode_frame, encode_refusal, greeting

# private: _partial: how much is kept of a message shows in nothing else

LIMIT = 100_000
DEALER = greeting(b"DEALER")


def talk(limit=LIMIT):
    return ZmtpConnection(frozenset({b"DEALER", b"REQ"}), limit)


def ready(limit=LIMIT):
    made = talk(limit)
    assert made.receive_data(DEALER) == []
    assert made.is_ready
    return made


def reason(data, heard=None):
    with pytest.raises(ProtocolError) as caught:
        (heard or talk()).receive_data(data)
    return caught.value.reason


@given(st.lists(st.binary(max_size=600), max_size=12), st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_messages_come_out_whole_and_in_order_whatever_pieces_they_come_in(messages, sizes):
    stream = DEALER + b"".join(map(encode_frame, messages))
    heard, found, at, turn = talk(), [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        found += heard.receive_data(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == messages
    assert heard.is_ready


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, LIMIT])
def test_a_message_of_any_size_up_to_the_limit_comes_through(size):
    assert ready().receive_data(encode_frame(b"x" * size)) == [b"x" * size]


def test_one_above_the_limit_is_refused_before_it_has_come():
    assert reason(encode_frame(b"x" * (LIMIT + 1))[:9], ready()) == "large"
    assert reason(b"\x02" + b"\xff" * 8, ready()) == "large"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" + bytes(8) + b"\x00" + bytes(54),
        b"\xff" + bytes(8) + b"\x7f\x01" + bytes(53),
        b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32),
        DEALER[:64] + encode_frame(b"before READY"),
        DEALER[:64] + b"\x04\x06\x05HELLO",
        DEALER[:64] + b"\x08\x00",
        DEALER[:64] + b"\x04\x07\x05READY\x20",
        greeting(b"SUB"),
    ],
    ids=["http", "signature", "version", "mechanism", "too soon", "command", "flags", "cut off", "kind"],
)
def test_what_is_no_beginning_of_a_conversation_is_refused(data):
    assert reason(data) == "protocol"


def test_messages_of_several_frames_are_skipped_whole_and_counted():
    heard = ready()
    several = b"\x01\x01a" + b"\x01\x01b" + b"\x00\x01c"
    assert heard.receive_data(several + encode_frame(b"mine") + several) == [b"mine"]
    assert heard.multipart_count == 2


def test_a_ping_is_answered_with_its_own_words():
    heard = ready()
    assert heard.receive_data(b"\x04\x0b\x04PING\x00\x0ahear") == []
    assert heard.to_send == [b"\x04\x09\x04PONGhear"]


def test_why_one_was_not_let_in_is_kept():
    heard = ZmtpConnection(frozenset({b"ROUTER"}), LIMIT)
    assert heard.receive_data(encode_refusal(b"500")) == []
    assert (heard.refusal_reason, heard.is_ready) == ("500", False)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: DEALER + tail)))
def test_no_bytes_whatever_do_more_than_end_the_conversation(data):
    heard = talk(1000)
    for at in range(0, len(data), 7):
        try:
            heard.receive_data(data[at : at + 7])
        except ProtocolError:
            return
    assert len(heard._partial) <= 1000 + 9 + 64


def test_a_greeting_is_known_to_be_none_as_soon_as_its_signature_has_come():
    heard = talk()
    assert heard.receive_data(b"\xff") == []
    assert heard.receive_data(bytes(8)) == []
    assert reason(b"\x00", heard) == "protocol"
