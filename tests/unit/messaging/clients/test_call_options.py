"""The options of calls: what they may be, and how `on` sets them."""

import typing

import msgspec
import pytest

from ostler.errors import Busy, InvalidInput
from ostler.messaging.clients.call_methods import CallKeywords, CallOptions, StubKeywords
from ostler.messaging.clients.retry import Retry
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT
from ostler.types import CALL_OPTIONS


def test_every_option_is_known_under_one_name_everywhere():
    assert set(CallOptions.__struct_fields__) == CALL_OPTIONS
    assert CallKeywords.__annotations__.keys() == CALL_OPTIONS
    assert StubKeywords.__annotations__.keys() == CALL_OPTIONS - {"type"}, "a stub says itself what its result is"


def test_what_is_not_named_stays_and_none_takes_back():
    first = CallOptions().updated({"host": "node2", "timeout": 5})
    second = first.updated({"timeout": 2.5, "type": list[int]})
    assert (second.host, second.timeout, second.type, second.credit) == ("node2", 2.5, list[int], DEFAULT_CREDIT)
    assert (first.timeout, first.type) == (5, None), "another object"
    assert second.updated({"host": None}).host is None
    assert second.updated({}) == second


def test_options_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        CallOptions().timeout = 5


@pytest.mark.parametrize(
    "given",
    [
        {"host": ""}, {"timeout": 0}, {"timeout": 0.5}, {"timeout": None}, {"timeout": float("inf")},
        {"retry": Retry()},
        {"on_progress": print}, {"credit": 1}, {"credit": 65_536}, {"type": typing.Any}, {"type": msgspec.Raw},
    ],
)  # fmt: skip
def test_what_an_option_can_be(given):
    ((name, value),) = given.items()
    assert getattr(CallOptions().updated(given), name) == value


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"host": 5}, "the option host of a call must be the name of a host, not 5"),
        ({"timeout": "5s"}, "the option timeout of a call must be a number of seconds, 0 or more, not '5s'"),
        ({"timeout": True}, "timeout of a call must be a number"),
        ({"timeout": -1}, "timeout of a call must be a number"),
        ({"timeout": float("nan")}, "timeout of a call must be a number"),
        ({"on_progress": 5}, "on_progress of a call must be a function that takes a Progress"),
        ({"retry": 3}, "retry of a call must be a Retry, not 3"),
        ({"retry": Retry(attempts=0)}, "at least one attempt"),
        ({"retry": Retry(on=(ValueError,))}, "must contain classes of `ostler.errors`"),
        ({"credit": 0}, "must be a number from 1 to 65536, not 0"),
        ({"credit": True}, "must be a number from 1 to 65536, not True"),
        ({"credit": None}, "must be a number from 1 to 65536, not None"),
    ],
)
def test_what_an_option_cannot_be_is_said_where_it_is_set(given, words):
    with pytest.raises(InvalidInput) as caught:
        CallOptions().updated(given)
    assert words in str(caught.value)


def test_a_long_value_is_not_repeated_whole():
    with pytest.raises(InvalidInput) as caught:
        CallOptions().updated({"timeout": "x" * 10_000})
    assert len(str(caught.value)) < 200


def test_an_option_that_does_not_exist_is_a_mistake_of_the_program():
    with pytest.raises(TypeError, match=r"on\(\) has no option 'timout'; did you mean 'timeout'\?"):
        CallOptions().updated({"timout": 5})
    with pytest.raises(TypeError, match=r"on\(\) has no option 'colour'"):
        CallOptions().updated({"host": "a", "colour": "red"})


def test_a_policy_is_looked_at_with_the_options_and_kept_as_it_is():
    policy = Retry(on=(Busy,))
    assert CallOptions(retry=policy).retry is policy
