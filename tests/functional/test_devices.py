"""Drivers that fail, hang and come late, in a real daemon (TRAPS, Plugins)."""

from __future__ import annotations

import pytest
from harness import wait_for

DEVICES = """
[services.device]
manager = "subjects:DeviceManager"
driver_wait = "0.5s"
[services.device.drivers.good]
driver = "subjects:GoodDevice"
"""


def driver(daemon, name: str) -> dict:
    (service,) = daemon.status()["services"]
    return next(row for row in service["drivers"] if row["name"] == name)


def test_trap_a_driver_that_never_comes_back(make_daemon) -> None:
    daemon = make_daemon(
        DEVICES + '[services.device.drivers.bad]\ndriver = "subjects:NeverInitialised"\ninit_timeout = "0.3s"\n'
    ).start()
    wait_for(lambda: driver(daemon, "bad")["state"] == "stuck", "the driver to be stuck")
    (service,) = daemon.status()["services"]
    assert service["state"] == "degraded"
    assert daemon.json("call", "device", "work", "driver=good") == "good worked"
    refused = daemon.command("call", "device", "work", "driver=bad", check=1)
    assert "bad" in refused.stderr


def test_trap_a_driver_that_hangs_is_stuck_by_name_while_the_others_work(make_daemon) -> None:
    daemon = make_daemon(
        DEVICES + '[services.device.drivers.bad]\ndriver = "subjects:HangingDevice"\ncall_timeout = "0.2s"\n'
    ).start()
    stuck = daemon.command("call", "device", "work", "driver=bad", "seconds=2", check=1)
    assert "stuck" in stuck.stderr
    assert driver(daemon, "bad")["state"] == "stuck"
    assert any("bad" in line and "stuck" in line for line in daemon.status()["not_well"])
    assert daemon.json("call", "device", "work", "driver=good") == "good worked"
    wait_for(lambda: driver(daemon, "bad")["state"] == "ready", "the driver to be ready when its call is back")
    assert daemon.status()["not_well"] == []


def test_trap_a_driver_that_fails_three_times_and_then_works(make_daemon) -> None:
    daemon = make_daemon(
        DEVICES + '[services.device.drivers.lucky]\ndriver = "subjects:ThirdTimeLucky"\ncount = "{root}/tries"\n'
        'retry_interval = "0.1s"\n'
    ).start()
    wait_for(lambda: driver(daemon, "lucky")["state"] == "ready", "the driver to be ready")
    assert (daemon.root / "tries").read_text() == "xxxx"
    assert daemon.json("call", "device", "work", "driver=lucky") == "lucky worked"


def test_trap_a_driver_that_is_an_empty_class_and_one_with_a_wrong_signature(make_daemon) -> None:
    daemon = make_daemon(
        DEVICES + '[services.device.drivers.empty]\ndriver = "subjects:EmptyDriver"\n'
        '[services.device.drivers.wrong]\ndriver = "subjects:WrongSignature"\n'
    )
    said = daemon.command("check", check=78, env={**daemon.environ}).stderr
    assert "EmptyDriver" in said
    assert "minutes" in said
    assert "ostler.toml:" in said
    daemon.start(wait=False)
    assert daemon.wait_end() == 78
    assert not (daemon.root / "state").exists()


def test_capabilities_are_kept_and_marked(make_daemon) -> None:
    daemon = make_daemon(DEVICES).start()
    reports = wait_for(lambda: daemon.json("call", "ostler", "capabilities"), "capabilities to be reported")
    assert reports[0]["backends"]["good"]["free_bytes"] == 500
    assert reports[0]["stale"] is False


@pytest.mark.parametrize(
    "reference", ["subjects:EchoManager", "subject_module", "subjects:the_echo", "subjects:make_echo"]
)
def test_trap_a_manager_named_by_class_module_object_and_factory(make_daemon, reference: str) -> None:
    daemon = make_daemon(f'[services.echo]\nmanager = "{reference}"\ngreeting = "hi "\n').start()
    assert daemon.json("call", "echo", "echo", "text=x")["text"] == "hi x"
    assert daemon.stop() == 0
