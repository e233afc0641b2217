"""A plugin of which a service is configured breaks: the host's daemon is up with the rest, and says what is missing."""

from __future__ import annotations

import pytest
from daemon_process import DaemonProcess

ECHO = '[services.echo]\nmanager = "faulty_managers:EchoManager"\n'
LAMP = '[services.lamp]\nmanager = "lamp"\n[services.torch]\nmanager = "faulty_managers:EchoManager"\n'
LAMP += 'depends_on = ["lamp"]\n'
GOOD = """
import faulty_managers
from ostler import hookimpl

@hookimpl
def ostler_managers():
    return {"lamp": faulty_managers.EchoManager}
"""
LATE = """
from ostler import hookimpl

@hookimpl
def ostler_managers():
    return {"lamp": "lamp_native:LampManager"}
"""
BREAKS = {
    "its module is not imported": ("import a_module_that_nobody_has\n", "a_module_that_nobody_has", 1),
    "its module leaves": ("raise SystemExit(3)\n", "SystemExit", 1),
    "its hook raises": (GOOD.replace("return", "1 / 0; return"), "division by zero", 1),
    "its hooks are those of another version": (GOOD + "ostler_api = '99.0'\n", "99.0", 0),
    "its manager is not imported": (LATE, "lamp_native", 0),
    "its manager is none": (GOOD.replace("faulty_managers.EchoManager", "dict"), "dict", 0),
}


@pytest.fixture
def daemon(make_daemon) -> DaemonProcess:
    made = make_daemon(ECHO)
    made.configure(LAMP, "conf.d/lamp.toml")
    return made


@pytest.mark.failure_mode("Plugins", "one that fails to import")
@pytest.mark.parametrize("kind", BREAKS)
def test_services_of_a_broken_plugin_are_left_out_and_the_rest_runs(daemon: DaemonProcess, kind: str) -> None:
    source, why, tracebacks = BREAKS[kind]
    daemon.install("lamp", source)
    checked = daemon.command("check", check=1, env=daemon.environ)
    assert "warning: service lamp is left out: " in checked.stderr
    assert "but a daemon would start without what is broken" in checked.stdout
    daemon.start()
    assert daemon.call("echo", "echo", text="hello")["text"] == "hello"
    assert daemon.log.count("Traceback") == tracebacks
    said = daemon.status()["not_well"]
    assert any(line.startswith("service lamp is left out: ") and why in line for line in said), said
    assert "service torch is left out: it needs lamp, which is left out" in said
    refused = daemon.command("call", "lamp", "echo", check=None).stderr
    assert "lamp on" in refused
    assert "is left out: " in refused
    assert "service lamp is left out: " in daemon.command("service", "restart", "lamp", check=1).stderr
    # Another change can be applied, and does not bring it in again.
    daemon.configure(ECHO + "queue_limit = 2000\n")
    daemon.command("reload")
    assert daemon.status()["not_well"] == said
    # A new service of a broken plugin is refused: the reload would not do what it says.
    daemon.configure('[services.second]\nmanager = "lamp"\n', "conf.d/second.toml")
    assert "second.toml:2" in daemon.command("reload", check=78).stderr
    (daemon.root / "etc/conf.d/second.toml").unlink()
    assert daemon.call("echo", "echo", text="again")["text"] == "again"
    assert daemon.stop() == 0


FILTER = """
from ostler import hookimpl
import faulty_managers
from ostler_scheduler import Filter

class Dark(Filter):
    def why_not(self, candidate, request):
        return ""

@hookimpl
def ostler_extensions():
    return {("scheduler.filter", "dark"): Dark}
"""
SCHEDULER = '[services.scheduler]\nmanager = "scheduler"\nfilters = ["capacity", "dark"]\n'


@pytest.mark.failure_mode("Plugins", "one that fails to import")
def test_a_scheduler_with_a_filter_of_a_broken_plugin_is_left_out_until_it_works(daemon: DaemonProcess) -> None:
    daemon.install("lamp", GOOD)
    daemon.install("night", FILTER.replace("faulty_managers", "a_module_that_nobody_has"))
    daemon.configure(SCHEDULER, "conf.d/scheduler.toml")
    assert "warning: service scheduler is left out: " in daemon.command("check", check=1, env=daemon.environ).stderr
    daemon.start()
    (said,) = daemon.status()["not_well"][1:]
    assert said.startswith("service scheduler is left out: services.scheduler.filters[1]: no installed plugin provides")
    assert "a_module_that_nobody_has" in said
    refused = daemon.command("call", "scheduler", "filters", check=None)
    assert refused.returncode
    assert "is left out: " in refused.stderr
    assert daemon.call("lamp", "echo", text="hello")["text"] == "hello"
    (daemon.plugins / "night_module.py").write_text(FILTER)
    daemon.command("reload")
    assert daemon.status()["not_well"] == []
    assert {service["topic"]: service["state"] for service in daemon.status()["services"]}["scheduler"] == "up"


def test_the_configuration_can_be_changed_and_looked_at_while_a_plugin_is_broken(daemon: DaemonProcess) -> None:
    daemon.install("lamp", "import a_module_that_nobody_has\n")
    daemon.start()
    daemon.command("config", "set", "services.echo.queue_limit", "3000", env=daemon.environ)
    refused = daemon.command("config", "set", "services.second.manager", "lamp", check=78, env=daemon.environ).stderr
    assert "nothing was written" in refused
    shown = daemon.command("config", "cat", "services", env=daemon.environ)
    assert "queue_limit = 3000" in shown.stdout
    assert "warning: service lamp is left out: " in shown.stderr
    (difference,) = daemon.json("config", "diff", env=daemon.environ)
    assert (difference["option"], difference["needs"]) == ("services.echo.queue_limit", "service")


def test_a_broken_plugin_that_is_mended_comes_back_with_a_reload(daemon: DaemonProcess) -> None:
    daemon.install("lamp", "import a_module_that_nobody_has\n")
    daemon.start()
    (daemon.plugins / "lamp_module.py").write_text(GOOD)
    daemon.command("reload")
    assert daemon.call("lamp", "echo", text="hello")["text"] == "hello"
    assert daemon.call("torch", "echo", text="hello")["text"] == "hello"
    assert daemon.status()["not_well"] == []


def test_a_required_service_whose_plugin_is_broken_refuses_the_start(daemon: DaemonProcess) -> None:
    daemon.install("lamp", "import a_module_that_nobody_has\n")
    daemon.configure(LAMP.replace('manager = "lamp"\n', 'manager = "lamp"\nrequired = true\n', 1), "conf.d/lamp.toml")
    assert "lamp.toml:2:11" in daemon.command("check", check=78, env=daemon.environ).stderr
    daemon.start(wait=False)
    assert daemon.wait_end() == 78
    daemon.wait_log("a_module_that_nobody_has")
