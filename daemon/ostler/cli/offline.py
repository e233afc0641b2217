"""What verbs look at without a daemon: files, and the plugins that are installed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostler.cli import session
from ostler.errors import ConfigurationError

if TYPE_CHECKING:
    from ostler.plugins import PluginHost
    from ostler.service.assembly import Assembly


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the daemon would log, tracebacks of plugins among it, off the screen; the records say it as well."""
    import logging

    logger, handler = logging.getLogger("ostler"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def read(overrides: Sequence[str] = (), given: Mapping[Path, bytes] | None = None) -> Assembly:
    """Return the configuration of the files, checked with its plugins, services and drivers; credentials are not read.

    Args:
        overrides: Values that win over the files, each `table.key=VALUE`.
        given: What files are to hold, instead of what they hold now.

    Raises:
        ConfigurationError: With all problems.
    """
    from ostler.daemon.check import read_configuration

    with quiet():
        return read_configuration(session.current().paths(), overrides, offline=True, given=given)


def plugins() -> PluginHost:
    """Return the installed plugins, loaded as `[plugins]` allows; mistakes there count as defaults."""
    from ostler.config import load, validate_core
    from ostler.service.assembly import discover

    with quiet():
        return discover(validate_core(load(session.current().paths())))


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration: of what is configured, or else of what the plugins bring."""
    from ostler.config.reference import Section, core_sections, json_schema, service_sections
    from ostler.driver import DriverOptions
    from ostler.manager import ManagerOptions

    sections = [*core_sections(), *service_sections(ManagerOptions, DriverOptions)]
    known = {section.path for section in sections}
    try:
        models = {path: type(model) for path, model in read().configuration.tables.items()}
    except ConfigurationError:  # an editor needs the schema most while the file is wrong
        models = {(name,): model for name, model in plugins().config_sections().items()}
    sections += [Section(path=path, model=model) for path, model in models.items() if path not in known]
    return json_schema(sections)
