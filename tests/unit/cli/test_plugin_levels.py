"""`ostler plugin check --level` and `ostler plugin show`, on the bundled plugins and on a bad one."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler import Context, Driver, DriverOptions, Field, Manager, ManagerOptions, exposed, hookimpl
from ostler.cli.plugin_check import check_plugins
from ostler.cli.plugin_levels import LEVELS, LevelChecks, LevelResult
from ostler.cli.plugin_overview import describe_plugin, sample_configuration
from ostler.errors import InvalidInput
from ostler.plugins import PluginHost, in_memory_plugin


class SilentOptions(ManagerOptions):
    poll: int = Field(30, help="How often")


class SilentManager(Manager[SilentOptions]):
    @exposed(role="viewer", changes=False)
    def lamps(self, ctx: Context) -> list[str]:
        return [self.drivers[name].lamp() for name in self.drivers]

    def helper(self, value): ...


class SilentDriver(Driver):
    def lamp(self) -> str:
        return "desk"


class NeedyDriver(SilentDriver):
    """A driver that needs an option."""

    class Options(DriverOptions):
        """Its options."""

        device: str = Field(help="The device")


SilentManager.driver_type = Driver


@pytest.fixture
def host() -> Iterator[Any]:
    made = []

    def make(manager: type[Manager], drivers: dict[tuple[str, str], type[Driver]]) -> PluginHost:
        module = types.ModuleType("silent_plugin")

        @hookimpl
        def ostler_managers() -> dict[str, Any]:
            return {"silent": manager}

        @hookimpl
        def ostler_drivers() -> dict[tuple[str, str], Any]:
            return drivers

        module.ostler_managers, module.ostler_drivers = ostler_managers, ostler_drivers  # type: ignore[attr-defined]
        sys.modules["silent_plugin"] = module
        made.append(module)
        host = PluginHost([in_memory_plugin("silent_plugin", module)])
        host.discover()
        return host

    yield make
    sys.modules.pop("silent_plugin", None)


def levels(host: PluginHost, last: str, configuration: str = "") -> dict[str, LevelResult]:
    (found,) = check_plugins(host)
    checks = LevelChecks(host, found, configuration)
    return {result.level: result for result in checks.run(last)}


def test_each_level_names_its_problems(host: Any) -> None:
    found = levels(host(SilentManager, {("silent", "one"): SilentDriver}), "docs")
    assert list(found) == list(LEVELS[:-1])
    assert [found[level].problems for level in ("loads", "contract", "conformance")] == [[], [], []]
    assert found["faults"].problems == []
    assert found["docs"].problems == [
        "manager silent has no docstring",
        "driver silent/one has no docstring",
        "silent.lamps has no docstring",
    ]


def test_what_needs_options_is_not_checked_without_them(host: Any) -> None:
    plugin = host(SilentManager, {("silent", "one"): NeedyDriver})
    found = levels(plugin, "faults")
    assert found["conformance"].skipped == [
        "manager silent: each of its drivers needs options; give a configuration with --config"
    ]
    text = '[services.a]\nmanager = "silent"\n[services.a.drivers.x]\ndriver = "one"\ndevice = "/dev/lamp"\n'
    found = levels(plugin, "conformance", text)
    assert (found["conformance"].skipped, found["conformance"].problems) == ([], [])


def test_after_a_broken_contract_nothing_is_run(host: Any) -> None:
    class Broken(SilentManager):
        def init_host(self) -> None:  # type: ignore[override]
            raise AssertionError("it must not run")

    found = levels(host(Broken, {}), "conformance")
    assert found["contract"].problems
    assert found["conformance"].skipped == ["the levels before it have problems"]


def test_an_unknown_level_is_refused(host: Any) -> None:
    with pytest.raises(InvalidInput, match="level perfect not found"):
        levels(host(SilentManager, {}), "perfect")


def test_the_command_reports_levels(ostler: Any, tmp_path: Path) -> None:
    config = tmp_path / "volume.toml"
    (tmp_path / "volumes").mkdir()
    config.write_text(
        '[services.volume]\nmanager = "volume"\n'
        f'[services.volume.drivers.a]\ndriver = "file"\npath = "{tmp_path}/volumes"\n'
    )
    code, out, err = ostler("plugin", "check", "volume", "--level", "typed", "--config", str(config))
    assert (code, err) == (0, "")
    assert out == "volume\n" + "".join(f"  {level}: ok\n" for level in LEVELS)
    assert ostler("plugin", "check", "--level", "x").code == 2
    assert "cannot read" in ostler("plugin", "check", "--level", "loads", "--config", str(tmp_path / "no")).err


def test_show_tells_what_a_plugin_provides(ostler: Any) -> None:
    code, out, _ = ostler("plugin", "show", "volume")
    assert code == 0
    for line in ("driver volume/file", "command ostler volume", "create_volume (operator)", "[services.volume]"):
        assert line in out
    found = json.loads(ostler("--json", "plugin", "show", "volume").out)
    assert (found["commands"], found["tables"], found["managers"][0]["contract"]) == (
        ["volume"],
        ["volume"],
        "VolumeDriver",
    )
    assert ostler("plugin", "show", "volum").code == 1


def test_the_sample_configuration_is_valid_toml_with_every_own_option(host: Any) -> None:
    import tomllib

    text = sample_configuration({"silent": SilentManager}, {("silent", "one"): NeedyDriver}, {})
    assert (
        tomllib.loads(text) == {"services": {"silent": {"manager": "silent", "drivers": {"one": {"driver": "one"}}}}}
        or "device" in text
    )
    assert "#poll = 30" in text
    plugin = host(SilentManager, {})
    (status,) = plugin.statuses()
    assert describe_plugin(plugin, status).commands == []
