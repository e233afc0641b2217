"""What a manager or driver may look at while its options are validated: the rest of the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from ostler.config.options import OptionsModel

Faults: TypeAlias = "Iterable[tuple[str | tuple[str | int, ...], str]]"
"""What `validate` returns: the option, or the path below the table (`("filters", 2)`), and a sentence."""


class ValidationContext(msgspec.Struct, frozen=True, kw_only=True):
    """The rest of a configuration, for `Manager.validate` and `Driver.validate`. Nothing of it is running.

    What has mistakes of its own is left out, and so are services that are not enabled.

    Args:
        host: The name of the host.
        topic: The service whose options are validated, or whose driver's.
        name: The driver whose options are validated; empty for a manager.
        services: The options of the other services, by topic.
        drivers: The options of all other drivers, by topic and name; for a manager its own drivers are among them.
        sections: The options of the plugins' own sections, by name.
        extensions: Kind to name to class, of the kinds that the manager asks for; empty for a driver.
    """

    host: str
    topic: str
    name: str = ""
    services: Mapping[str, OptionsModel] = {}
    drivers: Mapping[tuple[str, str], OptionsModel] = {}
    sections: Mapping[str, OptionsModel] = {}
    extensions: Mapping[str, Mapping[str, Any]] = {}
