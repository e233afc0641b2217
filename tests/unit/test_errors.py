"""Errors: their facts as attributes, and their way over the wire."""

import copy
import gc
import math
import pickle

import pytest

from ostler.errors import (
    MAX_RETRY_AFTER,
    Busy,
    ConfigurationError,
    Conflict,
    NotPermitted,
    OstlerError,
    Problem,
    RemoteError,
    ResultExpired,
    SourceLine,
    WireError,
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


def test_details_that_programs_decide_by_have_a_type():
    error = from_wire(
        to_wire(NotPermitted("no", needs="admin", role="viewer", reason="policy", retry_after=2, attempts=3))
    )
    assert (error.needs, error.role, error.reason, error.retry_after, error.attempts) == (
        "admin", "viewer", "policy", 2.0, 3,
    )  # fmt: skip
    bare = NotPermitted("no")
    assert (bare.needs, bare.role, bare.reason, bare.retry_after, bare.attempts) == ("", "", "", None, 1)
    assert not hasattr(Busy("full"), "needs")


def test_who_is_refused_for_its_own_share_can_tell_also_over_the_wire():
    assert from_wire(to_wire(Busy("you have used your share", reason="share"))).is_own_share
    assert not from_wire(to_wire(Busy("full"))).is_own_share


@pytest.mark.parametrize("sent", [None, True, "soon", [], {"a": 1}, -1, math.nan, -math.inf])
def test_nonsense_that_a_peer_sent_for_them_counts_as_nothing(sent):
    error = from_wire(WireError(("ostler.NotPermitted",), "no", "", dict.fromkeys(("retry_after", "attempts"), sent)))
    assert (error.retry_after, error.attempts) == (None, 1)
    error.details = dict.fromkeys(("reason", "needs", "role"), 5 if isinstance(sent, str) else sent)
    assert (error.reason, error.needs, error.role) == ("", "", "")


@pytest.mark.parametrize("sent", [301, 10**400, math.inf, 1e300])
def test_no_peer_has_a_client_wait_for_longer_than_the_limit(sent):
    error = Busy("full")
    error.details["retry_after"] = sent
    assert error.retry_after == MAX_RETRY_AFTER


def test_what_an_error_of_a_plugin_sets_itself_goes_before_a_typed_detail():
    class Broken(OstlerError):
        def __init__(self, reason):
            super().__init__("broken", reason="other")
            self.reason = reason

    assert Broken(["bolt"]).reason == ["bolt"]


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


def test_an_unknown_error_with_a_known_base_keeps_its_name_over_several_hops():
    wire = to_wire(Conflict("broken", name="lamp.one"))._replace(
        names=("elsewhere.Odd", "ostler.Conflict", "ostler.OstlerError")
    )
    for _ in range(3):
        found = from_wire(wire)
        assert (type(found), found.remote_name, found.details["name"]) == (Conflict, "elsewhere.Odd", "lamp.one")
        wire = to_wire(found)


def test_an_error_whose_class_is_known_has_no_remote_name():
    assert from_wire(to_wire(Conflict("broken", name="lamp.one"))).remote_name == ""


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


def test_the_lines_of_problems_travel_when_asked_to() -> None:
    quoted = SourceLine('level = "loud"', 9, 6)
    error = ConfigurationError([Problem("a.toml:2:9", "wrong", quoted), Problem("", "nowhere")])
    error.send_sources()
    received = from_wire(to_wire(error))
    assert isinstance(received, ConfigurationError)
    assert received.problems == [Problem("", "a.toml:2:9: wrong", quoted), Problem("", "nowhere")]
    assert received.details == {}


def test_the_line_of_a_problem_stays_with_it_behind_one_of_several_lines() -> None:
    quoted = SourceLine('level = "loud"', 9, 6)
    error = ConfigurationError([Problem("a.toml:1:1", "two\nlines"), Problem("a.toml:2:9", "wrong", quoted)])
    error.send_sources()
    received = from_wire(to_wire(error))
    assert isinstance(received, ConfigurationError)
    assert [problem.source for problem in received.problems] == [None, None, quoted]


@pytest.mark.parametrize("sources", [5, [5], [["x"]], [["x", 0, 1]], [[1, 1, 1]], [["x", "1", 1]], [[]] * 9, {"a": 1}])
def test_lines_of_problems_that_make_no_sense_are_dropped(sources: object) -> None:
    error = ConfigurationError([Problem("a", "wrong")], sources=sources)
    received = from_wire(to_wire(error))
    assert isinstance(received, ConfigurationError)
    assert received.problems == [Problem("", "a: wrong")]
