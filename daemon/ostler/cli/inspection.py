"""`ostler plugin check`: do plugins fulfil what Ostler and each other demand, before a daemon finds out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.errors import PluginError
from ostler.types import PluginState, PluginStatus

if TYPE_CHECKING:
    from ostler.plugins import PluginHost

_BRINGS = {
    "ostler_managers": "manager",
    "ostler_drivers": "driver",
    "ostler_extensions": "extension",
    "ostler_config_sections": "section",
    "ostler_migrations": "migrations",
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What came of looking at one plugin.

    Attributes:
        plugin: Its name.
        state: How far it came.
        version: The version of its distribution.
        brings: What it declares: `manager lamp`, `driver lamp/gpio`.
        faults: Everything that is wrong with it, as sentences.
    """

    plugin: str
    state: PluginState
    version: str
    brings: list[str]
    faults: list[str]


def examine(host: PluginHost) -> list[Finding]:
    """Return a finding for each plugin that was discovered. Imports what plugins name, and runs nothing else of them.

    Args:
        host: The plugin host, after its discovery.
    """
    managers: dict[str, Any] = {}
    faults: dict[str, list[str]] = {}
    for hook, key, fault in _examined(host, managers):
        faults.setdefault(host.owner(hook, key), []).append(fault)
    brings = _brought(host)
    return [_finding(record, brings.get(record.name, []), faults.get(record.name, [])) for record in host.records()]


def _finding(record: PluginStatus, brings: list[str], faults: list[str]) -> Finding:
    why = [record.why] if record.state is PluginState.FAILED else []
    return Finding(
        plugin=record.name, state=record.state, version=record.version, brings=brings, faults=[*why, *faults]
    )


def _brought(host: PluginHost) -> dict[str, list[str]]:
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
            brought.setdefault(host.owner(hook, key), []).append(f"{_BRINGS[hook]} {name}")
    return brought


def _examined(host: PluginHost, managers: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    from ostler.messaging.notify import SINK_KIND, NotificationSink

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
    from ostler.manager import Manager
    from ostler.manager.base import reserved_names
    from ostler.messaging.rpc.surface import faults_of
    from ostler.plugins import resolve
    from ostler.service.assembly import contract_faults

    try:
        loaded = resolve(value, Manager)
    except PluginError as error:
        yield str(error)
        return
    managers[name] = loaded.cls
    yield from contract_faults(loaded, Manager, either=True)
    yield from faults_of(name, loaded.cls, reserved_names())


def _driver_faults(key: tuple[str, str], value: Any, host: PluginHost, managers: dict[str, Any]) -> Iterator[str]:
    from ostler.plugins import resolve
    from ostler.service.assembly import contract_faults

    manager = managers.get(key[0])
    if manager is None:
        if key[0] not in host.managers():
            yield f"no installed plugin brings the manager {key[0]}, so that it cannot be checked"
        return
    contract = manager.driver_type
    if contract is None:
        yield f"the manager {key[0]} has no drivers"
        return
    try:
        loaded = resolve(value, object)
        if loaded.kind != "class":
            loaded = resolve(value, contract)
    except PluginError as error:
        yield str(error)
        return
    yield from contract_faults(loaded, contract)


def _extension_faults(kind: str, value: Any, kinds: dict[str, type]) -> Iterator[str]:
    from ostler.plugins import resolve

    base = kinds.get(kind)
    if base is None:
        yield f"no installed manager asks for extensions of the kind {kind}"
        return
    try:
        loaded = resolve(value, base)
    except PluginError as error:
        yield str(error)
        return
    for name in sorted(getattr(loaded.cls, "__abstractmethods__", ())) if loaded.kind == "class" else ():
        yield f"`{name}` is missing: it is a contract, not an implementation"
