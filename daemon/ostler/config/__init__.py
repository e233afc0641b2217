"""Configuration: how options are declared, read from TOML in layers, validated together, compared and documented.

    units, paths            sizes, times and locations; no pydantic, so that the command starts fast
    options                 `OptionsModel`, `Field`, the types of options and the context of a validation; for plugins
    core_sections, network_section      the sections of the daemon itself
    toml_parser, toml_positions         one TOML text within bounds, and the position of each key
    layers                  the files merged, each value with its origin
    validation              raw values to models, all problems together; `secret_references` reads secrets,
                            `validation_messages` and `type_descriptions` write the sentences
    configuration           the result: options with their origins
    toml_edit               one value put into a text, for `ostler config set`
    configuration_diff      what differs between two configurations, and what each change needs
    option_reference        the shipped file, the reference page and the JSON Schema, from the same declarations

Nothing here starts, connects or logs. No module has the name of a function below: importing the module would hide the
function. The names below are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration, CoreConfiguration
    from ostler.config.configuration_diff import diff
    from ostler.config.layers import RawConfiguration, dotted, load, load_text
    from ostler.config.options import Faults, Field, OptionsModel, Seconds, Secret, Size, ValidationContext
    from ostler.config.paths import Paths
    from ostler.config.units import format_seconds, format_size, parse_seconds, parse_size
    from ostler.config.validation import validate, validate_core

_EXPORTS = {
    "configuration": ["Configuration", "CoreConfiguration"],
    "configuration_diff": ["diff"],
    "layers": ["RawConfiguration", "dotted", "load", "load_text"],
    "options": ["Faults", "Field", "OptionsModel", "Seconds", "Secret", "Size", "ValidationContext"],
    "paths": ["Paths"],
    "units": ["format_seconds", "format_size", "parse_seconds", "parse_size"],
    "validation": ["validate", "validate_core"],
}
_MODULE_BY_NAME = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "Configuration", "CoreConfiguration", "Faults", "Field", "OptionsModel", "Paths", "RawConfiguration", "Seconds",
    "Secret", "Size", "ValidationContext", "diff", "dotted", "format_seconds", "format_size", "load", "load_text",
    "parse_seconds", "parse_size",
    "validate", "validate_core",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _MODULE_BY_NAME)
