"""`ostler plugin check`: checks plugins against the contracts of Ostler and of each other, without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.errors import PluginError
from ostler.manager import Manager
from ostler.manager.manager import reserved_names
from ostler.messaging.events.notifications import SINK_KIND, NotificationSink
from ostler.messaging.interface.introspection import find_contract_violations
from ostler.plugins import resolve_object
from ostler.service.resolve import contract_problems
from ostler.types import PluginState, PluginStatus

if TYPE_CHECKING:
    from ostler.plugins import PluginHost

_HOOK_LABELS = {
    "ostler_managers": "manager",
    "ostler_drivers": "driver",
    "ostler_extensions": "extension",
    "ostler_config_sections": "section",
    "ostler_migrations": "migrations",
}


class PluginCheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of checking one plugin.

    Attributes:
        plugin: Its name.
        state: Its state.
        version: The version of its distribution.
        provides: What it provides: `manager lamp`, `driver lamp/gpio`.
        faults: All its faults, as sentences.
    """

    plugin: str
    state: PluginState
    version: str
    provides: list[str]
    faults: list[str]


def check_plugins(host: PluginHost) -> list[PluginCheckResult]:
    """Return a finding for each discovered plugin. Imports the objects that plugins name, and runs nothing else.

    Args:
        host: The plugin host, after its discovery.
    """
    managers: dict[str, Any] = {}
    faults: dict[str, list[str]] = {}
    for hook, key, fault in _iterate_faults(host, managers):
        faults.setdefault(host.owner(hook, key), []).append(fault)
    brings = _provided_names(host)
    return [
        _check_result(record, brings.get(record.name, []), faults.get(record.name, [])) for record in host.statuses()
    ]


def _check_result(record: PluginStatus, provides: list[str], faults: list[str]) -> PluginCheckResult:
    why = [record.why] if record.state is PluginState.FAILED else []
    return PluginCheckResult(
        plugin=record.name, state=record.state, version=record.version, provides=provides, faults=[*why, *faults]
    )


def _provided_names(host: PluginHost) -> dict[str, list[str]]:
    brought: dict[str, list[str]] = {}
    declared: dict[str, dict[Any, Any]] = {
        "ostler_managers": host.managers(),
        "ostler_drivers": host.drivers(),
        "ostler_extensions": host.extensions(),
        "ostler_config_sections": host.config_sections(),
        "ostler_migrations": host.migrations(),
    }
    for hook, found in declared.items():
        for key in found:
            name = "/".join(key) if isinstance(key, tuple) else key
            brought.setdefault(host.owner(hook, key), []).append(f"{_HOOK_LABELS[hook]} {name}")
    return brought


def _iterate_faults(host: PluginHost, managers: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for name, value in host.managers().items():
        for fault in _manager_faults(name, value, managers):
            yield "ostler_managers", name, f"manager {name}: {fault}"
    for key, value in host.drivers().items():
        for fault in _driver_faults(key, value, host, managers):
            yield "ostler_drivers", key, f"driver {'/'.join(key)}: {fault}"
    kinds: dict[str, type] = {SINK_KIND: NotificationSink}
    kinds |= {kind: base for cls in managers.values() for kind, base in cls.extension_kinds.items()}
    for key, value in host.extensions().items():
        for fault in _extension_faults(key[0], value, kinds):
            yield "ostler_extensions", key, f"extension {'/'.join(key)}: {fault}"


def _manager_faults(name: str, value: Any, managers: dict[str, Any]) -> Iterator[str]:
    try:
        loaded = resolve_object(value, Manager)
    except PluginError as error:
        yield str(error)
        return
    managers[name] = loaded.cls
    yield from contract_problems(loaded, Manager, either=True)
    yield from find_contract_violations(name, loaded.cls, reserved_names())


def _driver_faults(key: tuple[str, str], value: Any, host: PluginHost, managers: dict[str, Any]) -> Iterator[str]:
    manager = managers.get(key[0])
    if manager is None:
        if key[0] not in host.managers():
            yield f"no installed plugin provides the manager {key[0]}, so this driver cannot be checked"
        return
    contract = manager.driver_type
    if contract is None:
        yield f"the manager {key[0]} has no drivers"
        return
    try:
        loaded = resolve_object(value, object)
        if loaded.kind != "class":
            loaded = resolve_object(value, contract)
    except PluginError as error:
        yield str(error)
        return
    yield from contract_problems(loaded, contract)


def _extension_faults(kind: str, value: Any, kinds: dict[str, type]) -> Iterator[str]:
    base = kinds.get(kind)
    if base is None:
        yield f"no installed manager accepts extensions of the kind {kind}"
        return
    try:
        loaded = resolve_object(value, base)
    except PluginError as error:
        yield str(error)
        return
    for name in sorted(getattr(loaded.cls, "__abstractmethods__", ())) if loaded.kind == "class" else ():
        yield f"the abstract member `{name}` is not implemented"
