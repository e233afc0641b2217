"""Data that commands read without a daemon: files, and the installed plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostler.cli import invocation
from ostler.errors import ConfigurationError

if TYPE_CHECKING:
    from ostler.config.configuration import CoreConfiguration
    from ostler.plugins import PluginHost
    from ostler.service.resolve import ResolvedConfiguration


@contextmanager
def suppress_logging() -> Iterator[None]:
    """Do not print what the daemon would log, such as tracebacks of plugins; the returned records have the reasons."""
    import logging  # 2 ms: not for commands that ask the daemon

    logger, handler = logging.getLogger("ostler"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def resolve_configuration(
    overrides: Sequence[str] = (),
    given: Mapping[Path, bytes] | None = None,
    plugins: PluginHost | None = None,
    may_leave_out: Callable[[str], bool] = lambda _part: True,
) -> ResolvedConfiguration:
    """Return the configuration files, checked with their plugins, services and drivers; credentials are not read.

    Args:
        overrides: Values that override the files, each `table.key=VALUE`.
        given: New content of files, to be checked instead of their current content.
        plugins: Plugins that were discovered before; None to discover them.
        may_leave_out: Whether a part whose plugin is broken is left out, as by a start, instead of being a problem.

    Raises:
        ConfigurationError: With all problems.
    """
    from ostler.daemon.load_configuration import load_configuration  # 70 ms: not for `--help`

    with suppress_logging():
        paths = invocation.current_invocation().paths()
        return load_configuration(
            paths, overrides, offline=True, given=given, plugins=plugins, may_leave_out=may_leave_out
        )


def resolve_start(overrides: Sequence[str] = ()) -> ResolvedConfiguration:
    """Return the configuration, checked with the directories and the database as a start by this user would.

    Args:
        overrides: Values that override the files, each `table.key=VALUE`.

    Raises:
        ConfigurationError: With all problems of the configuration.
        StartRefused: The configuration is valid, and a daemon could not start with it.
    """
    # 70 ms: not for `--help`.
    from msgspec.structs import replace

    from ostler.daemon.load_configuration import load_configuration
    from ostler.daemon.startup.start_checks import check_start

    with suppress_logging():
        paths = invocation.current_invocation().paths()
        resolved = load_configuration(paths, overrides, offline=True, as_daemon=True, may_leave_out=lambda _part: True)
        return replace(resolved, warnings=[*resolved.warnings, *check_start(paths, resolved)])


def discover_plugins() -> PluginHost:
    """Return the installed plugins, loaded as `[plugins]` allows; invalid options there count as defaults."""
    return load_core()[1]


def load_core() -> tuple[CoreConfiguration, PluginHost]:
    """Return the sections of the daemon itself, where invalid options count as defaults, and the loaded plugins."""
    # 75 ms: not for `--help` and `plugin list`.
    from ostler.config import load, validate_core
    from ostler.plugins.plugin_records import read_records
    from ostler.service.resolve import discover_plugins

    with suppress_logging():
        paths = invocation.current_invocation().paths()
        core = validate_core(load(paths))
        return core, discover_plugins(core, records=read_records(paths.state_dir))


def configuration_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration: of what is configured, or else of what the plugins provide."""
    # 60 ms: not for `config cat`.
    from ostler.config.option_reference import ReferenceSection, core_sections, json_schema, service_sections
    from ostler.driver import DriverOptions
    from ostler.manager import ManagerOptions

    sections = [*core_sections(), *service_sections(ManagerOptions, DriverOptions)]
    known = {section.path for section in sections}
    try:
        models = {path: type(model) for path, model in resolve_configuration().configuration.tables.items()}
    except ConfigurationError:  # an editor needs the schema most while the file is invalid
        models = {(name,): model for name, model in discover_plugins().config_sections().items()}
    sections += [ReferenceSection(path=path, model=model) for path, model in models.items() if path not in known]
    return json_schema(sections)
