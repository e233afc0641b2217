"""What can be said against services before they are started: the same for `ostler check`, a start and a reload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ostler import fork
from ostler.config.configuration import Tables
from ostler.config.core import CORE_SECTIONS, DaemonSection
from ostler.config.layers import dotted
from ostler.config.options import OptionsModel, ValidationContext
from ostler.errors import describe
from ostler.manager import ManagerOptions
from ostler.manager.base import reserved_names
from ostler.messaging.rpc.surface import faults_of
from ostler.periodic.check import faults_of as periodic_faults_of
from ostler.plugins import Loaded

Fault = tuple[tuple[str | int, ...], str]


class ServiceChecks:
    """Checks of services beyond their options and contracts; runs nothing of them but `validate`.

    Args:
        managers: The managers by topic.
        drivers: The drivers by topic and name.
        extensions: What each manager is given, by topic and kind and name.
    """

    def __init__(
        self,
        managers: Mapping[str, Loaded],
        drivers: Mapping[str, Mapping[str, Loaded]],
        extensions: Mapping[str, Mapping[str, Mapping[str, Any]]],
    ) -> None:
        self._managers = managers
        self._drivers = drivers
        self._extensions = extensions

    def faults(self, tables: Tables) -> Iterator[Fault]:
        """Yield the path to point at, and a sentence, for each mistake.

        Args:
            tables: The tables whose options are right one by one, by their path.
        """
        for topic, loaded in self._managers.items():
            path = ("services", topic)
            at = (*path, "manager")
            for fault in faults_of(topic, loaded.cls, reserved_names()):
                yield at, f"manager {loaded.reference} is not as a manager has to be: {fault}"
            options = tables.get(path)
            if options is None:
                continue
            for fault in periodic_faults_of(topic, loaded.cls, options):
                yield at, fault
        services = {topic: options for topic, options in _services(tables).items() if options.enabled}
        yield from _depending_on_disabled(tables, services)
        yield from self._validated(tables, services)

    def _validated(self, tables: Tables, services: Mapping[str, ManagerOptions]) -> Iterator[Fault]:
        drivers = {
            (path[1], path[3]): options
            for path, options in tables.items()
            if len(path) == 4 and path[0] == "services" and path[1] in services
        }
        daemon = tables.get(("daemon",))
        host = daemon.host if isinstance(daemon, DaemonSection) else ""
        own = [path for path in tables if len(path) == 1 and path[0] not in CORE_SECTIONS]
        sections = {path[0]: tables[path] for path in own}
        for topic, options in services.items():
            if topic not in self._managers:
                continue
            context = ValidationContext(
                host=host,
                topic=topic,
                services={other: found for other, found in services.items() if other != topic},
                drivers=drivers,
                sections=sections,
                extensions=self._extensions.get(topic, {}),
            )
            yield from _asked(("services", topic), "manager", self._managers[topic], options, context)
        for (topic, name), wanted in drivers.items():
            loaded = self._drivers.get(topic, {}).get(name)
            if loaded is None:
                continue
            others = {key: found for key, found in drivers.items() if key != (topic, name)}
            context = ValidationContext(
                host=host, topic=topic, name=name, services=services, drivers=others, sections=sections
            )
            yield from _asked(("services", topic, "drivers", name), "driver", loaded, wanted, context)


def _services(tables: Tables) -> dict[str, ManagerOptions]:
    return {
        path[1]: options
        for path, options in tables.items()
        if len(path) == 2 and path[0] == "services" and isinstance(options, ManagerOptions)
    }


def _depending_on_disabled(tables: Tables, services: Mapping[str, ManagerOptions]) -> Iterator[Fault]:
    known = _services(tables)
    for topic, options in services.items():
        for number, needed in enumerate(options.depends_on):
            if needed in known and needed not in services:
                what = (
                    f"service {topic} needs {needed}, which is not enabled; enable it, or take it out of `depends_on`"
                )
                yield ("services", topic, "depends_on", number), what


def _asked(
    path: tuple[str, ...], kind: str, loaded: Loaded, options: OptionsModel, context: ValidationContext
) -> Iterator[Fault]:
    """Ask a class what it has against its options; whatever it raises is a mistake of the class."""
    try:
        validate = getattr(loaded.cls, "validate", None)  # a factory or module may have none
        found = list(validate(options, context) or ()) if validate is not None else []
        faults = [((option,) if isinstance(option, str) else tuple(option), str(what)) for option, what in found]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's own code, which may think itself a command
        fork.leave_if_child(error)
        yield (*path, kind), f"{kind} {loaded.reference}: its `validate` failed: {describe(error)}"
        return
    for place, what in faults:
        yield (*path, *place), f"{dotted((*path, *place))}: {what}"
