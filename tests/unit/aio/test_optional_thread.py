import logging
import threading

import pytest

from ostler.aio.optional_thread import start_optional_thread


def test_it_is_a_daemon_thread_with_its_name_and_arguments():
    seen = []
    thread = start_optional_thread(lambda *arguments: seen.append(arguments), "try", 1, 2)
    assert thread is not None
    assert (thread.name, thread.daemon) == ("try", True)
    thread.join(10)
    assert seen == [(1, 2)]


@pytest.mark.failure_mode("Machine", "no memory for a thread")
def test_a_machine_without_threads_is_said_and_gone_on_with(monkeypatch, caplog):
    def fail(_thread):
        raise RuntimeError("can't start new thread")

    # The limit of tasks is that of the user, and would hold for the whole run of the tests.
    monkeypatch.setattr(threading.Thread, "start", fail)
    with caplog.at_level(logging.WARNING):
        assert start_optional_thread(print, "ostler-try") is None
    assert "the thread ostler-try cannot be started: raise TasksMax, or free memory" in caplog.text
