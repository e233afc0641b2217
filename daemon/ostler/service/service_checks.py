"""Checks of services before they are started: the same for `ostler check`, a start and a reload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from ostler import fork
from ostler.config.configuration import Tables
from ostler.config.core_sections import CORE_SECTIONS, DaemonSection
from ostler.config.layers import dotted
from ostler.config.options import MissingExtension, OptionsModel, ValidationContext
from ostler.errors import error_line
from ostler.manager import ManagerOptions
from ostler.manager.manager import reserved_names
from ostler.manager.on_event import event_handler_faults
from ostler.messaging.interface.introspection import find_contract_violations
from ostler.periodic_tasks.task_checks import periodic_faults as periodic_faults_of
from ostler.plugins import ResolvedObject

Fault = tuple[tuple[str | int, ...], str]


class ServiceChecks:
    """Checks services beyond their options and contracts; runs none of their code except `validate`.

    Args:
        managers: The managers by topic.
        drivers: The drivers by topic and name.
        extensions: The extensions of each manager, by topic, kind and name.
    """

    def __init__(
        self,
        managers: Mapping[str, ResolvedObject],
        drivers: Mapping[str, Mapping[str, ResolvedObject]],
        extensions: Mapping[str, Mapping[str, Mapping[str, Any]]],
    ) -> None:
        self._managers = managers
        self._drivers = drivers
        self._extensions = extensions

    def faults(self, tables: Tables) -> Iterator[Fault]:
        """Yield the path in the configuration and a message for each mistake.

        Args:
            tables: The tables whose options are individually valid, by path.
        """
        for topic, loaded in self._managers.items():
            path = ("services", topic)
            at = (*path, "manager")
            for fault in find_contract_violations(topic, loaded.cls, reserved_names()):
                yield at, f"manager {loaded.reference} violates the manager contract: {fault}"
            options = tables.get(path)
            if options is None:
                continue
            for fault in (*periodic_faults_of(topic, loaded.cls, options), *event_handler_faults(topic, loaded.cls)):
                yield at, fault
        services = {topic: options for topic, options in _service_options(tables).items() if options.enabled}
        yield from _disabled_dependencies(tables, services)
        yield from self._validate(tables, services)

    def _validate(self, tables: Tables, services: Mapping[str, ManagerOptions]) -> Iterator[Fault]:
        daemon = tables.get(("daemon",))
        host = daemon.host if isinstance(daemon, DaemonSection) else ""
        sections = {path[0]: tables[path] for path in tables if len(path) == 1 and path[0] not in CORE_SECTIONS}
        drivers = {
            (path[1], path[3]): options
            for path, options in tables.items()
            if len(path) == 4 and path[0] == "services" and path[1] in services
        }
        shared = ValidationContext(host=host, topic="", services=services, drivers=drivers, sections=sections)
        yield from self._validate_managers(shared, services)
        yield from self._validate_drivers(shared, drivers)

    def _validate_managers(self, shared: ValidationContext, services: Mapping[str, ManagerOptions]) -> Iterator[Fault]:
        for topic, options in services.items():
            if topic not in self._managers:
                continue
            others = {other: found for other, found in services.items() if other != topic}
            context = replace(shared, topic=topic, services=others, extensions=self._extensions.get(topic, {}))
            yield from _call_validate(("services", topic), "manager", self._managers[topic], options, context)

    def _validate_drivers(
        self, shared: ValidationContext, drivers: Mapping[tuple[str, str], OptionsModel]
    ) -> Iterator[Fault]:
        for (topic, name), wanted in drivers.items():
            loaded = self._drivers.get(topic, {}).get(name)
            if loaded is None:
                continue
            others = {key: found for key, found in drivers.items() if key != (topic, name)}
            context = replace(shared, topic=topic, name=name, drivers=others)
            yield from _call_validate(("services", topic, "drivers", name), "driver", loaded, wanted, context)


def _service_options(tables: Tables) -> dict[str, ManagerOptions]:
    return {
        path[1]: options
        for path, options in tables.items()
        if len(path) == 2 and path[0] == "services" and isinstance(options, ManagerOptions)
    }


def _disabled_dependencies(tables: Tables, services: Mapping[str, ManagerOptions]) -> Iterator[Fault]:
    known = _service_options(tables)
    for topic, options in services.items():
        for number, needed in enumerate(options.depends_on):
            if needed in known and needed not in services:
                what = (
                    f"service {topic} needs {needed}, which is not enabled; enable it, or remove it from `depends_on`"
                )
                yield ("services", topic, "depends_on", number), what


def _call_validate(
    path: tuple[str, ...], kind: str, loaded: ResolvedObject, options: OptionsModel, context: ValidationContext
) -> Iterator[Fault]:
    """Call the `validate` of a class; whatever it raises is a fault of the class."""
    try:
        validate = getattr(loaded.cls, "validate", None)  # a factory or module may have none
        found = list(validate(options, context) or ()) if validate is not None else []
        faults = [((option,) if isinstance(option, str) else tuple(option), _text(what)) for option, what in found]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's own code, which may think itself a command
        fork.exit_if_child(error)
        yield (*path, kind), f"{kind} {loaded.reference}: its `validate` failed: {error_line(error)}"
        return
    for place, what in faults:
        text = f"{dotted((*path, *place))}: {what}"
        if isinstance(what, MissingExtension):
            text = MissingExtension(text, what.kind, what.name)
        yield (*path, *place), text


def _text(what: object) -> str:
    return what if isinstance(what, MissingExtension) else str(what)
