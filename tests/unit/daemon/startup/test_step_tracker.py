import os
import queue
import signal
import threading

import pytest

from ostler.daemon.startup.step_tracker import LoadingMonitor, StepTracker
from ostler.systemd import FakeNotifier

NUMBERS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


pytestmark = pytest.mark.usefixtures("signals_as_before")


@pytest.fixture
def notifier():
    return FakeNotifier()


@pytest.mark.failure_mode("Plugins", "an import or a hook that hangs")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_import_hangs(notifier, number, caplog):
    """Case 16: the process ends though its main thread never comes back, and says in what it hung."""
    caplog.set_level("INFO")
    left, steps, kept = queue.Queue(), StepTracker("starting"), []
    with LoadingMonitor(steps, notifier, kept.append, left.put):
        steps("importing plugin lamps (lamps:plugin)")
        os.kill(os.getpid(), number)
        assert left.get(timeout=10) == 0
    assert f"{signal.Signals(number).name} while starting: importing plugin lamps" in caplog.text
    assert notifier.count("STOPPING") == 1


def test_systemd_and_the_log_are_told_of_a_step_while_it_lasts(notifier, caplog):
    steps = StepTracker("starting", slow_threshold=0.0)
    steps("importing plugin lamps")
    for _ in range(3):
        steps.report(notifier)
    assert notifier.statuses == ["starting: importing plugin lamps for 0s"] * 3
    assert notifier.count("EXTEND_TIMEOUT_USEC") == 3
    assert caplog.text.count("importing plugin lamps for 0s, and it has not returned yet") == 1


def test_a_loading_that_never_ends_is_given_up(notifier, caplog):
    left, steps = queue.Queue(), StepTracker("starting")
    steps("importing plugin lamps")
    with LoadingMonitor(steps, notifier, [].append, left.put, timeout=0.0, status_interval=0.05):
        assert left.get(timeout=10) == 1
    assert "importing plugin lamps did not return; the daemon gives up" in caplog.text


def test_what_comes_late_and_a_reload_are_kept(notifier):
    kept = []
    with LoadingMonitor(StepTracker("starting"), notifier, kept.append, lambda _code: None):
        os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    assert kept == [signal.SIGHUP, signal.SIGTERM]


def test_a_dump_shows_where_it_hangs(notifier, caplog):
    seen = threading.Event()
    caplog.handler.addFilter(lambda record: seen.set() or True)
    with LoadingMonitor(StepTracker("starting"), notifier, [].append, lambda _code: None):
        os.kill(os.getpid(), signal.SIGUSR2)
        assert seen.wait(10)
    assert "test_a_dump_shows_where_it_hangs" in str(caplog.records[0].ostler_detail)
