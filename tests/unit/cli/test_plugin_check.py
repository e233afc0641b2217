from __future__ import annotations

import types
from abc import abstractmethod
from typing import Any

import pytest

from ostler import (
    Context,
    Driver,
    DriverEnvironment,
    Manager,
    Notification,
    NotificationSink,
    exposed,
    hookimpl,
)
from ostler.cli.plugin_check import PluginCheckResult, check_plugins
from ostler.plugins import PluginHost, in_memory_plugin


class Contract(Driver):
    """What a lamp driver must be able to do."""

    @abstractmethod
    def switch(self, lamp: str) -> None: ...


class SoundDriver(Contract):
    def switch(self, lamp: str) -> None: ...


class WrongDriver(Contract):
    def switch(self) -> None: ...  # type: ignore[override]


class LampManager(Manager):
    driver_type = Contract

    async def init_host(self, service_id: int, added_to_cluster: bool) -> None: ...

    @exposed()
    def switch(self, ctx: Context, lamp: str) -> str: ...  # type: ignore[empty-body]


class UnsendableManager(Manager):
    @exposed()
    def show(self, ctx: Context, what: types.ModuleType) -> None: ...


class BareManager(Manager):
    driver_type = None


def plugin(**declared: Any) -> types.ModuleType:
    module = types.ModuleType("a_plugin")
    for hook, value in declared.items():
        name = f"ostler_{hook}"

        def declare(value: Any = value) -> Any:
            return value

        declare.__name__ = name
        declare.__signature__ = __import__("inspect").Signature()  # type: ignore[attr-defined]
        setattr(module, name, hookimpl(declare))
    return module


def checked(**plugins: types.ModuleType) -> dict[str, PluginCheckResult]:
    host = PluginHost([in_memory_plugin(name, module) for name, module in plugins.items()])
    host.discover()
    return {finding.plugin: finding for finding in check_plugins(host)}


def test_a_sound_plugin_has_no_faults_and_says_what_it_brings() -> None:
    found = checked(lamp=plugin(managers={"lamp": LampManager}, drivers={("lamp", "a"): SoundDriver}))["lamp"]
    assert (found.faults, found.provides, found.state) == ([], ["manager lamp", "driver lamp/a"], "loaded")


@pytest.mark.failure_mode("Plugins", "a driver with a wrong signature")
@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ({"managers": {"m": "nothing.of_that:Name"}}, "manager m: "),
        ({"managers": {"m": UnsendableManager}}, "manager m: argument 'what' of m.show cannot be encoded"),
        ({"managers": {"m": LampManager}, "drivers": {("m", "d"): WrongDriver}}, "driver m/d: "),
        ({"managers": {"m": LampManager}, "drivers": {("m", "d"): "nothing:Driver"}}, "driver m/d: "),
        ({"managers": {"m": BareManager}, "drivers": {("m", "d"): SoundDriver}}, "driver m/d: the manager m has no"),
        ({"drivers": {("m", "d"): SoundDriver}}, "driver m/d: no installed plugin provides the manager m"),
        ({"extensions": {("kind", "e"): str}}, "extension kind/e: no installed manager accepts"),
    ],
)  # fmt: skip
def test_what_does_not_fulfil_its_contract_is_said(declared: dict[str, Any], fault: str) -> None:
    found = checked(bad=plugin(**declared), sound=plugin(managers={"lamp": LampManager}))
    assert [line for line in found["bad"].faults if line.startswith(fault)], found["bad"].faults
    assert found["sound"].faults == []


class Sink(NotificationSink):
    def send(self, notification: Notification) -> None: ...


class Singleton(BareManager):
    def __init__(self) -> None:
        """Be made before there is an environment."""


single = Singleton()


def make_driver(environment: DriverEnvironment) -> SoundDriver:
    return SoundDriver(environment)


def test_a_sink_a_singleton_and_a_factory_are_sound() -> None:
    found = checked(
        lamp=plugin(
            managers={"lamp": LampManager, "single": f"{__name__}:single"},
            drivers={("lamp", "made"): f"{__name__}:make_driver"},
            extensions={("notification_sink", "pager"): Sink},
        )
    )["lamp"]
    assert found.faults == []


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        (
            {"managers": {"m": LampManager}, "drivers": {("m", "d"): Contract}},
            "driver m/d: `switch` is missing",
        ),
        (
            {"extensions": {("notification_sink", "s"): NotificationSink}},
            "extension notification_sink/s: the abstract member `send`",
        ),
        ({"extensions": {("notification_sink", "s"): SoundDriver}}, "extension notification_sink/s: "),
    ],
)
def test_a_contract_is_no_implementation(declared: dict[str, Any], fault: str) -> None:
    faults = checked(bad=plugin(**declared))["bad"].faults
    assert any(line.startswith(fault) for line in faults), faults


def test_a_plugin_that_has_not_loaded_says_why() -> None:
    def broken() -> Any:
        raise ImportError("no module lamp")

    host = PluginHost([in_memory_plugin("bad", types.ModuleType("bad"))._replace(load=broken)])
    host.discover()
    (found,) = check_plugins(host)
    assert (found.state, len(found.faults)) == ("failed", 1)
    assert "no module lamp" in found.faults[0]
