"""Plugins in whose code the daemon crashes, those that somebody disables, and the safe mode."""

from __future__ import annotations

import signal

import pytest
from daemon_process import DaemonProcess

BOMB = '''
import ctypes
import os

from ostler import Context, Manager, exposed, hookimpl


class BombManager(Manager):
    @exposed(role="operator")
    def explode(self, ctx: Context, how: str) -> str:
        """End the process."""
        if how == "segfault":
            ctypes.string_at(0)
        elif how == "abort":
            ctypes.PyDLL(None).abort()
        elif how == "exit":
            os._exit(3)
        return "still there"


@hookimpl
def ostler_managers():
    return {"bomb": BombManager}
'''
CONFIG = """
[services.bomb]
manager = "bomb"
[services.fuse]
manager = "faulty_managers:EchoManager"
depends_on = ["bomb"]
[services.echo]
manager = "faulty_managers:EchoManager"
"""


@pytest.fixture
def bomb(make_daemon) -> DaemonProcess:
    """A daemon with a plugin that ends the process when it is asked to."""
    daemon = make_daemon(CONFIG)
    daemon.install("bomb", BOMB)
    return daemon


def explode(daemon: DaemonProcess, how: str) -> int:
    daemon.start()
    daemon.command("call", "bomb", "explode", f"how={how}", check=1)
    return daemon.wait_end()


def plugin(daemon: DaemonProcess) -> dict:
    return next(row for row in daemon.json("plugin", "list") if row["name"] == "bomb")


@pytest.mark.failure_mode("Plugins", "one in whose code the daemon crashes again and again")
def test_a_plugin_in_which_the_daemon_crashes_three_times_is_quarantined(bomb) -> None:
    ends = [explode(bomb, how) for how in ("segfault", "abort", "exit")]
    assert ends == [-signal.SIGSEGV, -signal.SIGABRT, 3]
    bomb.start()
    bomb.wait_log("the daemon crashed in the code of plugin bomb at ")
    bomb.wait_log("Segmentation fault, at ")
    bomb.wait_log("plugin bomb is quarantined until `ostler plugin reset bomb`")
    found = plugin(bomb)
    assert (found["state"], found["crashes"]) == ("quarantined", 3)
    assert found["since"].endswith("Z")
    assert "the daemon crashed 3 times in its code within a day; the last time: os._exit(3) was called" in found["why"]
    assert "bomb_module.py:17 in explode" in found["why"]
    status = bomb.status()
    assert [service["topic"] for service in status["services"] if service["state"] == "up"] == ["echo"]
    assert any(line.startswith("plugin bomb is quarantined") for line in status["not_well"])
    assert any(line.startswith("service bomb is left out: plugin bomb is quarantined") for line in status["not_well"])
    assert "service fuse is left out: it needs bomb, which is left out" in status["not_well"]
    whys = {service["topic"]: service["why"] for service in status["services"]}
    assert whys["bomb"] == whys["fuse"] == "it is left out, as its plugin is broken or not loaded: see `ostler status`"
    assert bomb.json("call", "echo", "echo", "text=hello")["text"] == "hello"
    bomb.command("reload")
    dumped = next(row for row in bomb.json("dump")["plugins"] if row["name"] == "bomb")
    assert (dumped["state"], dumped["crashes"]) == ("quarantined", 3)
    assert bomb.stop() == 0
    shown = bomb.command("plugin", "show", "bomb", env=bomb.environ).stdout
    assert shown.startswith("bomb 1.0 quarantined\n  the daemon crashed 3 times in its code within a day")
    said = bomb.command("plugin", "reset", "bomb").stdout
    assert said.startswith("plugin bomb is loaded by the next start or reload. It was held back: the daemon")
    bomb.start()
    assert (plugin(bomb)["state"], plugin(bomb)["crashes"]) == ("loaded", 0)
    assert bomb.status()["not_well"] == []


@pytest.mark.failure_mode("Plugins", "one in whose code the daemon crashes again and again")
def test_a_required_plugin_that_is_quarantined_refuses_the_start_with_why(bomb) -> None:
    bomb.configure(CONFIG + '[plugins]\nrequired = ["bomb"]\n')
    for _ in range(3):
        explode(bomb, "exit")
    bomb.start(wait=False)
    assert bomb.wait_end() == 78
    bomb.wait_log("the required plugin bomb is quarantined: the daemon crashed 3 times")


@pytest.mark.failure_mode("Plugins", "one in whose code the daemon crashes again and again")
def test_a_killed_daemon_is_held_against_no_plugin(bomb) -> None:
    for _ in range(4):
        bomb.start()
        bomb.signal(signal.SIGKILL)
        bomb.wait_end()
    bomb.start()
    assert (plugin(bomb)["state"], plugin(bomb)["crashes"]) == ("loaded", 0)
    assert "the daemon crashed" not in bomb.log
    assert bomb.stop() == 0
    assert not [name for name in bomb.files() if "crashes" in name], "a regular end leaves nothing"


def test_a_plugin_is_disabled_and_enabled_without_a_daemon(bomb) -> None:
    said = bomb.command("plugin", "disable", "bomb", "--reason", "it leaks", env=bomb.environ).stdout
    assert said == "plugin bomb is not loaded any more. `ostler reload` or a restart of the daemon applies that.\n"
    bomb.start()
    assert plugin(bomb)["why"] == "disabled by `ostler plugin disable`: it leaks"
    assert any("service bomb is left out" in line for line in bomb.status()["not_well"])
    bomb.command("check", env=bomb.environ)
    assert bomb.stop() == 0
    bomb.command("plugin", "enable", "bomb")
    bomb.start()
    assert plugin(bomb)["state"] == "loaded"
    bomb.command("plugin", "disable", "bomb", env=bomb.environ)
    bomb.command("reload")
    assert plugin(bomb)["state"] == "disabled"
    assert any("service bomb is left out" in line for line in bomb.status()["not_well"])
    bomb.command("plugin", "enable", "bomb", env=bomb.environ)
    bomb.command("reload")
    assert plugin(bomb)["state"] == "loaded"
    assert {row["topic"]: row["state"] for row in bomb.json("service", "list")}["bomb"] == "up"
    unknown = bomb.command("plugin", "disable", "bom", check=1, env=bomb.environ).stderr
    assert "plugin bom not found" in unknown


@pytest.mark.failure_mode("Plugins", "a safe mode without those of others")
def test_in_safe_mode_only_bundled_plugins_are_loaded_and_status_says_so(bomb) -> None:
    bomb.start("--safe")
    states = {row["name"]: row["state"] for row in bomb.json("plugin", "list")}
    assert states == {"bomb": "disabled", "http": "loaded", "scheduler": "loaded", "volume": "loaded"}
    assert bomb.status()["safe"] is True
    assert "in safe mode" in bomb.command("status").stdout
    assert any("safe mode" in notice.get("STATUS", "") for notice in bomb.notices.received)
    assert [service["topic"] for service in bomb.status()["services"] if service["state"] == "up"] == ["echo"]
