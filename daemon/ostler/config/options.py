"""How options are declared: once, with type, default, unit, help and what a change of them needs.

    class LampOptions(ManagerOptions):
        poll: Seconds = Field(30, gt=0, help="How often the lamps are asked for their state")

That one declaration feeds validation, the shipped file, the reference page, the JSON Schema and the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from ostler.config.units import SECONDS_MAX, SIZE_MAX, parse_seconds, parse_size
from ostler.errors import InvalidInput

Reload: TypeAlias = Literal["live", "driver", "service", "daemon"]
"""What a change of an option needs: nothing, a new driver, a new service, or a new daemon."""

_FACTS = "x-ostler"
COUNT_MAX = 2**31 - 1
"""The most of anything that is counted: what libraries below take, and more than any machine holds."""


class OptionsModel(pydantic.BaseModel):
    """The base of every table of options: frozen, and unknown keys are errors.

    It is built when it is first used, so that the models of a plugin cost nothing until a configuration names them.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        defer_build=True,
        protected_namespaces=(),
    )

    def cross_check(self) -> Iterable[tuple[str, str]]:
        """Return what is wrong between options that are right one by one: (name of the option, sentence).

        For a subclass to override; those of the classes above it are asked as well, so that none has to call them. The
        sentence follows the option's path in the message, and is shown with its place.
        """
        return ()


class Expects(msgspec.Struct, frozen=True):
    """What a value must be, in words; for the items of a list: `list[Annotated[str, Expects("a colour")]]`."""

    words: str


class OptionFacts(msgspec.Struct, frozen=True):
    """What `Field` said of an option beside its type and default."""

    unit: str
    reload: Reload
    secret: bool
    shown: str
    expects: str


def Field(  # noqa: N802  (it stands where pydantic's stands)
    default: Any = ...,
    *,
    help: str,  # noqa: A002  (the word for it everywhere in the command)
    unit: str = "",
    reload: Reload = "live",
    secret: bool = False,
    shown: str = "",
    expects: str = "",
    **constraints: Any,
) -> Any:
    """Declare an option.

    Args:
        default: The default; without one the option is required. What depends on the machine or the environment is
            given as `default_factory=...` instead, and is asked for when a configuration is read.
        help: What it does, one or two sentences without a final full stop.
        unit: The unit of the value, when neither the type nor the name says it.
        reload: What a change of it needs.
        secret: Whether its value is masked wherever it is shown; the type `Secret` is masked by itself.
        shown: The default in words, for one that is computed.
        expects: What a value must be, in words, where type and constraints do not say it plainly ("a host name").
        constraints: `ge`, `gt`, `le`, `lt`, `pattern`, `min_length` and the like, as pydantic knows them.
    """
    facts: dict[str, Any] = {"unit": unit, "reload": reload, "secret": secret, "shown": shown, "expects": expects}
    if "default_factory" not in constraints:
        constraints["default"] = default
        # So that a default may be written as in a file: "10GiB", "/srv".
        constraints.setdefault("validate_default", type(default) in (str, int, float))
    return pydantic.Field(description=help, json_schema_extra={_FACTS: facts}, **constraints)


def facts_of(field: FieldInfo) -> OptionFacts:
    """Return what `Field` said of an option; for a plain pydantic field the cautious answer."""
    extra = field.json_schema_extra
    known: Any = extra.get(_FACTS) if isinstance(extra, dict) else None
    if not isinstance(known, dict):
        return OptionFacts("", "daemon", False, "", "")
    return OptionFacts(**known)


def _written(parse: Callable[[str], float], value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except InvalidInput as error:
        raise PydanticCustomError("ostler_unit", "{text}", {"text": str(error)}) from None


def read_seconds(value: object) -> object:
    """Return seconds for a text such as `5min`, anything else as it is; the mark of `Seconds` among annotations."""
    return _written(parse_seconds, value)


def read_size(value: object) -> object:
    """Return bytes for a text such as `10GiB`, anything else as it is; the mark of `Size` among annotations."""
    return _written(parse_size, value)


Seconds = Annotated[
    float,
    pydantic.BeforeValidator(read_seconds, json_schema_input_type=float | str),
    pydantic.Field(le=SECONDS_MAX),
]
"""A time span in seconds; written `30`, `"30s"`, `"5min"`, `"2h"`."""

Size = Annotated[
    int,
    pydantic.BeforeValidator(read_size, json_schema_input_type=int | str),
    pydantic.Field(ge=0, le=SIZE_MAX),
]
"""A number of bytes; written `10737418240`, `"10GiB"`, `"500MB"`."""

Secret = pydantic.SecretStr
"""Text that is never printed; written `{credential = "name"}` or `{file = "/path"}`."""


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
