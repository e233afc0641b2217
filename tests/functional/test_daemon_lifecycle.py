"""The life of a daemon: start, reload and stop, and everything that may come between."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from daemon_process import DaemonProcess, wait_for

ECHO = """
[services.echo]
manager = "faulty_managers:EchoManager"
touch = "{root}/touched"
"""


def touched(daemon: DaemonProcess) -> list[str]:
    path = daemon.root / "touched"
    return path.read_text().split() if path.exists() else []


def slow(daemon: DaemonProcess) -> DaemonProcess:
    daemon.configure(ECHO.replace("EchoManager", "SlowInit") + '[daemon]\nstop_timeout = "2s"\n')
    daemon.start(wait=False)
    wait_for(lambda: "init" in touched(daemon), "init_host to begin", more=lambda: daemon.log)
    return daemon


def test_a_daemon_starts_answers_and_stops(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    assert daemon.json("call", "echo", "echo", "text=hello")["text"] == "hello"
    assert daemon.stop() == 0
    assert touched(daemon)[-1] == "cleanup"
    assert any(fields.get("STOPPING") == "1" for fields in daemon.notices.received)
    assert not (daemon.root / "run" / "rpc.sock").exists()


@pytest.mark.failure_mode("Life", "READY only when work is possible")
def test_ready_only_when_work_is_possible(make_daemon) -> None:
    daemon = slow(make_daemon())
    assert daemon.status()["state"] == "starting"
    daemon.notices.wait(lambda fields: "init_host" in fields.get("STATUS", ""))
    daemon.notices.wait(lambda fields: int(fields.get("EXTEND_TIMEOUT_USEC", "0")) > 0)
    assert not any(fields.get("READY") for fields in daemon.notices.received)


def test_ready_means_that_the_first_call_is_answered(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    assert daemon.status()["services"][0]["state"] == "up"
    assert daemon.call("echo", "echo_async", text="at once")["text"] == "at once"


@pytest.mark.failure_mode("Life", "SIGHUP before the handler is set")
def test_sighup_before_the_handler_is_set(make_daemon) -> None:
    daemon = make_daemon(ECHO).start(wait=False)
    # From the first moment in which the daemon itself (not yet the bare interpreter) runs, no SIGHUP may kill it.
    ignored = 1 << (signal.SIGHUP - 1)

    def protected() -> bool:
        lines = Path(f"/proc/{daemon.running.pid}/status").read_text().splitlines()
        masks = {
            line.split(":")[0]: int(line.split()[1], 16) for line in lines if line.startswith(("SigIgn", "SigCgt"))
        }
        return bool((masks["SigIgn"] | masks["SigCgt"]) & ignored)

    wait_for(protected, "SIGHUP to be ignored or caught")
    for _ in range(50):
        daemon.signal(signal.SIGHUP)
    daemon.wait_ready()
    assert daemon.stop() == 0


def test_a_reload_that_is_asked_for_during_the_start_is_carried_out_after_it(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    assert daemon.stop() == 0
    daemon.configure(ECHO)
    daemon.notices.received.clear()
    daemon.start(wait=False)
    daemon.notices.wait(lambda fields: "starting" in fields.get("STATUS", ""))
    daemon.signal(signal.SIGHUP)
    daemon.wait_ready()
    daemon.notices.wait(lambda fields: "reloaded" in fields.get("STATUS", ""))


@pytest.mark.failure_mode("Life", "SIGHUP with a file that does not parse")
def test_sighup_with_a_file_that_does_not_parse(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    daemon.configure("[services.echo\n")
    seen = len(daemon.notices.received)
    daemon.signal(signal.SIGHUP)
    daemon.notices.wait(lambda fields: "refused" in fields.get("STATUS", ""), after=seen)
    daemon.wait_log("ostler.toml:1:")
    assert daemon.call("echo", "echo", text="still here")["text"] == "still here"
    refused = daemon.command("reload", check=78)
    assert "ostler.toml:1:" in refused.stderr


@pytest.mark.failure_mode("Life", "SIGHUP with a bad typed value")
def test_sighup_with_a_bad_typed_value(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    beats = daemon.status()["services"][0]["beat"]
    daemon.configure(ECHO + 'report_interval = "often"\nworkers = 0\n')
    refused = daemon.command("reload", check=78)
    assert "report_interval" in refused.stderr
    assert "workers" in refused.stderr
    daemon.configure(ECHO + "report_interval = 0.2\n")
    daemon.command("reload")
    wait_for(lambda: daemon.status()["services"][0]["beat"] > beats + 1, "heartbeats to go on")
    assert touched(daemon).count("reset") == 1


def test_a_good_reload_restarts_the_service_where_an_option_needs_it(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    daemon.configure(ECHO + 'greeting = "well, "\nworkers = 3\n')
    seen = len(daemon.notices.received)
    verdict = daemon.json("reload")
    assert verdict["ok"]
    assert verdict["needs_restart"] == []
    assert [(step["action"], step["outcome"]) for step in verdict["steps"]] == [("restart service", "done")]
    assert daemon.call("echo", "echo", text="hello")["text"] == "well, hello"
    reloading = [fields for fields in daemon.notices.received[seen:] if "RELOADING" in fields]
    assert len(reloading) == 1
    assert int(reloading[0]["MONOTONIC_USEC"]) > 0
    daemon.notices.wait(lambda f: f.get("READY") == "1" and "changed services.echo" in f.get("STATUS", ""), after=seen)


def test_a_reset_that_fails_is_in_the_verdict_and_the_daemon_goes_on(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    daemon.configure(ECHO + 'greeting = "fail"\n')
    failed = daemon.command("reload", check=1)
    assert "this greeting cannot be" in failed.stdout + failed.stderr
    assert "everything runs as before" in failed.stdout
    assert daemon.call("echo", "echo", text="x")["text"] != "failx"


@pytest.mark.failure_mode("Life", "SIGHUP then SIGTERM")
def test_sighup_then_sigterm(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    daemon.signal(signal.SIGHUP)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_end() == 0
    assert touched(daemon)[-1] == "cleanup"


@pytest.mark.failure_mode("Life", "50 SIGHUPs in a second")
def test_50_sighups_in_a_second(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    for _ in range(50):
        daemon.signal(signal.SIGHUP)
        time.sleep(0.01)
    wait_for(lambda: "reset" in touched(daemon), "a reset")
    daemon.configure(ECHO + 'greeting = "last "\n')
    daemon.command("reload")
    assert daemon.call("echo", "echo", text="one")["text"] == "last one"
    assert 1 <= touched(daemon).count("reset") <= 51
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Life", "SIGTERM during `init_host`")
def test_sigterm_during_init_host(make_daemon) -> None:
    daemon = slow(make_daemon())
    began = time.monotonic()
    daemon.configure(ECHO)
    daemon.signal(signal.SIGTERM)
    daemon.wait_end()
    assert time.monotonic() - began < 12
    daemon.wait_log("still running at the end of the stop: echo.init_host")
    daemon.start()  # nothing is left behind that a next start would stumble over
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Life", "second SIGTERM")
def test_second_sigterm(make_daemon) -> None:
    daemon = slow(make_daemon())
    daemon.signal(signal.SIGTERM)
    daemon.notices.wait(lambda fields: fields.get("STOPPING") == "1")
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    daemon.wait_end()
    assert time.monotonic() - began < 10
    daemon.wait_log("still running at the end of the stop")


@pytest.mark.failure_mode("Life", "SIGTERM with a driver hung in a native call")
def test_sigterm_with_a_driver_hung_in_a_native_call(make_daemon) -> None:
    daemon = make_daemon(
        """
        [daemon]
        stop_timeout = "3s"
        [services.device]
        manager = "faulty_managers:DeviceManager"
        drain_timeout = "1s"
        [services.device.drivers.bad]
        driver = "faulty_managers:HangingDevice"
        call_timeout = "0.2s"
        """
    ).start()
    stuck = daemon.command("call", "device", "work", "driver=bad", "seconds=3000", check=1)
    assert "stuck" in stuck.stderr
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    daemon.wait_end()
    assert time.monotonic() - began < 12
    assert "bad" in daemon.log.split("stopping")[-1]


@pytest.mark.failure_mode("Life", "failed start leaves nothing behind")
def test_failed_start_leaves_nothing_behind(make_daemon) -> None:
    daemon = make_daemon(ECHO + '[services.broken]\nmanager = "faulty_managers:FailingInit"\nrequired = true\n')
    daemon.start(wait=False)
    assert daemon.wait_end() == 1
    daemon.wait_log("required service broken could not be started")
    daemon.wait_log("the disk is on fire")
    assert not list((daemon.root / "run").iterdir())
    assert not any(fields.get("READY") for fields in daemon.notices.received)
    daemon.configure(ECHO)
    daemon.start()
    assert daemon.stop() == 0


def test_a_service_that_is_not_required_may_fail(make_daemon) -> None:
    daemon = make_daemon(ECHO + '[services.broken]\nmanager = "faulty_managers:FailingInit"\n').start()
    states = {row["topic"]: row for row in daemon.status()["services"]}
    assert (states["echo"]["state"], states["broken"]["state"]) == ("up", "failed")
    assert "the disk is on fire" in states["broken"]["why"]
    assert any("broken" in line for line in daemon.status()["not_well"])
    assert daemon.status()["state"] == "degraded"
    daemon.command("status", "--check", check=1)
    daemon.command("reload", check=0)


@pytest.mark.failure_mode("Life", "a manager that raises `SystemExit` or `KeyboardInterrupt`")
@pytest.mark.parametrize("kind", ["LeavingInit", "InterruptingInit"])
def test_a_manager_that_raises_system_exit_or_keyboard_interrupt_at_start(make_daemon, kind: str) -> None:
    daemon = make_daemon(ECHO + f'[services.leaving]\nmanager = "faulty_managers:{kind}"\nrequired = false\n').start()
    states = {row["topic"]: row["state"] for row in daemon.status()["services"]}
    assert states == {"echo": "up", "leaving": "failed"}


@pytest.mark.failure_mode("Life", "a manager that raises `SystemExit` or `KeyboardInterrupt`")
@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt"])
def test_a_method_that_raises_system_exit_or_keyboard_interrupt(make_daemon, kind: str) -> None:
    daemon = make_daemon(ECHO).start()
    failed = daemon.command("call", "echo", "leave", f"kind={kind}", check=1)
    assert kind in failed.stderr
    assert daemon.call("echo", "echo", text="alive")["text"] == "alive"


def test_services_start_after_what_they_need(make_daemon) -> None:
    daemon = make_daemon(
        ECHO + '[services.first]\nmanager = "faulty_managers:EchoManager"\n[services.last]\n'
        'manager = "faulty_managers:EchoManager"\ndepends_on = ["echo", "first"]\n'
    ).start()
    log = daemon.wait_log("service last is up")
    assert log.index("service first is up") < log.index("service last is up")
    daemon.stop()
    log = daemon.log
    assert log.index("service last is draining") < log.index("service first is draining")


def test_a_cycle_of_services_is_printed(make_daemon) -> None:
    daemon = make_daemon(
        '[services.a]\nmanager = "faulty_managers:EchoManager"\ndepends_on = ["b"]\n'
        '[services.b]\nmanager = "faulty_managers:EchoManager"\ndepends_on = ["a"]\n'
    )
    assert "a -> b -> a" in daemon.command("check", check=78).stderr
    daemon.start(wait=False)
    assert daemon.wait_end() == 78


def test_work_in_flight_is_finished_before_the_stop(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    import subprocess

    from daemon_process import OSTLER

    call = subprocess.Popen(
        [OSTLER, "--root", str(daemon.root), "--json", "call", "echo", "sleep", "seconds=1"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: daemon.status()["services"][0]["in_flight"], "the call to be in flight")
    daemon.signal(signal.SIGTERM)
    daemon.wait_log("draining")
    refused = daemon.command("call", "echo", "echo", check=None)
    assert refused.returncode in (1, 3)
    assert call.communicate(timeout=10)[0].strip() == '"rested"'
    assert daemon.wait_end() == 0


def test_a_periodic_task_on_the_loop_is_finished_before_cleanup(make_daemon) -> None:
    daemon = make_daemon(ECHO + "slow_tick = true\n").start()
    wait_for(lambda: "slow-begins" in touched(daemon), "the task to begin")
    assert daemon.stop() == 0
    assert touched(daemon)[-2:] == ["slow-ends", "cleanup"]


def test_sigusr2_writes_a_dump_to_the_log(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    daemon.signal(signal.SIGUSR2)
    log = daemon.wait_log("MainThread")
    assert "services.echo.manager" in log
    dump = daemon.json("dump")
    assert {"threads", "tasks", "services", "configuration"} <= dump.keys()


@pytest.mark.failure_mode("Machine", "a socket left over from a dead daemon, and one of a living daemon")
def test_a_killed_daemon_leaves_a_socket_that_the_next_one_takes(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    assert (daemon.root / "run" / "rpc.sock").exists()
    assert daemon.command("status", check=3).stderr.count("\n") <= 3
    seen = len(daemon.notices.received)
    daemon.start(wait=False)
    daemon.wait_ready(seen)
    assert daemon.call("echo", "echo", text="again")["text"] == "again"


@pytest.mark.failure_mode("State", "two daemons on one host and name")
def test_a_second_daemon_on_the_same_root_is_refused(make_daemon) -> None:
    daemon = make_daemon(ECHO).start()
    second = daemon.command("run", check=1, env={**os.environ, "PYTHONPATH": daemon.environ["PYTHONPATH"]})
    assert str(daemon.running.pid) in second.stderr
    assert daemon.call("echo", "echo", text="mine")["text"] == "mine"


@pytest.mark.failure_mode("Machine", "started in an empty environment")
def test_an_empty_environment(make_daemon) -> None:
    daemon = make_daemon('[services.volume]\nmanager = "volume"\n')
    daemon.environ = {"NOTIFY_SOCKET": str(daemon.notices.path)}
    daemon.start()
    assert daemon.command("status", env={}).stdout
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Machine", "started without systemd")
def test_without_systemd(make_daemon) -> None:
    daemon = make_daemon(ECHO)
    del daemon.environ["NOTIFY_SOCKET"]
    daemon.start(wait=False)
    daemon.wait_log("ready:")
    assert daemon.status()["state"] == "up"
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Life", "`stop` before `start`")
def test_stop_before_start(make_daemon) -> None:
    daemon = make_daemon(ECHO).start(wait=False)
    # The stop comes as soon as it can be heard at all: the configuration has not been read, nothing has been made.
    heard = 1 << (signal.SIGTERM - 1)

    def listens() -> bool:
        lines = Path(f"/proc/{daemon.running.pid}/status").read_text().splitlines()
        return any(line.startswith("SigCgt") and int(line.split()[1], 16) & heard for line in lines)

    wait_for(listens, "SIGTERM to be caught")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_end() == 0
    assert "Traceback" not in daemon.log
    assert not any(fields.get("READY") for fields in daemon.notices.received)
    assert "init" not in touched(daemon)
    assert not (daemon.root / "run" / "rpc.sock").exists()
    daemon.start()
    assert daemon.stop() == 0
