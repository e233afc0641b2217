"""How long a text may be that others are shown."""

import time

import msgspec
import pytest

from ostler.bounds import (
    DETAILS_LIMIT,
    MAX_DETAIL_COUNT,
    bound_details,
    escape_surrogates,
    mask_numbers,
    safe_repr,
    safe_str,
    truncate,
)
from ostler.errors import InvalidInput, OstlerError, RemoteError, check_length, error_line, shortest_error, to_wire


class Rude:
    def __str__(self):
        raise RuntimeError("no text for you")


def size_of(facts):
    return len(msgspec.msgpack.encode(facts))


def test_a_short_text_stays_and_of_a_long_one_the_beginning_is_shown():
    assert truncate("short") == "short"
    assert truncate("x" * 10, 10) == "x" * 10
    assert truncate("abcdefghij", 4) == "abcd... (6 more characters)"


def test_anything_has_a_text_that_can_be_sent():
    assert safe_str(Rude()) == "<Rude>"
    assert safe_str("half \ud800") == "half \\ud800"
    assert safe_str(b"\0" * 1000) == "(1000 bytes)"
    assert escape_surrogates("grün") == "grün"


def test_facts_are_bounded_in_number_length_and_depth():
    nested = []
    for _ in range(1000):
        nested = [nested]
    facts = bound_details(
        {
            "deep": nested,
            "many": list(range(100_000)),
            "names": {f"n{number}": number for number in range(100_000)},
            "long": "x" * 1_000_000,
            "huge": 10**5000,
            "rude": Rude(),
        }
    )
    assert size_of(facts) < 4 * DETAILS_LIMIT
    assert "…" in str(facts["deep"])
    assert len(facts["many"]) <= MAX_DETAIL_COUNT
    assert facts["many"][-1].startswith("… (995")
    many_long = bound_details({f"fact {number}": "y" * 5000 for number in range(1000)})
    assert size_of(many_long) < 2 * DETAILS_LIMIT
    assert "…" in many_long
    assert bound_details({"huge": 10**5000, "rude": Rude()}) == {
        "huge": "(a number of 16610 bits)",
        "rude": "<Rude>",
    }
    assert bound_details("no facts at all") == {}


def test_an_error_with_fifteen_megabytes_is_told_in_no_time():
    error = OstlerError("E" * 15_000_000, hint="H" * 15_000_000, what="F" * 15_000_000)
    error.details["later"] = "L" * 15_000_000
    began = time.monotonic()
    wire = to_wire(error)
    assert time.monotonic() - began < 0.1
    assert wire.message.endswith("... (14984000 more characters)")
    assert len(msgspec.msgpack.encode(wire)) < 60_000
    assert len(error_line(error)) < 2100
    assert len(error_line(ValueError("V" * 1_000_000))) < 2100


def test_what_a_plugin_has_put_in_the_place_of_text_and_facts_is_sent_all_the_same():
    error = OstlerError("fine")
    error.message, error.hint, error.details = Rude(), 7, None
    assert to_wire(error)[1:] == ("<Rude>", "7", {})
    assert error_line(ValueError(Rude())) == "ValueError: <ValueError>"


def test_an_error_can_be_told_in_few_bytes_by_its_own_name():
    error = RemoteError("E" * 5000, hint="long" * 1000, name="lamp.Broken", more="x" * 2000)
    short = to_wire(shortest_error(error))
    assert short.names[0] == "lamp.Broken"
    assert len(msgspec.msgpack.encode(short)) < 1000


def test_what_is_given_is_refused_when_it_is_too_long():
    assert check_length("the reason", "because", 7) == "because"
    with pytest.raises(InvalidInput, match="the reason has 9000000 characters, the limit is 1000") as caught:
        check_length("the reason", "x" * 9_000_000)
    assert (caught.value.size, caught.value.limit) == (9_000_000, 1000)


class _Endless(list):
    def __len__(self):
        raise RuntimeError("no length")

    def __iter__(self):
        while True:
            yield "x"


class _NoClass:
    @property
    def __class__(self):
        raise RuntimeError("no class")

    def __str__(self):
        raise SystemExit("no text")


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_facts_of_hostile_classes_are_bounded_and_raise_nothing():
    assert bound_details({"a": _NoClass(), "b": 1, "c": _Endless()}) == {"a": "<_NoClass>", "b": 1, "c": "<_Endless>"}


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_what_has_no_repr_is_shown_by_its_type():
    class Silent:
        def __repr__(self):
            raise SystemExit("no text")

    assert safe_repr(Silent()) == "<Silent>"
    assert safe_repr("a\udcf6") == "'a\\udcf6'"


def test_a_text_without_its_numbers():
    assert mask_numbers("try 17 of <lamp at 0x7fAb12>") == mask_numbers("try 8 of <lamp at 0x1>")
