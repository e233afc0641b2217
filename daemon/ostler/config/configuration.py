"""`Configuration`: everything validated, with the origin of each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pydantic

from ostler.config.core import (
    AccessSection,
    AuditSection,
    DaemonSection,
    EventsSection,
    LogSection,
    MessagingSection,
    NotificationsSection,
    PluginsSection,
    StoreSection,
    TelemetrySection,
)
from ostler.config.layers import RawConfiguration, dotted
from ostler.config.network import NetworkSection
from ostler.config.options import OptionsModel
from ostler.config.positions import Path
from ostler.config.secrets import MASK, is_secret
from ostler.errors import Problem, plain
from ostler.types import Json, OptionValue

Tables = Mapping[tuple[str, ...], OptionsModel]
"""Validated tables by their path: `("services", "volume", "drivers", "local")`."""


class CoreConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """The sections of the daemon itself.

    In the first of the two steps, when only these are known, a section with mistakes has its defaults in their place,
    and `problems` says what they were.
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
        raw: What was read, for the origins.
    """

    services: dict[str, OptionsModel]
    drivers: dict[tuple[str, str], OptionsModel]
    sections: dict[str, OptionsModel]
    tables: Tables
    raw: RawConfiguration

    def values(self) -> list[OptionValue]:
        """Return every option with its value and origin, secrets masked."""
        return [
            OptionValue(path=dotted(path), value=value, origin=self.raw.origin(path))
            for table, model in self.tables.items()
            for name in own_options(self.tables, table, model)
            for path, value in entries((*table, name), shown_option(model, name))
        ]


def own_options(tables: Tables, table: tuple[str, ...], model: OptionsModel) -> Iterator[str]:
    """Yield the names of a table's options, without those that hold tables of their own (a service's drivers)."""
    deeper = {path[len(table)] for path in tables if len(path) > len(table) and path[: len(table)] == table}
    yield from (name for name in type(model).model_fields if name not in deeper)


def shown_option(model: OptionsModel, name: str) -> Json:
    """Return the value of an option as it may be shown: plain, and masked when it is a secret that is set."""
    value = getattr(model, name)
    if is_secret(type(model), name):
        return None if value is None else MASK
    return shown_value(value)


def shown_value(value: Any) -> Json:
    """Return any value of a configuration as it may be shown."""
    if isinstance(value, pydantic.SecretStr):
        return MASK
    if isinstance(value, OptionsModel):
        return {name: shown_option(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): shown_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [shown_value(item) for item in value]
    return plain(value)


def entries(path: Path, value: Json) -> Iterator[tuple[Path, Json]]:
    """Yield an option as the values that it is shown as: one, or those of its table, each with its path."""
    # The entries of a table may come from several files.
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from entries((*path, key), item)
    else:
        yield path, value
