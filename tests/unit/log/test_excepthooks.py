import logging
import sys
import threading
import types
import warnings

import pytest

from ostler.log import install_excepthooks


@pytest.fixture(autouse=True)
def hooks(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    install_excepthooks()
    yield
    logging.captureWarnings(False)


def test_what_ends_a_thread_goes_through_the_log(caplog):
    def work():
        raise ValueError("x\nERROR forged")

    thread = threading.Thread(target=work, name="lamp-1")
    thread.start()
    thread.join()
    (found,) = caplog.records
    assert found.getMessage() == "the thread lamp-1 ended with an error"
    assert found.exc_info[0] is ValueError


def test_a_thread_that_leaves_is_no_error(caplog):
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    assert caplog.records == []


def test_what_nobody_can_take_and_warnings_go_through_the_log(caplog):
    error = ValueError("x")
    sys.unraisablehook(types.SimpleNamespace(exc_value=error, err_msg="Exception ignored in", object="thing"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old\x1b", stacklevel=1)
    assert [found.levelname for found in caplog.records] == ["ERROR", "WARNING"]
