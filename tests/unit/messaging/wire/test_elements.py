import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.errors import MessageTooLarge
from ostler.messaging.wire.envelope import check_elements, count_elements

MANY = 2**40
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.builds(msgspec.msgpack.Ext, st.integers(0, 127), st.binary(max_size=40))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20)
)


def elements_of(value):
    if isinstance(value, list):
        return 1 + sum(map(elements_of, value))
    if isinstance(value, dict):
        return 1 + sum(1 + elements_of(item) for item in value.values())
    return 1


@given(VALUES)
def test_it_counts_what_decoding_makes(value):
    data = msgspec.msgpack.encode(value)
    assert count_elements(data, MANY) == elements_of(msgspec.msgpack.decode(data))
    assert count_elements(memoryview(data), MANY) == elements_of(value)


@given(VALUES, st.integers(0, 60))
def test_it_stops_one_above_the_limit(value, limit):
    data = msgspec.msgpack.encode(value)
    assert count_elements(data, limit) == min(elements_of(value), limit + 1)


@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes_are_counted_without_an_error(data, limit):
    assert 0 <= count_elements(data, limit) <= min(limit + 1, len(data))


@given(VALUES, st.data())
def test_what_is_truncated_is_counted_as_far_as_it_goes(value, draw):
    data = msgspec.msgpack.encode(value)
    end = draw.draw(st.integers(0, len(data)))
    assert count_elements(data[:end], MANY) <= elements_of(value)


@pytest.mark.parametrize(
    "value",
    ["x" * 70_000, b"x" * 70_000, "x" * 300, b"x" * 300, msgspec.msgpack.Ext(1, b"x" * 70_000), "x" * 40, b""],
    ids=lambda value: f"{type(value).__name__}",
)
def test_large_elements_count_one(value):
    assert count_elements(msgspec.msgpack.encode([value, 1]), MANY) == 3


def test_a_bomb_is_refused_by_name():
    with pytest.raises(MessageTooLarge, match=r"the result of a\.b has more than 1000 elements") as caught:
        check_elements(b"\xdd\x00\xe0\x00\x00" + b"\x90" * 0xE00000, 1000, "the result of a.b")
    assert caught.value.max_elements == 1000


def test_as_many_as_the_limit_pass():
    check_elements(msgspec.msgpack.encode([0] * 999), 1000)
    check_elements(msgspec.msgpack.encode(["x" * 100_000]), 2)
    with pytest.raises(MessageTooLarge):
        check_elements(msgspec.msgpack.encode([0] * 1000), 1000)
