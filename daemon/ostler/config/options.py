"""Declares options: once, with type, default, unit, help and what a change needs.

    class LampOptions(ManagerOptions):
        poll: Seconds = Field(30, gt=0, help="How often the state of the lamps is read")

Validation, the shipped file, the reference page, the JSON Schema and the tests use this declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

import msgspec
import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from ostler.config.units import SECONDS_MAX, SIZE_MAX, parse_seconds, parse_size
from ostler.errors import InvalidInput
from ostler.spelling import nearest

ReloadScope: TypeAlias = Literal["live", "driver", "service", "daemon"]
"""What a change of an option needs: nothing, or a restart of the driver, the service or the daemon."""

_METADATA_KEY = "x-ostler"
COUNT_MAX = 2**31 - 1
"""The maximum of any count: the limit of the libraries used, and more than any machine has."""


class OptionsModel(pydantic.BaseModel):
    """The base class of all tables of options: frozen, and unknown keys are errors.

    A model is built on first use, so that the models of a plugin cost nothing until a configuration uses them.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        defer_build=True,
        protected_namespaces=(),
    )

    def validate_options(self) -> Iterable[tuple[str, str]]:
        """Return faults in the combination of options that are each valid: (name of the option, sentence).

        Subclasses override it; the implementations of all base classes are called, so do not call `super`. The sentence
        follows the option's path in the message, and is shown with its location.
        """
        return ()


class Expects(msgspec.Struct, frozen=True):
    """A description of valid values; for the items of a list: `list[Annotated[str, Expects("a colour")]]`."""

    words: str


class OptionMetadata(msgspec.Struct, frozen=True):
    """The arguments of `Field` other than type and default."""

    unit: str
    reload: ReloadScope
    secret: bool
    shown: str
    expects: str
    renamed_from: str = ""
    deprecated: str = ""


def Field(  # noqa: N802, PLR0913 - it replaces that of pydantic, and each argument is a word of its own
    default: Any = ...,
    *,
    help: str,  # noqa: A002  (the usual name)
    unit: str = "",
    reload: ReloadScope = "live",
    secret: bool = False,
    shown: str = "",
    expects: str = "",
    renamed_from: str = "",
    deprecated: str = "",
    **constraints: Any,
) -> Any:
    """Declare an option.

    Args:
        default: The default; without one the option is required. For a default that depends on the machine or the
            environment, give `default_factory=...`, which is called when a configuration is read.
        help: What the option does, in one or two sentences without a final full stop.
        unit: The unit of the value, if neither the type nor the name shows it.
        reload: What a change of it needs.
        secret: Whether its value is masked wherever it is shown; the type `Secret` is always masked.
        shown: The default in words, for a computed one.
        expects: A description of valid values, if type and constraints do not make it clear ("a host name").
        renamed_from: The earlier name, which is accepted with a warning for one minor version.
        deprecated: For an option that the next minor version removes: what to use instead; it warns where it is set.
        constraints: `ge`, `gt`, `le`, `lt`, `pattern`, `min_length` and the like, as in pydantic.
    """
    facts: dict[str, Any] = {"unit": unit, "reload": reload, "secret": secret, "shown": shown, "expects": expects}
    facts |= {name: text for name, text in (("renamed_from", renamed_from), ("deprecated", deprecated)) if text}
    if "default_factory" not in constraints:
        constraints["default"] = default
        # A default may be written as in a file: "10GiB", "/srv".
        constraints.setdefault("validate_default", type(default) in (str, int, float))
    return pydantic.Field(description=help, json_schema_extra={_METADATA_KEY: facts}, **constraints)


def option_metadata(field: FieldInfo) -> OptionMetadata:
    """Return the facts of an option from `Field`; cautious defaults for a plain pydantic field."""
    extra = field.json_schema_extra
    known: Any = extra.get(_METADATA_KEY) if isinstance(extra, dict) else None
    if not isinstance(known, dict):
        return OptionMetadata("", "daemon", False, "", "")
    return OptionMetadata(**known)


def _coerce_text(parse: Callable[[str], float], value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except InvalidInput as error:
        raise PydanticCustomError("ostler_unit", "{text}", {"text": str(error)}) from None


def coerce_seconds(value: object) -> object:
    """Return seconds for a text such as `5min`, anything else unchanged; identifies `Seconds` among annotations."""
    return _coerce_text(parse_seconds, value)


def coerce_size(value: object) -> object:
    """Return bytes for a text such as `10GiB`, anything else unchanged; identifies `Size` among annotations."""
    return _coerce_text(parse_size, value)


Seconds = Annotated[
    float,
    pydantic.BeforeValidator(coerce_seconds, json_schema_input_type=float | str),
    pydantic.Field(le=SECONDS_MAX),
]
"""A time span in seconds; written `30`, `"30s"`, `"5min"`, `"2h"`."""

Size = Annotated[
    int,
    pydantic.BeforeValidator(coerce_size, json_schema_input_type=int | str),
    pydantic.Field(ge=0, le=SIZE_MAX),
]
"""A number of bytes; written `10737418240`, `"10GiB"`, `"500MB"`."""

Secret = pydantic.SecretStr
"""Text that is never printed; written `{credential = "name"}` or `{file = "/path"}`."""


Faults: TypeAlias = "Iterable[tuple[str | tuple[str | int, ...], str]]"
"""The result of `validate`: the option, or the path below the table (`("filters", 2)`), and a sentence."""


class MissingExtension(str):
    """The sentence of an option that names an extension that no plugin provides; a `str` that says which.

    Args:
        text: The sentence.
        kind: The kind of the extension.
        name: Its name.
    """

    __slots__ = ("kind", "name")
    kind: str
    name: str

    def __new__(cls, text: str, kind: str, name: str) -> Self:
        """Return the text with these attributes."""
        made = super().__new__(cls, text)
        made.kind, made.name = kind, name
        return made


class ValidationContext(msgspec.Struct, frozen=True, kw_only=True):
    """The rest of a configuration, for `Manager.validate` and `Driver.validate`. None of it is running.

    Invalid tables and services that are not enabled are omitted.

    Args:
        host: The name of the host.
        topic: The service whose options are validated, or whose driver's.
        name: The driver whose options are validated; empty for a manager.
        services: The options of the other services, by topic.
        drivers: The options of all other drivers, by topic and name; for a manager its own drivers are among them.
        sections: The options of the plugins' own sections, by name.
        extensions: Kind to name to class, of the kinds that the manager declares; empty for a driver.
    """

    host: str
    topic: str
    name: str = ""
    services: Mapping[str, OptionsModel] = {}
    drivers: Mapping[tuple[str, str], OptionsModel] = {}
    sections: Mapping[str, OptionsModel] = {}
    extensions: Mapping[str, Mapping[str, Any]] = {}

    def missing_extension(self, kind: str, name: str) -> MissingExtension:
        """Return the sentence for an option that names an extension that is not in `extensions`.

        With this sentence the daemon knows that the option is right once the plugin with the extension can be used:
        while a plugin is broken or not loaded on purpose, the service is left out instead of the daemon refusing to
        start.

            for number, name in enumerate(options.filters):
                if name not in others.extensions["scheduler.filter"]:
                    yield ("filters", number), others.missing_extension("scheduler.filter", name)

        Args:
            kind: The kind of the extension: `scheduler.filter` is called `filter` in the sentence.
            name: Its name in the option.
        """
        known = self.extensions.get(kind, {})
        near = nearest(name, known)
        advice = f'did you mean "{near}"?' if near else f"available: {', '.join(sorted(known)) or 'none'}"
        what = kind.rpartition(".")[2]
        return MissingExtension(f'no installed plugin provides the {what} "{name}"; {advice}', kind, name)
