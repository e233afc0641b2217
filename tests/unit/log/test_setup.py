import io
import json
import logging
import os
import subprocess
import sys

import pytest

from ostler import log
from ostler.errors import InvalidInput
from ostler.log import journald
from ostler.log.formats import TextFormatter
from ostler.log.handlers import SafeHandler
from ostler.log.journald import journal_fields
from ostler.manager_types import LogLevel
from support.terminal import Terminal


def levels_of(found: list[LogLevel]) -> dict[str, str]:
    return {each.logger: each.level for each in found}


def ours():
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, SafeHandler)]


def test_text_goes_to_the_stream():
    stream = io.StringIO()
    assert log.set_up(stream=stream, environ={}) == "text"
    logging.getLogger("ostler.x").info("hello")
    logging.getLogger("ostler.x").debug("not this")
    assert stream.getvalue().endswith("INFO     ostler.x: hello\n")
    assert "\x1b" not in stream.getvalue()


def test_json_goes_to_the_stream():
    stream = io.StringIO()
    assert log.set_up(format="json", stream=stream, environ={}) == "json"
    logging.getLogger("ostler.x").info("hello")
    assert json.loads(stream.getvalue())["message"] == "hello"


def test_a_second_set_up_replaces_the_first_and_leaves_others_alone():
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    first, second = io.StringIO(), io.StringIO()
    log.set_up("debug", levels={"ostler.x": "error"}, stream=first, environ={})
    log.set_up("info", stream=second, environ={})
    logging.getLogger("ostler.x").info("hello")
    assert first.getvalue() == ""
    assert "hello" in second.getvalue()
    assert len(ours()) == 1
    assert other in logging.getLogger().handlers


@pytest.mark.parametrize("wrong", [{"level": "loud"}, {"levels": {"a": "loud"}}, {"format": "xml"}])
def test_what_is_not_known_changes_nothing(wrong):
    log.set_up("warning", stream=io.StringIO(), environ={})
    before, levels = ours(), log.effective_levels()
    with pytest.raises(InvalidInput, match=r"log (level 'loud'|format 'xml') not found; choose one of"):
        log.set_up(**wrong)
    assert ours() == before
    assert log.effective_levels() == levels


def test_levels_can_be_changed_and_seen_while_it_runs():
    log.set_up("info", stream=io.StringIO(), environ={})
    assert levels_of(log.set_level("debug", "ostler.x"))["ostler.x"] == "debug"
    assert levels_of(log.set_level("WARNING"))[""] == "warning"
    assert "ostler.x" not in levels_of(log.set_level("inherit", "ostler.x"))
    with pytest.raises(InvalidInput):
        log.set_level("loud")
    with pytest.raises(InvalidInput):
        log.set_level("inherit")


def test_a_level_set_while_it_runs_ends_with_the_next_set_up():
    log.set_up(stream=io.StringIO(), environ={})
    log.set_level("debug", "ostler.x")
    log.set_up(stream=io.StringIO(), environ={})
    assert "ostler.x" not in levels_of(log.effective_levels())


def test_debug_does_not_print_queries_with_their_values():
    log.set_up("debug", stream=io.StringIO(), environ={})
    assert not logging.getLogger("peewee").isEnabledFor(logging.DEBUG)
    log.set_up("debug", levels={"peewee": "debug"}, stream=io.StringIO(), environ={})
    assert logging.getLogger("peewee").isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(environ, coloured):
    stream = Terminal()
    log.set_up(stream=stream, environ=environ)
    logging.getLogger("ostler.x").error("hello")
    assert ("\x1b[31m" in stream.getvalue()) is coloured


def test_auto_takes_the_journal_when_stderr_goes_there(tmp_path):
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert log.set_up(stream=stream, environ=environ, journald_socket=str(tmp_path)) == "journal"
        assert isinstance(ours()[0], journald.JournalHandler)
        # Without its socket (a container) text it is, with the priorities that systemd reads.
        away = str(tmp_path / "away")
        assert log.set_up(stream=stream, environ=environ, journald_socket=away) == "text"
        logging.getLogger("ostler.x").error("hello")
        assert log.flush(10)
        log.set_up(stream=io.StringIO(), environ={})
    assert (tmp_path / "stream").read_text() == "<3>ERROR    ostler.x: hello\n"


def test_it_is_light_and_works_in_an_empty_environment():
    script = (
        "import sys, logging; from ostler import log; log.set_up(); logging.getLogger('x').info('h\\u00e4');"
        "log.flush(9);"
        "assert not {'asyncio', 'pydantic', 'peewee'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], env={}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"INFO     x: h" in done.stderr


def test_every_line_says_which_request_it_is_of_and_holds_none_of_its_secrets():
    stream = io.StringIO()
    about = log.LogFields({"request_id": "r-1", "trace_id": "abc"}, ("hunter2",))
    log.set_up(format="json", stream=stream, about=lambda: about)
    log.set_up(format="json", stream=stream, level="debug")  # a reload keeps it
    logger = logging.getLogger("any.library")
    try:
        raise ValueError("it was hunter2")
    except ValueError:
        logger.exception("hunter2 for %s", ["hunter2"], extra={"note": {"deep": ["hunter2"]}, "request_id": "own"})
    logger.debug("plain")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert "hunter2" not in stream.getvalue()
    assert first["message"] == "*** for ['***']"
    assert "ValueError: it was ***" in first["traceback"]
    assert first["fields"] == {"request_id": "own", "trace_id": "abc", "note": {"deep": ["***"]}}
    assert second["fields"] == {"request_id": "r-1", "trace_id": "abc"}


def test_text_and_journal_carry_the_request_as_well():
    record = logging.makeLogRecord({"name": "x", "msg": "hunter2", "levelno": 20, "levelname": "INFO"})
    record.ostler_about = log.LogFields({"request_id": "r-1", "trace_id": "abc"}, ("hunter2",))
    assert TextFormatter(times=False).format(record) == "INFO     x: *** [request_id=r-1 trace_id=abc]"
    sent = journal_fields(record, "ostler")
    assert (sent["MESSAGE"], sent["OSTLER_REQUEST_ID"], sent["OSTLER_TRACE_ID"]) == ("***", "r-1", "abc")
