"""`ostler run --dev`: files of a plugin change below a running daemon."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from daemon_process import DaemonProcess, wait_for

from ostler import Client
from support.wheels import MANAGER

CONFIG = '[services.lamp]\nmanager = "lamp"\n'
pytestmark = pytest.mark.timeout(120)


def write(daemon: DaemonProcess, text: str) -> None:
    """Replace the module of the plugin as an editor does."""
    module = daemon.plugins / "lamp_module.py"
    module.with_suffix(".tmp").write_text(text, encoding="utf-8")
    module.with_suffix(".tmp").rename(module)


def source(version: str) -> str:
    return MANAGER.format(cls="Lamp", topic="lamp", version=version)


def answer(daemon: DaemonProcess) -> str:
    with Client(root=str(daemon.root)) as client:
        found: str = client.call("lamp", "answer")
        return found


@pytest.fixture
def developing(make_daemon) -> Iterator[DaemonProcess]:
    """A daemon that is not started yet; what is started in dev mode is stopped by a signal, and its child with it."""
    daemon = make_daemon(CONFIG)
    yield daemon
    if daemon.running.poll() is None:
        daemon.stop()


@pytest.fixture
def developed(developing) -> DaemonProcess:
    developing.install("lamp", source("first"))
    return developing.start("--dev")


def test_new_code_runs_in_a_new_process_and_broken_code_does_not(developed) -> None:
    assert answer(developed) == "first"
    heard = len(developed.notices.received)
    write(developed, source("second"))
    developed.wait_ready(heard)
    assert answer(developed) == "second"

    write(developed, "this is not Python\n")
    developed.wait_log("that cannot start: the running daemon goes on")
    assert answer(developed) == "second"

    heard = len(developed.notices.received)
    write(developed, source("third"))
    developed.wait_ready(heard)
    assert answer(developed) == "third"


def test_a_changed_configuration_is_reloaded_in_the_running_process(developed) -> None:
    developed.configure('[log]\nlevel = "debug"\n', "conf.d/10-log.toml")
    developed.wait_log("conf.d/10-log.toml: reloading")
    developed.wait_log("reloaded: changed log.level")


def test_a_daemon_that_ended_is_started_again_by_a_change(developing) -> None:
    daemon = developing
    daemon.install("lamp", "1 / 0\n")
    daemon.configure("[services.lamp]\nrequired = true\n", "conf.d/required.toml")
    daemon.start("--dev", wait=False)
    daemon.wait_log("the daemon ended with 78; a change of a file starts it again")
    write(daemon, source("first"))
    daemon.wait_ready()
    assert answer(daemon) == "first"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_both(developed, number) -> None:
    developed.signal(number)
    assert developed.wait_end() == 0
    wait_for(lambda: not (developed.root / "run" / "rpc.sock").exists(), "the end of the daemon")
    assert "Traceback" not in developed.log


def test_a_daemon_does_not_outlive_its_terminal(developed) -> None:
    developed.signal(signal.SIGKILL)
    developed.wait_end()
    developed.wait_log("ostler.daemon.daemon: stopped")


def test_a_check_that_hangs_does_not_hold_up_the_stop(developed) -> None:
    write(developed, "import time\ntime.sleep(1000)\n")
    developed.wait_log("lamp_module.py")
    developed.signal(signal.SIGTERM)
    assert developed.wait_end() == 0
