"""`ostler plugin show`: what a plugin provides, from its classes, without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.cli.plugin_commands import installed_entry_points
from ostler.config import OptionsModel
from ostler.config.option_reference import ReferenceSection, render_toml
from ostler.config.option_reference_text import SHIPPED_FILE_HEADER
from ostler.driver import Driver, DriverOptions
from ostler.manager import Manager, ManagerOptions
from ostler.messaging.interface.introspection import list_exposed
from ostler.plugins import resolve_object
from ostler.types import PluginStatus

if TYPE_CHECKING:
    from ostler.plugins import PluginHost


class MethodOverview(msgspec.Struct, frozen=True, kw_only=True):
    """An exposed method: its name, the role that callers need, and the first line of its docstring."""

    name: str
    role: str
    help: str


class ManagerOverview(msgspec.Struct, frozen=True, kw_only=True):
    """A manager: its name, docstring, contract of drivers (empty without), and methods."""

    name: str
    help: str
    contract: str
    journals_events: bool
    methods: list[MethodOverview]


class PluginOverview(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin provides.

    Attributes:
        status: The plugin itself.
        managers: Its managers.
        drivers: Its drivers, `lamp/gpio`, with the first line of their docstring.
        commands: Its sub-commands of `ostler`.
        extensions: Its extensions, `scheduler.filter/capacity`.
        sections: Its configuration sections.
        tables: The namespaces of its tables.
        configuration: A sample configuration with each option, its help and its default.
    """

    status: PluginStatus
    managers: list[ManagerOverview]
    drivers: dict[str, str]
    commands: list[str]
    extensions: list[str]
    sections: list[str]
    tables: list[str]
    configuration: str


def describe_plugin(host: PluginHost, status: PluginStatus) -> PluginOverview:
    """Return what a plugin provides. Imports its classes, and runs nothing of them.

    Args:
        host: The plugin host, after its discovery.
        status: The plugin.

    Raises:
        PluginError: A class cannot be imported.
    """

    def own(hook: str, keys: Any) -> list[Any]:
        return sorted(key for key in keys if host.owner(hook, key) == status.name)

    names = own("ostler_managers", host.managers())
    managers = {name: resolve_object(host.managers()[name], Manager).cls for name in names}
    keys = own("ostler_drivers", host.drivers())
    drivers = {key: resolve_object(host.drivers()[key], Driver).cls for key in keys}
    sections = own("ostler_config_sections", host.config_sections())
    points = installed_entry_points()
    return PluginOverview(
        status=status,
        managers=[_describe_manager(name, cls) for name, cls in managers.items()],
        drivers={"/".join(key): _first_line(cls) for key, cls in drivers.items()},
        commands=sorted(point.name for point in points if point.distribution == status.distribution != ""),
        extensions=["/".join(key) for key in own("ostler_extensions", host.extensions())],
        sections=sections,
        tables=own("ostler_migrations", host.migrations()),
        configuration=sample_configuration(
            managers, drivers, {name: host.config_sections()[name] for name in sections}
        ),
    )


def sample_configuration(
    managers: dict[str, Any], drivers: dict[tuple[str, str], Any], sections: dict[str, type[OptionsModel]]
) -> str:
    """Return a configuration with a service for each manager and a table for each driver, as TOML.

    Options that have a default are commented out.
    """
    tables = [ReferenceSection(path=(name,), model=model) for name, model in sections.items()]
    text = [render_toml(tables).removeprefix(SHIPPED_FILE_HEADER.strip()).strip()] if tables else []
    for name, manager in managers.items():
        section = ReferenceSection(path=("services", name), model=manager.Options, base=ManagerOptions)
        text.append(_service_text(section, f'manager = "{name}"'))
    for (manager, name), driver in drivers.items():
        path = ("services", manager, "drivers", name)
        section = ReferenceSection(path=path, model=driver.Options, base=DriverOptions)
        text.append(_service_text(section, f'driver = "{name}"'))
    return "\n\n".join(text) + "\n" if text else ""


def _service_text(section: ReferenceSection, first: str) -> str:
    lines = render_toml([section]).removeprefix(SHIPPED_FILE_HEADER.strip()).strip().splitlines()
    header = next(index for index, line in enumerate(lines) if line.startswith("["))
    return "\n".join([*lines[: header + 1], first, *lines[header + 1 :]])


def _describe_manager(name: str, manager: type[Manager]) -> ManagerOverview:
    return ManagerOverview(
        name=name,
        help=_first_line(manager),
        contract=manager.driver_type.__qualname__ if manager.driver_type is not None else "",
        journals_events=manager.journal_events,
        methods=list(_describe_methods(name, manager)),
    )


def _describe_methods(name: str, manager: type[Manager]) -> Iterator[MethodOverview]:
    for method in list_exposed(name, manager):
        first = cleandoc(method.doc).partition("\n")[0]
        yield MethodOverview(name=method.name, role=str(method.exposure.role), help=first)


def _first_line(cls: type) -> str:
    return cleandoc(vars(cls).get("__doc__") or "").partition("\n")[0]
