"""The configuration in effect, and the one that the daemon was started with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ostler.config import diff
from ostler.config.configuration_diff import effective_values

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.config.options import OptionsModel
    from ostler.service import Service
    from ostler.service.resolve import ResolvedConfiguration
    from ostler.reload_types import OptionChange
    from ostler.types import OptionValue

RESTART_SCOPES = ("service", "daemon")
"""What cannot be changed in a running daemon, and is reported as needing a restart."""


class ActiveConfiguration:
    """Knows which options are in effect: those of the last reload, and of the start where a restart is needed.

    On the loop.

    Args:
        resolved: The configuration to start with.
    """

    def __init__(self, resolved: ResolvedConfiguration) -> None:
        self.resolved = resolved
        """The configuration of the last reload, or of the start, with the services it names."""
        self.at_start = resolved.configuration
        """The configuration of the start; of services that were started again since, that of their last start."""

    @property
    def options(self) -> Configuration:
        """The options of the last reload, or of the start."""
        return self.resolved.configuration

    def pending_restart(self, new: Configuration) -> list[OptionChange]:
        """Return the changes of a new configuration that a restart would bring into effect."""
        # Compared with the configuration at the start: such a change is pending over several reloads.
        return [change for change in diff(self.at_start, new) if change.needs in RESTART_SCOPES]

    def mark_service_restarted(self, service: Service | None) -> None:
        """Record, after one service was started again, that none of its options waits for a restart any longer."""
        if service is None or not any(service.spec is spec for spec in self.resolved.specs):
            return  # it was not started, and is unchanged
        mine = ("services", service.topic)
        tables = {path: table for path, table in self.at_start.tables.items() if path[:2] != mine}
        tables |= {path: table for path, table in self.options.tables.items() if path[:2] == mine}
        self.at_start = replace(self.at_start, tables=tables)

    def effective_values(self, services: Iterable[Service]) -> list[OptionValue]:
        """Return every option with the value in effect: options that need a restart have the value of the start."""
        actual: dict[tuple[str, ...], OptionsModel] = {}
        for service in services:
            actual["services", service.topic] = service.options
            for name in service.drivers or ():
                actual["services", service.topic, "drivers", name] = service.driver_options(name)
        return effective_values(self.at_start, self.options, actual)
