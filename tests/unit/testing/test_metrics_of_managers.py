"""`self.metrics` of managers and drivers, in services that run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ostler import Context, Manager, exposed
from ostler.errors import OstlerError, ServiceError
from ostler.testing import host
from support.counting_driver import CountingDriver

CONFIG = """
[services.lamp]
manager = "lamp"
[services.lamp.drivers.desk]
driver = "counting"
"""


class Lamp(Manager):
    driver_type = CountingDriver

    def init_host(self, service_id, added_to_cluster):
        self.calls = self.metrics.counter("lamp_calls_total", "Calls", labels=["by"])

    @exposed(role="viewer")
    def switch(self, ctx: Context, on: bool) -> None:
        """Switch the lamp."""
        self.calls.labels(by=ctx.peer.name).inc()
        self.drivers["desk"].switch(on)

    @exposed(role="viewer")
    def break_lamp(self, ctx: Context) -> None:
        """Have the process of the driver end."""
        self.drivers["desk"].die()


class Clashing(Manager):
    def init_host(self, service_id, added_to_cluster):
        self.metrics.gauge("lamp_calls_total", "No counter")


def lamp_host(config: str = CONFIG, **options):
    return host(
        config=config, managers={"lamp": Lamp, "clashing": Clashing}, drivers={("lamp", "counting"): CountingDriver},
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_manager_and_its_driver_count(isolation):
    with lamp_host(isolation=isolation) as h:
        h.wait_driver("lamp", "desk")
        for on in (True, False, True):
            h.call("lamp", "switch", on=on)
        assert h.metric("lamp_calls_total") == 3
        h.wait_for(lambda: reported(h) == 3, "the driver's metrics")
        assert h.metric("counting_switched_total", driver="desk", to="on") == 2
        assert h.metric("counting_switched_total", service="other") == 0
        with pytest.raises(AssertionError, match="available: counting_switch_seconds, counting"):
            h.metric("lamp_calls")
        with pytest.raises(AssertionError, match="no label colour"):
            h.metric("lamp_calls_total", colour="red")


def reported(h) -> float:
    try:
        return h.metric("counting_switch_seconds", service="lamp")
    except AssertionError:
        return 0


def is_switched(h) -> bool:
    try:
        h.call("lamp", "switch", on=True)
    except OstlerError:  # the end of the process is noticed a little later than that of the call
        return False
    return True


def test_the_counts_of_a_driver_go_on_when_its_process_has_died():
    with lamp_host(CONFIG + "retry_interval = 0.1\n", isolation="process") as h:
        for number in (1, 2, 3):
            h.wait_for(lambda: is_switched(h), "a process that takes calls")
            h.wait_for(lambda: reported(h) == number, "the driver's metrics")  # noqa: B023 - it is called here only
            with pytest.raises(OstlerError):
                h.call("lamp", "break_lamp")
        assert h.metric("counting_switched_total", driver="desk", to="on") == 3


def test_metrics_begin_anew_with_the_next_start_of_the_daemon():
    with lamp_host() as h:
        h.wait_driver("lamp", "desk")
        h.call("lamp", "switch", on=True)
        h.restart()
        h.wait_driver("lamp", "desk")
        assert h.metric("lamp_calls_total") == 0


def test_a_declaration_against_the_conventions_fails_the_start_with_advice():
    with pytest.raises(ServiceError) as caught, lamp_host('[services.other]\nmanager = "clashing"\n'):
        pass
    assert "leave `_total` to counters" in str(caught.value) or "must not end with `_total`" in str(caught.value)


def test_only_who_counts_something_imports_what_counts():
    code = """
import sys
from types import SimpleNamespace
from ostler import ManagerEnvironment, Manager
names = [name for name in ManagerEnvironment.__struct_fields__ if name != "make_metrics"]
from ostler.driver.driver import make_private_metrics
manager = Manager(SimpleNamespace(**dict.fromkeys(names), make_metrics=make_private_metrics))
print("ostler.metrics.registry" in sys.modules)
manager.metrics.counter("a_total", "Something").inc()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
