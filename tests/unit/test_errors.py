"""Errors: their facts as attributes, and their way over the wire."""

import copy
import gc
import pickle

import pytest

from ostler.errors import (
    Busy,
    Conflict,
    OstlerError,
    RemoteError,
    ResultExpired,
    WrongCallKind,
    error_line,
    from_wire,
    is_a,
    is_expected,
    to_wire,
)


def test_facts_are_attributes():
    error = Busy("full", hint="wait", retry_after=1.5, limit=None)
    assert error.retry_after == error.details["retry_after"] == 1.5
    assert error.limit is None
    assert getattr(error, "nothing", "missing") == "missing"
    with pytest.raises(AttributeError, match="Busy has no attribute or detail 'nothing'"):
        _ = error.nothing


def test_a_fact_that_is_nested_too_deeply_is_cut():
    deep = ["end"]
    for _ in range(5000):
        deep = [deep]
    error = Conflict("taken", given=deep, shallow=[[["end"]]])
    assert error.details["given"] != deep
    assert "…" in str(error.details["given"])
    assert error.details["shallow"] == [[["end"]]]


def test_what_an_error_has_of_its_own_goes_before_a_fact_of_that_name():
    error = Conflict("it is there")
    error.details.update(message="other", hint="other", exit_code=99, args="other")
    assert (error.message, error.hint, error.exit_code, error.args) == ("it is there", "", 1, ("it is there",))


def test_an_error_can_be_copied_and_pickled_and_asked_before_it_is_made():
    error = Conflict("it is there", size=3)
    assert copy.copy(error).size == 3
    assert pickle.loads(pickle.dumps(error)).size == 3
    bare = Conflict.__new__(Conflict)
    assert (bare.details, bare.hint, bare.message) == ({}, "", "Conflict")
    assert not hasattr(bare, "size")


@pytest.mark.parametrize("kind", [ResultExpired, WrongCallKind, Busy])
def test_facts_cross_the_wire_and_are_attributes_there(kind):
    found = from_wire(to_wire(kind("no", hint="do this", topic="lamp", tries=2)))
    assert type(found) is kind
    assert (found.message, found.hint, found.topic, found.tries) == ("no", "do this", "lamp", 2)


def test_an_unknown_error_still_has_name_and_text():
    class Odd(OstlerError):
        """Nobody else has this one."""

    wire = to_wire(Odd("odd", depth=2))._replace(names=("elsewhere.Odd", "ostler.OstlerError"))
    found = from_wire(wire)
    assert type(found) is RemoteError
    assert (found.name, str(found), found.depth) == ("elsewhere.Odd", "odd", 2)


class Hostile(Exception):
    """Whatever is asked of it raises."""

    def __str__(self):
        raise SystemExit("no text")

    __repr__ = __str__

    @property
    def __class__(self):
        raise RuntimeError("no class")

    @property
    def args(self):
        raise RuntimeError("no arguments")


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_describing_an_error_never_fails():
    assert error_line(Hostile()) == "Hostile: <Hostile>"
    assert not is_expected(Hostile())


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_a_file_name_that_is_no_utf_8_can_be_sent():
    for kind in (OstlerError, ValueError):
        assert b"ln.txt is no image" in error_line(kind("k\udcf6ln.txt is no image")).encode()


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_a_text_of_megabytes_is_cut():
    for kind in (OstlerError, ValueError):
        assert len(error_line(kind("x" * 8_000_000))) < 3000


class WithoutBase(OstlerError):
    def __init__(self, *args):
        pass


class Riddle(type):
    @property
    def __name__(cls):
        raise RuntimeError("no name")

    @property
    def __module__(cls):
        raise RuntimeError("no module")


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_an_error_whose_constructor_does_not_call_ours_can_be_told():
    assert str(WithoutBase("the lamp", 3)) == "the lamp 3"
    assert to_wire(WithoutBase()).message == "WithoutBase"
    assert WithoutBase().details == {}


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_an_error_whose_class_does_not_tell_its_name_travels():
    nameless = Riddle("Nameless", (OstlerError,), {})  # here: all of the process would meet it in `__subclasses__`
    found = from_wire(to_wire(nameless("odd")))
    assert str(found) == "odd"
    del nameless
    gc.collect()
    assert is_a(Hostile(), Exception)
    assert not is_a(Hostile(), (ValueError, KeyError))
