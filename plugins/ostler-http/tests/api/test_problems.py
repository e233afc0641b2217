from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import ostler
from ostler import errors
from ostler_http.api.problems import STATUS_BY_ERROR, problem_of, status_of


def error_classes():
    found = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.OstlerError)]
    return sorted({each.__name__ for each in found})


def test_every_error_of_ostler_has_a_status_and_there_is_no_other():
    assert sorted(STATUS_BY_ERROR) == error_classes()


@pytest.mark.parametrize("name", error_classes())
def test_statuses_are_errors(name):
    assert 400 <= STATUS_BY_ERROR[name] < 600


def test_an_error_of_a_plugin_has_the_status_of_its_nearest_base():
    class Leaking(ostler.NotFound):
        """Raised in a test."""

    class Elsewhere(ostler.OstlerError):
        """Raised in a test."""

    assert (status_of(Leaking("x")), status_of(Elsewhere("x"))) == (404, 500)


def test_a_problem_says_what_happened_to_what_and_what_to_do(api):
    reply = api.post("/topics/lamp/methods/fail", {"kind": "missing"})
    assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")
    assert reply.json() == {
        "type": "urn:ostler:error:ostler.NotFound",
        "title": "Not found",
        "status": 404,
        "detail": "lamp x not found",
        "error": "ostler.NotFound",
        "bases": ["ostler.RequestError"],
        "hint": "see `ostler lamp list`",
        "details": {"lamp": "x", "since": "2027-01-15T08:00:00.000Z"},
        "request_id": "r-1",
    }


def test_a_busy_service_says_when_to_try_again(api):
    reply = api.post("/topics/lamp/methods/fail", {"kind": "busy"})
    assert (reply.status, reply.headers["retry-after"]) == (503, "3")


def test_the_error_of_a_plugin_carries_its_own_name(api):
    reply = api.post("/topics/lamp/methods/fail", {"kind": "own"})
    assert reply.status == 409
    assert reply.json()["error"].endswith(".LampBroken")
    assert reply.json()["details"] == {"lamp": "x"}


def test_a_detail_called_name_is_not_taken_for_that_of_the_error():
    problem = problem_of(ostler.NotFound("volume a.Lost not found", name="a.Lost"), 404, "")
    assert (problem["error"], problem["details"]) == ("ostler.NotFound", {"name": "a.Lost"})


def test_an_error_whose_class_is_not_known_here_has_its_own_name():
    # private: errors come so from a host that has a plugin which this one has not
    from ostler.errors import from_wire, to_wire

    wire = to_wire(ostler.Conflict("it is broken"))._replace(names=("acme.Broken", "ostler.Conflict"))
    problem = problem_of(from_wire(wire), 409, "")
    assert (problem["type"], problem["title"]) == ("urn:ostler:error:acme.Broken", "Broken")
    assert problem["details"] == {}


def test_an_undeclared_error_names_the_request_in_the_log_and_has_no_traceback(api):
    reply = api.post("/topics/lamp/methods/fail", {"kind": "bug"})
    assert (reply.status, reply.json()["error"]) == (500, "ostler.InternalError")
    assert "r-1" in reply.json()["hint"]
    assert b"Traceback" not in reply.body


def test_a_callers_own_limit_is_429():
    from ostler_http.api.problems import problem_status

    own = ostler.Busy("uid 7 has used its share of the 10 requests that lamp runs at a time", reason="share")
    assert problem_status(own, is_known=True) == 429
    assert problem_status(ostler.Busy("lamp has 10 requests in progress"), is_known=True) == 503


def test_the_title_reads_as_words():
    assert problem_of(ostler.DeadlineExceeded("x"), 504, "")["title"] == "Deadline exceeded"


def documented_statuses():
    """Yield the errors in the table of the page with the statuses of their row."""
    page = Path(__file__).parents[4] / "docs" / "http.md"
    table = page.read_text(encoding="utf-8").partition("| status | errors |")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        statuses, errors = row.strip("| ").split(" | ", 1)
        for name in re.findall(r"`(\w+)`", errors):
            yield name, [int(each) for each in re.findall(r"\d{3}", statuses)]


def test_the_page_has_each_error_beside_its_status():
    found = {}
    for name, statuses in documented_statuses():
        found.setdefault(name, []).extend(statuses)
    wrong = {
        name: status for name, status in STATUS_BY_ERROR.items() if status != 500 and status not in found.get(name, [])
    }
    assert wrong == {}
    assert not {name for name in found if STATUS_BY_ERROR.get(name) == 500}
