import json
import logging
import sys

import pytest

from ostler.errors import NotFound
from ostler.log import MESSAGE_IDS, detail, fields, message_id
from ostler.log.formats import JsonFormatter, TextFormatter, format_message, syslog_priority


def raised(error):
    try:
        raise error
    except type(error):
        return sys.exc_info()


def text(record, **options):
    return TextFormatter(times=False, **options).format(record)


def test_a_line_has_level_logger_message_and_fields(record):
    with fields(service="volume"):
        line = text(record("%d of %d", 3, 4, driver="a b", empty="", event="ready"))
    assert line == 'INFO     ostler.test: 3 of 4 [service=volume driver="a b"]'


def test_a_line_begins_with_the_time(record):
    line = TextFormatter().format(record())
    assert line[10] == "T"
    assert line[19] == "."
    assert line[23] in "+-"


def test_an_expected_error_is_one_line_without_traceback(record):
    error = NotFound("there is no lamp", hint="see `lamp list`")
    line = text(record("switching failed", exc_info=raised(error)))
    assert line == "INFO     ostler.test: switching failed: there is no lamp; see `lamp list`"
    assert text(record("no: %s", error, exc_info=raised(error))).count("there is no lamp") == 1
    assert "traceback" not in json.loads(JsonFormatter().format(record(exc_info=raised(error))))


def test_an_unexpected_error_keeps_its_traceback(record):
    line = text(record("it broke", exc_info=raised(ValueError("password=hunter2"))))
    assert line.startswith("INFO     ostler.test: it broke\n    Traceback")
    assert line.endswith("ValueError: password=***")


def test_secrets_are_masked(record):
    line = text(record("login with token=%s", "abc", password="hunter2", options={"secret": "x"}))
    assert "abc" not in line
    assert "hunter2" not in line
    assert "'secret': '***'" in line.replace("\\", "")


def test_a_name_cannot_forge_a_line_or_move_the_cursor(record):
    line = text(record("no volume %s", "a\nERROR    root: all is lost\x1b[2J\r", name_given="b\nc\x07"))
    assert "no volume a\\nERROR    root: all is lost\\x1b[2J\\r" in line
    assert all(mark not in line for mark in "\n\x1b\r\x07")


def test_arguments_that_do_not_fit_are_shown_and_harm_nobody(record):
    class Rude:
        def __str__(self):
            raise RuntimeError

    assert format_message(record("%d lamps", "three")) == "%d lamps (its arguments do not match)"
    assert format_message(record("a %s", Rude())) == "a %s (its arguments do not match)"


def test_levels_are_coloured_on_demand_only(record):
    assert "\x1b[31mERROR   \x1b[0m" in text(record(level=logging.ERROR), colours=True)
    assert "\x1b" not in text(record(level=logging.ERROR))


def test_every_line_carries_its_priority_where_systemd_reads_it(record):
    line = text(record("a\nb", level=logging.WARNING, **detail("c\nd")), priorities=True)
    assert line == "<4>WARNING  ostler.test: a\\nb\n<4>    c\n<4>    d"


def test_json_is_one_object_on_a_line(record):
    with fields(request_id="r1"):
        line = JsonFormatter().format(
            record("ä\nb", level=logging.WARNING, odd={1, 2}.__class__, **message_id("service-up"))
        )
    assert "\n" not in line
    found = json.loads(line)
    assert (found["level"], found["logger"], found["message"]) == ("warning", "ostler.test", "ä\\nb")
    assert found["fields"] == {"request_id": "r1", "odd": "<class 'set'>", "event": "service-up"}
    assert found["message_id"] == MESSAGE_IDS["service-up"]


def test_json_carries_the_traceback_of_an_unexpected_error(record):
    found = json.loads(JsonFormatter().format(record(exc_info=raised(ValueError("x")))))
    assert "ValueError: x" in found["traceback"]


@pytest.mark.parametrize(("level", "number"), [(50, 2), (40, 3), (30, 4), (20, 6), (10, 7), (5, 7), (35, 4)])
def test_levels_have_syslogs_numbers(level, number):
    assert syslog_priority(level) == number


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_line_a_field_and_a_traceback_are_cut_and_a_dump_is_not(record, formatter):
    long = "x" * 5_000_000
    assert len(formatter.format(record("%s", long))) < 20_000
    assert len(formatter.format(record("short", what=long))) < 2_000
    assert len(formatter.format(record("short", what=["y" * 1000] * 5000))) < 2_000
    assert len(formatter.format(record("failed", exc_info=raised(ValueError(long))))) < 70_000
    assert len(formatter.format(record("dump", **detail(long[:1_000_000])))) > 1_000_000


EVIL = "A\x1b[2J\x9b31m\x7f\u202egnp\u2066\u200b\r\nERROR    root: forged\x85\u2028\u2029<0>X\ud800"
RAW = set("\x1b\x9b\x7f\u202e\u2066\u200b\r\x85\u2028\u2029\ud800")


class Evil(Exception):
    pass


def hostile(record):
    """Return a record each of whose texts is somebody else's."""
    made = record("%s", EVIL, exc_info=raised(Evil(EVIL)), given=EVIL, deep={EVIL: [EVIL]}, **detail(EVIL))
    made.name = made.threadName = f"x.{EVIL}"
    setattr(made, EVIL, EVIL)
    return made


@pytest.mark.parametrize("options", [{}, {"colours": True}, {"priorities": True}])
def test_no_text_of_a_record_forges_another_one(record, options):
    lines = text(hostile(record), **options).split("\n")
    assert not RAW & set("".join(lines).replace("\x1b[31m", "").replace("\x1b[0m", ""))
    begin = "<6>" if "priorities" in options else ""
    assert lines[0].startswith(f"{begin}INFO     x.A")
    assert len(lines) > 4
    assert all(line.startswith(f"{begin}    ") for line in lines[1:]), "detail and traceback are set off"
    assert "Evil: A\\x1b[2J" in "".join(lines)


def test_json_is_one_valid_line_whatever_stands_in_it(record):
    line = JsonFormatter().format(hostile(record))
    assert not RAW & set(line)
    assert "\n" not in line
    found = json.loads(line)
    assert found["fields"]["given"] == EVIL, "a program reads what was given"
    assert found["message"].startswith("A\\x1b[2J")
    assert set(found) == {"time", "level", "logger", "message", "fields", "traceback", "detail"}


def test_json_has_no_words_that_json_does_not_know(record):
    found = json.loads(JsonFormatter().format(record(bad=float("nan"), worse=[float("inf")])), parse_constant=None)
    assert found["fields"] == {"bad": "nan", "worse": "[inf]"}


def test_long_texts_are_cut_and_say_so(record):
    made = record("%s", "x" * 1_000_000, exc_info=raised(ValueError("y" * 1_000_000)), given="z" * 1_000_000)
    for formatter in (TextFormatter(), TextFormatter(priorities=True), JsonFormatter()):
        line = formatter.format(made)
        assert len(line) < 100_000
        assert "more characters)" in line
    assert all(len(line.encode()) < 48_000 for line in TextFormatter(priorities=True).format(made).split("\n"))


def test_the_traceback_of_our_own_making_keeps_its_lines(record):
    found = json.loads(JsonFormatter().format(record(exc_info=raised(ValueError("a\nb")))))
    assert found["traceback"].splitlines()[0] == "Traceback (most recent call last):"
    assert found["traceback"].endswith("ValueError: a\nb")
