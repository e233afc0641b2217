"""The client's end of a stream, by itself."""

import msgspec
import pytest

from ostler.errors import Conflict, ConnectionLost, InvalidInput, MalformedMessage
from ostler.messaging.clients.stream_buffer import StreamBuffer


def packed(*items):
    return msgspec.msgpack.encode(items)


def made(credit=4, kind=None):
    woken = []
    return StreamBuffer("lamp.watch", kind, credit, lambda: woken.append(1)), woken


def test_items_are_taken_as_they_came_and_credit_is_given_for_what_was_read():
    incoming, woken = made(credit=4)
    assert incoming.pop() == []
    incoming.feed(0, packed("a"))
    incoming.feed(1, packed("b", "c"))
    assert len(woken) == 2
    assert incoming.pop() == ["a"]
    assert incoming.credit_due() == 0  # it is being read
    assert incoming.pop() == ["b", "c"]
    assert incoming.credit_due() == 0
    assert incoming.pop() == []
    assert incoming.credit_due() == 3
    assert incoming.credit_due() == 0


def test_the_end_comes_after_the_items_once():
    for error in (None, Conflict("no")):
        incoming, woken = made()
        incoming.feed(0, packed(1))
        incoming.end(None, error)
        incoming.end(None, Conflict("a second end"))
        assert len(woken) == 2
        assert incoming.pop() == [1]
        assert incoming.credit_due() == 0
        if error is None:
            assert incoming.pop() is None
        else:
            with pytest.raises(Conflict, match="no"):
                incoming.pop()


def test_many_bytes_are_told_before_half_of_the_credit_is_used():
    incoming, _ = made(credit=1000, kind=bytes)
    incoming.feed(0, packed(bytes(300_000)))
    assert len(incoming.pop()[0]) == 300_000
    assert incoming.pop() == []
    assert incoming.credit_due() == 1


def test_items_that_are_missing_are_a_loss_and_never_silence():
    incoming, _ = made()
    incoming.feed(0, packed(1))
    with pytest.raises(ConnectionLost, match=r"items 1 to 2 of lamp\.watch were lost in transit"):
        incoming.feed(3, packed(4))


@pytest.mark.parametrize(
    ("first", "items"), [(0, packed(*range(5))), (0, b"\x05"), (0, b""), (0, b"\xc1"), (0, packed("x"))]
)
def test_a_server_that_does_not_keep_to_it_is_told(first, items):
    incoming, _ = made(credit=4, kind=int)
    with pytest.raises(MalformedMessage):
        incoming.feed(first, items)


def test_what_nobody_reads_is_forgotten():
    incoming, _ = made()
    incoming.feed(0, packed(1, 2))
    incoming.discard()
    assert incoming.pop() is None
    assert incoming.credit_due() == 0


@pytest.mark.parametrize("credit", [0, -1, 65_537, True, 2.5, None])
def test_a_credit_that_makes_no_sense_is_refused(credit):
    with pytest.raises(InvalidInput, match=r"the credit of lamp\.watch"):
        made(credit=credit)
