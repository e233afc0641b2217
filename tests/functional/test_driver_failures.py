"""Drivers that fail, hang and come late, in a real daemon."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from daemon_process import wait_for

DEVICES = """
[services.device]
manager = "faulty_managers:DeviceManager"
driver_init_wait = "0.5s"
[services.device.drivers.good]
driver = "faulty_managers:GoodDevice"
"""


def driver(daemon, name: str) -> dict:
    (service,) = daemon.status()["services"]
    return next(row for row in service["drivers"] if row["name"] == name)


@pytest.mark.failure_mode("Plugins", "a driver that never comes back")
def test_a_driver_that_never_comes_back(make_daemon) -> None:
    daemon = make_daemon(
        DEVICES + '[services.device.drivers.bad]\ndriver = "faulty_managers:NeverInitialised"\ninit_timeout = "0.3s"\n'
    ).start()
    wait_for(lambda: driver(daemon, "bad")["state"] == "stuck", "the driver to be stuck")
    (service,) = daemon.status()["services"]
    assert service["state"] == "degraded"
    assert daemon.json("call", "device", "work", "driver=good") == "good worked"
    refused = daemon.command("call", "device", "work", "driver=bad", check=1)
    assert "bad" in refused.stderr


@pytest.mark.failure_mode("Plugins", "a driver that never comes back")
def test_a_driver_that_hangs_is_stuck_by_name_while_the_others_work(make_daemon) -> None:
    daemon = make_daemon(
        DEVICES + '[services.device.drivers.bad]\ndriver = "faulty_managers:HangingDevice"\ncall_timeout = "0.2s"\n'
    ).start()
    stuck = daemon.command("call", "device", "work", "driver=bad", "seconds=2", check=1)
    assert "stuck" in stuck.stderr
    assert driver(daemon, "bad")["state"] == "stuck"
    assert any("bad" in line and "stuck" in line for line in daemon.status()["not_well"])
    assert daemon.json("call", "device", "work", "driver=good") == "good worked"
    wait_for(lambda: driver(daemon, "bad")["state"] == "ready", "the driver to be ready when its call is back")
    assert daemon.status()["not_well"] == []


@pytest.mark.failure_mode("Plugins", "eight callers of a backend that hangs, and somebody who wants another one")
def test_callers_of_a_hung_driver_take_no_thread_from_others_and_are_answered(make_daemon) -> None:
    daemon = make_daemon(
        DEVICES.replace('driver_init_wait = "0.5s"', 'driver_init_wait = "0.5s"\nworkers = 2')
        + '[services.device.drivers.bad]\ndriver = "faulty_managers:HangingDevice"\nworkers = 2\ncall_timeout = "4s"\n'
    ).start()
    began = time.monotonic()
    with ThreadPoolExecutor(8) as others:
        calls = [
            others.submit(daemon.command, "call", "device", "work", "driver=bad", "seconds=8", check=1)
            for _ in range(8)
        ]
        wait_for(lambda: daemon.status()["services"][0]["in_flight"] == 8, "all calls to be under way")
        assert daemon.json("call", "device", "work", "driver=good") == "good worked"
        assert time.monotonic() - began < 4, "before anything has come back"
        assert all("bad of device is stuck: work has not returned for" in call.result().stderr for call in calls)
        assert time.monotonic() - began < 8, "at once, those too that waited for a thread of the driver"


@pytest.mark.failure_mode("Plugins", "a reload while a driver works for hours")
def test_new_options_of_a_driver_at_work_hold_up_nobody_and_come_by_themselves(make_daemon) -> None:
    config = DEVICES + '[services.device.drivers.busy]\ndriver = "faulty_managers:BusyDevice"\ncolour = "white"\n'
    daemon = make_daemon(config).start()
    with ThreadPoolExecutor(2) as others:
        call = others.submit(daemon.command, "call", "device", "work", "driver=busy", "seconds=15", check=0)
        wait_for(lambda: daemon.status()["services"][0]["in_flight"] == 1, "the call to be under way")
        daemon.configure(config.replace("white", "red"))
        reload = others.submit(daemon.json, "reload")
        began = time.monotonic()
        while not reload.done():
            assert daemon.json("call", "device", "work", "driver=good") == "good worked"
            time.sleep(0.2)
        assert time.monotonic() - began < 14
        assert reload.result()["pending"][0].startswith("driver busy of device applies new options as soon as")
        assert daemon.json("call", "device", "work", "driver=busy") == "white"
        call.result()
    wait_for(
        lambda: not driver(daemon, "busy")["pending"] and driver(daemon, "busy")["state"] == "ready", "the options"
    )
    assert daemon.json("call", "device", "work", "driver=busy") == "red"


@pytest.mark.failure_mode("Plugins", "one that fails three times and then works")
def test_a_driver_that_fails_three_times_and_then_works(make_daemon) -> None:
    daemon = make_daemon(
        DEVICES + '[services.device.drivers.lucky]\ndriver = "faulty_managers:ThirdTimeLucky"\ncount = "{root}/tries"\n'
        'retry_interval = "0.1s"\n'
    ).start()
    wait_for(lambda: driver(daemon, "lucky")["state"] == "ready", "the driver to be ready")
    assert (daemon.root / "tries").read_text() == "xxxx"
    assert daemon.json("call", "device", "work", "driver=lucky") == "lucky worked"


@pytest.mark.failure_mode("Plugins", "a driver that is an empty class")
@pytest.mark.failure_mode("Plugins", "a driver with a wrong signature")
def test_a_driver_that_is_an_empty_class_and_one_with_a_wrong_signature(make_daemon) -> None:
    daemon = make_daemon(
        DEVICES + '[services.device.drivers.empty]\ndriver = "faulty_managers:EmptyDriver"\n'
        '[services.device.drivers.wrong]\ndriver = "faulty_managers:WrongSignature"\n'
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


@pytest.mark.failure_mode("Plugins", "a manager named by class, module, object and factory")
@pytest.mark.parametrize(
    "reference",
    [
        "faulty_managers:EchoManager",
        "manager_module",
        "faulty_managers:echo_manager_object",
        "faulty_managers:make_echo",
    ],
)
def test_a_manager_named_by_class_module_object_and_factory(make_daemon, reference: str) -> None:
    daemon = make_daemon(f'[services.echo]\nmanager = "{reference}"\ngreeting = "hi "\n').start()
    assert daemon.json("call", "echo", "echo", "text=x")["text"] == "hi x"
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Plugins", "a driver whose calls are refused after many failures")
def test_calls_of_a_failing_driver_are_refused_until_it_is_reset_by_hand(make_daemon, tmp_path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    daemon = make_daemon(
        DEVICES + '[services.device.drivers.bad]\ndriver = "faulty_managers:FailingDevice"\n'
        f'broken = "{broken}"\nbreaker_limit = 4\nretry_interval = "1h"\nmax_retry_interval = "1h"\n'
    ).start()
    for _ in range(4):
        assert "the device is broken" in daemon.command("call", "device", "work", "driver=bad", check=1).stderr
    refused = daemon.command("call", "device", "work", "driver=bad", check=1).stderr
    assert "driver bad of device refuses calls since " in refused
    assert "OSError: the device is broken; next trial in " in refused
    assert driver(daemon, "bad")["breaker"] == "open"
    assert "breaker open" in daemon.command("status").stdout
    assert any("driver bad of device refuses calls" in line for line in daemon.status()["not_well"])
    assert "ostler driver reset device/bad" in daemon.command("service", "show", "device").stdout
    assert daemon.json("call", "device", "work", "driver=good") == "good worked"
    broken.unlink()
    assert (
        daemon.command("driver", "reset", "device/bad").stdout
        == "device/bad is ready, its circuit breaker is closed.\n"
    )
    assert daemon.json("call", "device", "work", "driver=bad") == "bad worked"
    assert daemon.status()["not_well"] == []
    unknown = daemon.command("driver", "reset", "device/none", check=1).stderr
    assert "service device has no driver none" in unknown
    assert "available: good and bad" in unknown
