"""What is left out of a configuration whose plugins are not loaded on purpose."""

import sys
from types import ModuleType

import pytest

from ostler import Driver, Manager, hookimpl
from ostler.config.layers import load_text
from ostler.errors import ConfigurationError
from ostler.plugins import in_memory_plugin
from ostler.plugins.plugin_records import PluginHold, PluginRecords
from ostler.service.resolve import resolve_configuration


class LampDriver(Driver):
    pass


class LampManager(Manager):
    driver_type = LampDriver


def module(name, **contents):
    made = ModuleType(name)
    vars(made).update(contents)
    return made


@pytest.fixture
def resolve(monkeypatch):
    """Resolve a text with a plugin `lamp` that is loaded, and a plugin `torch` that is left out."""
    lamp = module(
        "lamp",
        ostler_managers=hookimpl(lambda: {"lamp": LampManager}),
        ostler_drivers=hookimpl(lambda: {("lamp", "led"): LampDriver}),
    )
    # It must not be imported: an import by its path would find this one.
    monkeypatch.setitem(sys.modules, "torch", module("torch", Manager=LampManager, Driver=LampDriver))

    def run(text, *, held=True):
        records = PluginRecords(holds={"torch": PluginHold(why="it leaks", since=1.0)} if held else {})
        entry_points = [in_memory_plugin("lamp", lamp), in_memory_plugin("torch", module("torch"))]
        return resolve_configuration(load_text(text), {}, entry_points=entry_points, records=records)

    return run


WHY = "plugin torch is disabled: it leaks"
LAMP = '[services.lamp]\nmanager = "lamp"\n[services.lamp.drivers.desk]\ndriver = "led"\n'


def test_services_drivers_and_dependents_of_a_plugin_that_is_left_out(resolve):
    found = resolve(
        LAMP + '[services.lamp.drivers.beam]\ndriver = "beam"\nwatt = 5\n'
        '[services.lamp.drivers.path]\ndriver = "torch:Driver"\n'
        '[services.torch]\nmanager = "torch"\ncolour = "red"\n[services.path]\nmanager = "torch:Manager"\n'
        '[services.b]\nmanager = "lamp"\ndepends_on = ["a"]\n[services.a]\nmanager = "lamp"\ndepends_on = ["torch"]\n'
        '[torch]\nx = 1\n[notifications]\nwarn = ["pager", "log"]\n'
    )
    (spec,) = found.specs
    assert (spec.topic, list(spec.drivers)) == ("lamp", ["desk"])
    assert found.left_out == [
        f"driver beam of service lamp is left out: {WHY}",
        f"driver path of service lamp is left out: {WHY}",
        f"service torch is left out: {WHY}",
        f"service path is left out: {WHY}",
        "service a is left out: it needs torch, which is left out",
        "service b is left out: it needs a, which is left out",
        f"notification sink pager is left out: {WHY}",
        f"[torch] is left out: {WHY}",
    ]
    assert set(found.left_out) <= set(found.warnings)


def test_with_all_plugins_loaded_nothing_is_left_out(resolve):
    assert resolve(LAMP, held=False).left_out == []
    with pytest.raises(ConfigurationError, match="beam"):
        resolve(LAMP + '[services.lamp.drivers.beam]\ndriver = "beam"\n', held=False)


def test_errors_of_what_is_not_left_out_are_errors(resolve):
    with pytest.raises(ConfigurationError) as caught:
        resolve(LAMP + 'workers = "many"\n[services.torch]\nmanager = "torch"\n[services.c]\nworkers = 3\n')
    assert {problem.what.split(" ")[0] for problem in caught.value.problems} != set()
    assert len(caught.value.problems) == 2
