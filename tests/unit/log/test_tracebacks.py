import logging
import sys

import pytest

from ostler.log.tracebacks import format_traceback


def caught(work):
    try:
        work()
    except BaseException:
        return sys.exc_info()
    raise AssertionError("it raised nothing")


def text(work):
    _, error, trace = caught(work)
    return format_traceback(error, trace, lambda text: text[:1000])


def with_cause():
    try:
        {}["missing"]
    except KeyError as error:
        raise OSError(2, "gone", "lamp") from error


def while_handling():
    try:
        1 / 0  # noqa: B018 - it raises
    except ZeroDivisionError:
        raise ValueError  # noqa: B904 - without a cause


def hidden():
    try:
        1 / 0  # noqa: B018 - it raises
    except ZeroDivisionError:
        error = ValueError("one\ntwo")
        error.add_note("a note")
        raise error from None


def test_it_is_what_python_writes():
    for work in (with_cause, while_handling, hidden):
        info = caught(work)
        assert format_traceback(info[1], info[2], str) == logging.Formatter().formatException(info)


class Hostile(Exception):
    def __str__(self):
        raise SystemExit("no text")

    @property
    def __cause__(self):
        return Hostile()

    @property
    def __context__(self):
        raise RuntimeError("no context")

    @property
    def __notes__(self):
        raise RuntimeError("no notes")

    @property
    def __traceback__(self):
        raise RuntimeError("no traceback")


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_a_chain_without_end_and_attributes_that_raise():
    def work():
        raise Hostile

    assert text(work).endswith("Hostile: <Hostile>")


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_a_real_chain_of_thousands_is_cut():
    def work():
        error = None
        for number in range(5000):
            before, error = error, ValueError(number)
            error.__cause__ = before
        raise error

    found = text(work)
    assert found.startswith("(there are more errors before these)")
    assert found.count("ValueError") == 10
    assert "ValueError: 4999" in found


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_a_chain_in_a_circle_ends():
    def work():
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        raise first

    assert text(work).count("direct cause") == 1


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_texts_of_megabytes_are_cut_before_they_are_put_together():
    def work():
        error = ValueError("x" * 8_000_000)
        error.add_note("y" * 8_000_000)
        raise error from KeyError("z" * 8_000_000)

    assert len(text(work)) < 5000


def test_a_group_shows_its_first_members():
    def work():
        raise ExceptionGroup("many", [ValueError(number) for number in range(50)])

    found = text(work)
    assert "1 of 50 errors" in found
    assert found.count("ValueError") < 13
