"""The typed signature of an exposed method, worked out once when its service is loaded."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec
from msgspec.msgpack import Decoder

from ostler.errors import BadEnvelope, ContractError, InvalidArguments, joined
from ostler.messaging.target import did_you_mean
from ostler.types import ArgumentDescription

_MISSING = inspect.Parameter.empty
_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Argument(NamedTuple):
    """One argument: name, type, and default (`inspect.Parameter.empty` for a required one)."""

    name: str
    type: Any
    default: Any
    kind: Any

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is _MISSING


class Signature:
    """What a method takes and returns, and how arguments are decoded for it.

    Args:
        method: The bound method; its first parameter is the `Context`.
        where: `topic.method`, for messages.

    Raises:
        ContractError: Something of it cannot go over the wire.
    """

    def __init__(self, method: Callable[..., Any], where: str) -> None:
        self.where = where
        self.arguments, self.result = _read(method, where)
        fields = [_field(argument) for argument in self.arguments]
        try:
            self._struct = msgspec.defstruct(
                "Arguments", fields, forbid_unknown_fields=True, kw_only=True, module=__name__
            )
            self._decoder = Decoder(self._struct)
        except (TypeError, ValueError) as error:
            raise ContractError(f"the arguments of {where} cannot go over the wire: {error}", method=where) from error
        self._check_wire()
        self._all_positional = all(argument.kind is _POSITIONAL for argument in self.arguments)

    def decode(self, raw: msgspec.Raw | bytes, *, lenient: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments for the method.

        Args:
            raw: A msgpack map of arguments.
            lenient: Whether texts may stand for numbers, booleans and structures.

        Raises:
            InvalidArguments: They do not fit; says which, what was expected and what came.
        """
        try:
            found = self._decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            found = self._decode_slowly(raw, lenient)
        if self._all_positional:
            return msgspec.structs.astuple(found), _NONE
        return (), {argument.name: getattr(found, argument.name) for argument in self.arguments}

    def describe(self) -> list[ArgumentDescription]:
        """Return the arguments as `ostler describe` shows them."""
        return [
            ArgumentDescription(
                name=argument.name,
                type=type_name(argument.type),
                required=argument.required,
                default="" if argument.required else _as_json(argument.default),
            )
            for argument in self.arguments
        ]

    def _check_wire(self) -> None:
        for argument in self.arguments:
            if wrong := unfit(argument.type):
                raise ContractError(
                    f"argument {argument.name!r} of {self.where} cannot go over the wire: {wrong}",
                    hint="use plain types, msgspec structs, dataclasses, enums or datetimes",
                    method=self.where,
                    argument=argument.name,
                )
        if wrong := unfit(self.result):
            raise ContractError(
                f"the result of {self.where} cannot go over the wire: {wrong}",
                hint="use plain types, msgspec structs, dataclasses, enums or datetimes",
                method=self.where,
            )

    def _decode_slowly(self, raw: msgspec.Raw | bytes, lenient: bool) -> Any:
        """Find out what is wrong, argument by argument; or that it fits when texts are read as values."""
        given = self._as_map(raw)
        self._check_names(given)
        values = {}
        for argument in self.arguments:
            if argument.name in given:
                values[argument.name] = self._convert(argument, given[argument.name], lenient)
        return self._struct(**values)

    def _as_map(self, raw: msgspec.Raw | bytes) -> dict[str, Any]:
        try:
            given = msgspec.msgpack.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError):
            raise BadEnvelope(f"the arguments of {self.where} are no msgpack", reason="arguments") from None
        if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
            raise InvalidArguments(
                f"the arguments of {self.where} are no map of names to values", method=self.where, got=_kind(given)
            )
        return given

    def _check_names(self, given: Mapping[str, Any]) -> None:
        known = [argument.name for argument in self.arguments]
        unknown = [name for name in given if name not in known]
        missing = [argument.name for argument in self.arguments if argument.required and argument.name not in given]
        if unknown:
            raise InvalidArguments(
                f"{self.where} takes no argument {joined(repr(name) for name in unknown)}",
                hint=did_you_mean(unknown[0], known) or "it takes none",
                method=self.where, argument=unknown[0], expected=known, got=sorted(given),
            )  # fmt: skip
        if missing:
            raise InvalidArguments(
                f"{self.where} needs the argument {joined(repr(name) for name in missing)}",
                hint=f"it takes: {self.text()}",
                method=self.where, argument=missing[0], expected=missing, got=sorted(given),
            )  # fmt: skip

    def _convert(self, argument: Argument, value: Any, lenient: bool) -> Any:
        try:
            return msgspec.convert(value, argument.type, strict=not lenient, builtin_types=_NATIVE)
        except (msgspec.ValidationError, RecursionError) as error:
            text = str(error)
        if lenient and isinstance(value, str):
            try:
                return msgspec.json.decode(value, type=argument.type, strict=False)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                pass  # the first complaint is about what was typed
        expected, got, place = _facts_of(text, argument, value)
        raise InvalidArguments(
            f"argument {place!r} of {self.where} must be {expected}, not {got}",
            hint=f"it takes: {self.text()}",
            method=self.where, argument=argument.name, expected=expected, got=got,
        )  # fmt: skip

    def text(self) -> str:
        """Return the arguments on one line: `name: str, size: int = 10`."""
        parts = []
        for argument in self.arguments:
            default = "" if argument.required else f" = {_as_json(argument.default)}"
            parts.append(f"{argument.name}: {type_name(argument.type)}{default}")
        return ", ".join(parts) or "nothing"


_NONE: dict[str, Any] = {}
_NATIVE = (bytes, bytearray, memoryview)
_EXPECTED = re.compile(r"^Expected (?P<expected>.*?)(?:, got (?P<got>.*?))?(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)


def _facts_of(text: str, argument: Argument, value: Any) -> tuple[str, str, str]:
    """Return what was expected, what came, and where, from the sentence of msgspec."""
    match = _EXPECTED.match(text)
    if match is None:
        # An enum's or a datetime's own complaint: "Invalid enum value 'x' - at `$`".
        complaint = text.partition(" - at ")[0]
        return f"{type_name(argument.type)} ({complaint.lower()})", _shown(value, argument), argument.name
    path = match["path"] or ""
    got = match["got"] or _shown(value, argument)
    return match["expected"].replace("`", ""), got.replace("`", ""), f"{argument.name}{path}"


def _shown(value: Any, argument: Argument) -> str:
    # A text may be a password; that of an enum is one of a few words.
    harmless = isinstance(value, int | float) or (isinstance(argument.type, type) and issubclass(argument.type, Enum))
    text = repr(value)
    return text if harmless and len(text) <= 60 else f"this {_kind(value)}"


def _kind(value: Any) -> str:
    return type(value).__name__


def _read(method: Callable[..., Any], where: str) -> tuple[list[Argument], Any]:
    try:
        hints = typing.get_type_hints(method, include_extras=True)
        signature = inspect.signature(method)
    except (NameError, TypeError, ValueError) as error:
        raise ContractError(
            f"the signature of {where} cannot be read: {error}",
            hint="types of exposed methods must be importable at run time, not only under TYPE_CHECKING",
            method=where,
        ) from error
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind not in (_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
        raise ContractError(f"{where} must take `ctx: Context` as its first argument", method=where)
    return [_argument(parameter, hints, where) for parameter in parameters[1:]], hints.get("return", Any)


def _argument(parameter: inspect.Parameter, hints: Mapping[str, Any], where: str) -> Argument:
    name = parameter.name
    if parameter.kind not in (_POSITIONAL, _KEYWORD):
        raise ContractError(
            f"argument {name!r} of {where} cannot be given by name", hint="name each argument", method=where
        )
    if name not in hints:
        facts = {"method": where, "argument": name}
        raise ContractError(f"argument {name!r} of {where} has no type", hint="annotate it", **facts)
    return Argument(name, hints[name], parameter.default, parameter.kind)


def _field(argument: Argument) -> Any:
    if argument.required:
        return (argument.name, argument.type)
    default = argument.default
    return (argument.name, argument.type, msgspec.field(default_factory=lambda: default))


def unfit(kind: Any) -> str:
    """Return why a type cannot go over the wire, empty when it can."""
    if kind is None or kind is type(None):
        return ""
    try:
        found = msgspec.inspect.type_info(kind)
    except (TypeError, ValueError, NameError) as error:
        return f"{type_name(kind)}: {error}"
    return _unfit_part(found, set())


def _unfit_part(info: msgspec.inspect.Type, seen: set[Any]) -> str:
    if isinstance(info, msgspec.inspect.CustomType):
        return f"{type_name(info.cls)} is a type that messages do not know"
    inner = getattr(info, "cls", None)
    if inner is not None:
        if inner in seen:
            return ""
        seen.add(inner)
    for part in _parts(info):
        if wrong := _unfit_part(part, seen):
            return wrong
    return ""


def _parts(info: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    found: list[msgspec.inspect.Type] = []
    for name in ("type", "item_type", "key_type", "value_type"):
        part = getattr(info, name, None)
        if isinstance(part, msgspec.inspect.Type):
            found.append(part)
    for name in ("types", "item_types"):
        found.extend(getattr(info, name, ()))
    found.extend(field.type for field in getattr(info, "fields", ()))
    return found


def type_name(kind: Any) -> str:
    """Return a type as people write it: `str`, `list[Lamp]`, `float | None`."""
    if kind in _PLAIN_NAMES:
        return _PLAIN_NAMES[kind]
    origin = typing.get_origin(kind)
    if origin is None:
        return str(getattr(kind, "__name__", kind))
    return _generic_name(origin, typing.get_args(kind))


_PLAIN_NAMES: dict[Any, str] = {None: "None", type(None): "None", Any: "any"}


def _generic_name(origin: Any, arguments: tuple[Any, ...]) -> str:
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return " | ".join(repr(value) for value in arguments)
    if getattr(origin, "__name__", "") in ("Union", "UnionType"):
        return " | ".join(type_name(part) for part in arguments)
    inner = ", ".join("..." if part is Ellipsis else type_name(part) for part in arguments)
    return f"{getattr(origin, '__name__', str(origin))}[{inner}]"


def _as_json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        return repr(value)
