import io
import logging
import logging.config
import sys
import threading

import pytest

from ostler import log
from ostler.log.guard import GuardedLogger
from ostler.manager_types import LogLevel

# private: _lock: of logging itself, held as by another thread
# private: _poll, _restore_thread: what the writer does each second, without the second
# private: _now: virtual time
# private: _next_poll: the writer polls at once


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def guard(stream):
    logging.getLogger("ostler.guarded")
    log.set_up(stream=stream, environ={})
    made = log.start_guard()
    yield made
    logging.disable(logging.NOTSET)
    made.stop()
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


def restored(guard):
    guard.check()
    if guard._restore_thread is not None:
        guard._restore_thread.join(10)


def silence_all_but_root():
    logging.config.dictConfig({"version": 1, "root": {"level": "WARNING", "handlers": []}})


def quiet_ours():
    logging.getLogger("ostler").setLevel(logging.CRITICAL)
    logging.getLogger("ostler.guarded").setLevel(logging.CRITICAL)


@pytest.mark.failure_mode("Plugins", "one that configures or silences logging")
@pytest.mark.parametrize(
    "change",
    [
        silence_all_but_root,
        lambda: logging.basicConfig(force=True, stream=io.StringIO()),
        logging.disable,
        lambda: logging.getLogger().handlers.clear(),  # noqa: PLW0108 - of the handlers that are there then
        quiet_ours,
        lambda: logging.getLogger().setLevel(logging.CRITICAL),
        logging.shutdown,
        lambda: setattr(logging.getLogger("ostler.guarded"), "propagate", False),
        lambda: logging.getLogger("ostler.guarded").addFilter(lambda record: False),
    ],
    ids=["dictConfig", "basicConfig", "disable", "clear", "setLevel", "root level", "shutdown", "propagate", "filter"],
)
def test_a_library_configures_logging(guard, stream, change):
    """Case 20: our own lines come at once, whatever was done; once, and no others by that."""
    logger = logging.getLogger("ostler.guarded")
    try:
        change()
        logger.info("still here")
        logger.debug("not this")
        assert stream.getvalue().count("still here") == 1
        assert "not this" not in stream.getvalue()
    finally:
        logger.filters.clear()
        logger.propagate = True


def test_what_was_changed_is_undone_and_said(guard, stream):
    silence_all_but_root()
    restored(guard)
    logging.getLogger("a.plugin").info("of a plugin")
    assert "a plugin or a library changed how this process logs: the daemon's handler was removed" in stream.getvalue()
    assert stream.getvalue().count("of a plugin") == 1
    assert "changed how this process logs 1 times" in log.log_status()[0]
    silence_all_but_root()
    restored(guard)
    assert stream.getvalue().count("changed how this process logs") == 1  # not more than once a minute


def test_a_standard_error_handler_is_removed_for_it_could_block_and_shows_secrets(guard, stream):
    root = logging.getLogger()
    other = logging.StreamHandler(sys.stderr)
    kept = logging.NullHandler()
    root.addHandler(other)
    root.addHandler(kept)
    restored(guard)
    assert other not in root.handlers
    assert kept in root.handlers
    root.removeHandler(kept)


def test_the_lock_of_logging_may_be_held_by_who_hangs(guard, stream):
    logger = logging.getLogger("ostler.guarded")
    held, done = threading.Event(), threading.Event()

    def hold():
        with logging._lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    logging.getLogger().handlers.clear()
    guard.check()
    logger.warning("not held up")
    assert "not held up" in stream.getvalue()
    done.set()
    thread.join()
    restored(guard)


def test_levels_that_an_operator_sets_count(guard, stream):
    log.set_level("debug", "ostler.guarded")
    logging.getLogger("ostler.guarded").debug("now")
    assert "now" in stream.getvalue()
    log.set_up("warning")
    logging.getLogger("ostler.guarded").info("no more")
    assert "no more" not in stream.getvalue()
    restored(guard)
    assert "changed how" not in stream.getvalue()


def test_a_temporary_level_ends_by_itself_also_over_a_reload(guard, stream):
    time = [100.0]
    guard._now = lambda: time[0]
    log.set_level("debug", "ostler.guarded", 600.0)
    restored(guard)
    log.set_up("warning")
    logging.getLogger("ostler.guarded").debug("still seen")
    assert "still seen" in stream.getvalue()
    assert [each for each in log.effective_levels() if each.logger == "ostler.guarded"] == [
        LogLevel(logger="ostler.guarded", level="debug", seconds_left=600.0)
    ]
    time[0] += 600.0
    restored(guard)
    logging.getLogger("ostler.guarded").info("not seen")
    assert logging.getLogger("ostler.guarded").level == logging.NOTSET
    assert "not seen" not in stream.getvalue()
    assert "changed how" not in stream.getvalue()


def test_a_temporary_level_ends_at_what_was_set_before_it(guard, stream):
    time = [100.0]
    guard._now = lambda: time[0]
    log.set_level("error", "ostler.guarded")
    for seconds in (600.0, 5.0):  # the second one shortens the first
        log.set_level("debug", "ostler.guarded", seconds)
    time[0] += 5.0
    restored(guard)
    assert logging.getLogger("ostler.guarded").level == logging.ERROR
    log.set_level("debug", "ostler.guarded", 5.0)
    log.set_level("info", "ostler.guarded")  # to stay
    time[0] += 5.0
    restored(guard)
    assert logging.getLogger("ostler.guarded").level == logging.INFO


def test_a_handler_of_others_that_fails_is_not_the_trouble_of_who_logs(guard, stream):
    class Broken(logging.Handler):
        def handle(self, record):
            raise LookupError

    logger = logging.getLogger("ostler.guarded")
    logger.addHandler(broken := Broken())
    logger.info("fine")
    logger.info("fine again")
    logger.removeHandler(broken)
    assert "fine again" in stream.getvalue()
    assert "handlers of plugins or libraries failed 2 times, last with LookupError" in log.log_status()[0]


def test_a_look_at_other_loggers_that_fails_is_told_until_one_succeeds(guard, monkeypatch):
    writer = guard.handler.writer

    def fails():
        raise RuntimeError

    monkeypatch.setattr(writer, "on_poll", fails)
    monkeypatch.setattr(writer, "_next_poll", 0.0)
    writer._poll()
    assert "cannot check whether plugins change how this process logs: RuntimeError" in " ".join(log.log_status()[1])
    monkeypatch.setattr(writer, "on_poll", lambda: None)
    monkeypatch.setattr(writer, "_next_poll", 0.0)
    writer._poll()
    assert log.log_status()[1] == []


def test_the_end_leaves_all_loggers_to_logging(stream):
    logger = logging.getLogger("ostler.guarded")
    log.set_up(stream=stream, environ={})
    made = log.start_guard()
    assert isinstance(logger, GuardedLogger)
    made.stop()
    assert type(logger) is logging.Logger


@pytest.mark.failure_mode("Plugins", "one that configures or silences logging")
def test_a_record_factory_that_fails_takes_no_line_from_the_daemon(guard, stream):
    before = logging.getLogRecordFactory()

    def factory(*args, **options):
        raise LookupError("no request is known here")

    logging.setLogRecordFactory(factory)
    try:
        logging.getLogger("ostler.guarded").warning("still %s", "here", extra={"service": "lamp"})
    finally:
        logging.setLogRecordFactory(before)
    log.flush(5)
    assert "still here [service=lamp]" in stream.getvalue()
    assert "LookupError" in guard.describe()


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
def test_an_error_that_raises_when_it_is_asked_for_its_traceback_is_logged(guard, stream):
    class Asked(Exception):
        def __getattribute__(self, name):
            raise RuntimeError(name)

    class Compared:
        def __eq__(self, other):
            raise RuntimeError("compared")

        __hash__ = None

    logging.getLogger("ostler.guarded").error("failed", exc_info=Asked("why"), extra={"service": Compared()})
    log.flush(5)
    assert "Asked" in stream.getvalue()
    assert "could not be formatted" not in stream.getvalue()
