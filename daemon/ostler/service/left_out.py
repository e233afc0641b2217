"""Leaves services and drivers out of a configuration whose plugins are not loaded on purpose.

A plugin that is quarantined, disabled by a command or left out by the safe mode must not take the others down: what the
configuration says of it would be an error otherwise.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from ostler.config.core_sections import CORE_SECTIONS
from ostler.config.layers import RawConfiguration
from ostler.messaging.events.notifications import BUILTIN_SINKS, SINK_KIND
from ostler.plugins import PluginHost


def leave_out(raw: RawConfiguration, plugins: PluginHost) -> list[str]:
    """Remove the services, drivers and tables that need a plugin of `left_out`; return what was removed, a line each.

    Which plugin would declare a registered name is not known, as it is not imported: with a plugin left out, each name
    that no other one declares counts as its own.

    Args:
        raw: What was read; it is changed.
        plugins: The plugins, after their discovery.
    """
    names = plugins.left_out()
    if not names:
        return []
    packages = plugins.left_out_packages()
    reasons = [f"plugin {name} is {reason}" for name, reason in names.items()]
    why = "the safe mode loads only plugins that come with Ostler" if plugins.is_safe else "; ".join(reasons)
    managers, drivers = plugins.managers(), plugins.drivers()
    services = raw.table(("services",))
    removed = []
    for topic, table in _tables(services):
        if _is_missing(table.get("manager"), set(managers), packages):
            del services[topic]
            removed.append(f"service {topic} is left out: {why}")
            continue
        registered = {name for of, name in drivers if of == table.get("manager")}
        backends = raw.table(("services", topic, "drivers"))
        for name, driver in _tables(backends):
            if _is_missing(driver.get("driver"), registered, packages):
                del backends[name]
                removed.append(f"driver {name} of service {topic} is left out: {why}")
    removed += _leave_out_dependents(services, removed)
    sinks = {*BUILTIN_SINKS, *(name for kind, name in plugins.extensions() if kind == SINK_KIND)}
    removed += [f"notification sink {name} is left out: {why}" for name in _remove_sinks(raw, sinks)]
    known = {*CORE_SECTIONS, *plugins.config_sections(), "services"}
    for section in [name for name in raw.data if name not in known]:
        del raw.data[section]
        removed.append(f"[{section}] is left out: {why}")
    return removed


def _remove_sinks(raw: RawConfiguration, known: Container[str]) -> Iterator[str]:
    for chosen in raw.table(("notifications",)).values():
        names = chosen if isinstance(chosen, list) else []
        for name in [each for each in names if isinstance(each, str) and each not in known]:
            names.remove(name)
            yield name


def left_out_topics(lines: Iterable[str]) -> set[str]:
    """Return the services among the lines of `leave_out`."""
    return {line.split()[1] for line in lines if line.startswith("service ")}


def _tables(table: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, value) for name, value in table.items() if isinstance(value, dict)]


def _is_missing(reference: object, registered: Container[str], packages: Container[str]) -> bool:
    """Return whether a manager or driver is one of a plugin that is left out."""
    if not isinstance(reference, str) or reference in registered:
        return False
    module = reference.partition(":")[0]
    return module.partition(".")[0] in packages if ":" in reference or "." in reference else True


def _leave_out_dependents(services: dict[str, Any], removed: Iterable[str]) -> list[str]:
    """Remove the services that depend on one that was removed, and so on."""
    gone = left_out_topics(removed)
    lines: list[str] = []
    while True:
        found = [
            (topic, needed)
            for topic, table in _tables(services)
            for needed in table.get("depends_on") or ()
            if isinstance(needed, str) and needed in gone
        ]
        if not found:
            return lines
        for topic, needed in found:
            if services.pop(topic, None) is not None:
                gone.add(topic)
                lines.append(f"service {topic} is left out: it needs {needed}, which is left out")
