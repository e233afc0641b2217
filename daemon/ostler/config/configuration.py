"""`Configuration`: the validated configuration, with the origin of each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pydantic

from ostler.config.core_sections import (
    AccessSection,
    AuditSection,
    DaemonSection,
    EventsSection,
    LogSection,
    MessagingSection,
    NotificationsSection,
    OperationsSection,
    PluginsSection,
    StoreSection,
    TelemetrySection,
)
from ostler.config.layers import RawConfiguration, dotted
from ostler.config.network_section import NetworkSection
from ostler.config.options import OptionsModel
from ostler.config.secret_references import MASK, is_secret_option
from ostler.config.toml_positions import KeyPath
from ostler.errors import Problem, to_plain
from ostler.types import Json, OptionValue

Tables = Mapping[tuple[str, ...], OptionsModel]
"""Validated tables by their path: `("services", "volume", "drivers", "local")`."""


class CoreConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """The sections of the daemon itself.

    In the first of the two steps, when only these are known, invalid options have their defaults, and `problems` lists
    the problems.
    """

    daemon: DaemonSection
    events: EventsSection
    plugins: PluginsSection
    access: AccessSection
    audit: AuditSection
    log: LogSection
    messaging: MessagingSection
    notifications: NotificationsSection
    network: NetworkSection
    operations: OperationsSection
    store: StoreSection
    telemetry: TelemetrySection
    problems: list[Problem] = []


class Configuration(CoreConfiguration, frozen=True, kw_only=True):
    """A whole configuration, validated.

    Attributes:
        services: Options of the services by topic.
        drivers: Options of the drivers by (topic, name).
        sections: Options of the plugins' own sections by name.
        tables: All of these and the core sections, by path.
        raw: The merged files, for the origins.
    """

    services: dict[str, OptionsModel]
    drivers: dict[tuple[str, str], OptionsModel]
    sections: dict[str, OptionsModel]
    tables: Tables
    raw: RawConfiguration

    def values(self) -> list[OptionValue]:
        """Return every option with its value and origin, secrets masked."""
        return [
            option
            for table, model in self.tables.items()
            for name in own_option_names(self.tables, table, model)
            for option in option_values(table, model, name, self.raw)
        ]


def option_values(
    table: tuple[str, ...], model: OptionsModel, name: str, raw: RawConfiguration
) -> Iterator[OptionValue]:
    """Yield the values of an option for display, each with its origin.

    Args:
        table: The path of its table.
        model: The options of that table.
        name: The option.
        raw: The files that its value comes from.
    """
    from ostler.config.written_values import raw_value, written_text  # 5 ms: not for a start

    for path, value in flatten_option((*table, name), masked_option(model, name)):
        text = written_text(type(model), path[len(table) :], value, raw_value(raw.data, path))
        yield OptionValue(path=dotted(path), value=value, origin=raw.origin(path), text=text)


def own_option_names(tables: Tables, table: tuple[str, ...], model: OptionsModel) -> Iterator[str]:
    """Yield the names of a table's options, without those that contain separate tables (a service's drivers)."""
    deeper = {path[len(table)] for path in tables if len(path) > len(table) and path[: len(table)] == table}
    yield from (name for name in type(model).model_fields if name not in deeper)


def masked_option(model: OptionsModel, name: str) -> Json:
    """Return the value of an option for display: as plain data, masked if it is a secret that is set."""
    value = getattr(model, name)
    if is_secret_option(type(model), name):
        return None if value is None else MASK
    return masked_value(value)


def masked_value(value: Any) -> Json:
    """Return a value of a configuration for display."""
    if isinstance(value, pydantic.SecretStr):
        return MASK
    if isinstance(value, OptionsModel):
        return {name: masked_option(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): masked_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked_value(item) for item in value]
    return to_plain(value)


def flatten_option(path: KeyPath, value: Json) -> Iterator[tuple[KeyPath, Json]]:
    """Yield the values of an option for display, each with its path: one, or the entries of its table."""
    # The entries of a table may come from several files.
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flatten_option((*path, key), item)
    else:
        yield path, value
