"""Configuration: how options are declared, read from TOML in layers, checked all at once, compared and documented.

    units, paths        sizes, times and places; import no pydantic, so that the command answers fast
    options             `OptionsModel`, `Field` and the types of options; what plugin authors use
    core                the sections of the daemon itself
    positions           where each key of a TOML text stands
    layers              the files merged, each value with its origin
    validation          raw values to models, every problem at once; `secrets` reads what stands elsewhere,
                        `wording` and `expectations` make plain sentences
    configuration       what comes out: options with their origins
    context             what a manager or driver may look at while its options are validated
    edit                one value put into a text, for `ostler config set`
    changes             what differs between two configurations, and what each change needs
    reference           the shipped file, the reference page and the JSON Schema, from the same declarations

Nothing here starts, connects or logs. No module is named as a function below is: importing the module would hide the
function. The names below are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    from ostler.config.changes import diff
    from ostler.config.configuration import Configuration, CoreConfiguration
    from ostler.config.layers import RawConfiguration, dotted, load, load_text
    from ostler.config.options import Faults, Field, OptionsModel, Seconds, Secret, Size, ValidationContext
    from ostler.config.paths import Paths
    from ostler.config.units import format_seconds, format_size, parse_seconds, parse_size
    from ostler.config.validation import validate, validate_core

_HOMES = {
    "configuration": ["Configuration", "CoreConfiguration"],
    "changes": ["diff"],
    "layers": ["RawConfiguration", "dotted", "load", "load_text"],
    "options": ["Faults", "Field", "OptionsModel", "Seconds", "Secret", "Size", "ValidationContext"],
    "paths": ["Paths"],
    "units": ["format_seconds", "format_size", "parse_seconds", "parse_size"],
    "validation": ["validate", "validate_core"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Configuration", "CoreConfiguration", "Faults", "Field", "OptionsModel", "Paths", "RawConfiguration", "Seconds",
    "Secret", "Size", "ValidationContext", "diff", "dotted", "format_seconds", "format_size", "load", "load_text",
    "parse_seconds", "parse_size",
    "validate", "validate_core",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _HOME)
