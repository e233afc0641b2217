"""The configuration in effect, and the one that the daemon was started with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ostler.config import diff
from ostler.config.configuration_diff import RESTART_LEVEL, effective_options, effective_values

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.config.options import OptionsModel
    from ostler.reload_types import OptionChange
    from ostler.service import Service
    from ostler.service.resolve import ResolvedConfiguration
    from ostler.types import OptionValue


class ActiveConfiguration:
    """Knows which options are in effect: those of the last reload, and of the start where a new process is needed.

    On the loop.

    Args:
        resolved: The configuration to start with.
    """

    def __init__(self, resolved: ResolvedConfiguration) -> None:
        self.resolved = resolved
        """The configuration of the last reload, or of the start, with the services it names."""
        self.plugins = resolved.plugins
        """The one plugin host of the daemon, whatever a reload has loaded into it."""
        self.running = resolved.configuration
        """What really runs: its tables have the values of the start where a change needs a new process."""
        self._pending_restart: list[OptionChange] = []

    @property
    def options(self) -> Configuration:
        """The options of the last reload, or of the start."""
        return self.resolved.configuration

    def commit(self, resolved: ResolvedConfiguration) -> None:
        """Record that a reload has put another configuration in effect, but for what needs a new process."""
        self.plugins.adopt(resolved.plugins)
        self.resolved = resolved
        before = self.running.tables
        tables = {
            path: effective_options(before.get(path, table), table)
            for path, table in resolved.configuration.tables.items()
        }
        self.running = replace(self.running, tables=tables)
        self._pending_restart = self.restart_changes(resolved.configuration)

    def pending_restart(self) -> list[OptionChange]:
        """Return the changes of the last reload and those before it that wait for a new process."""
        return self._pending_restart

    def restart_changes(self, new: Configuration) -> list[OptionChange]:
        """Return the changes that only a new process would bring into effect, for a new configuration."""
        # Compared with what runs: such a change is pending over several reloads.
        return [change for change in diff(self.running, new) if change.needs == RESTART_LEVEL]

    def effective_values(self, services: Iterable[Service]) -> list[OptionValue]:
        """Return every option with the value in effect: options that need a restart have the value of the start."""
        return self.values_reader(services)()

    def values_reader(self, services: Iterable[Service]) -> Callable[[], list[OptionValue]]:
        """Return what returns `effective_values` as of now, on any thread: for many services it takes long."""
        actual: dict[tuple[str, ...], OptionsModel] = {}
        for service in services:
            actual["services", service.topic] = service.options
            for name in service.drivers or ():
                actual["services", service.topic, "drivers", name] = service.driver_options(name)
        return partial(effective_values, self.running, self.options, actual)
