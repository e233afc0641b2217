"""The typed signature of an exposed method, worked out once when its service is loaded."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from copy import deepcopy
from enum import Enum
from types import MethodType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec
from msgspec.msgpack import Decoder

from ostler.bounds import safe_repr
from ostler.errors import ContractError, InvalidArguments, MalformedMessage, join_words
from ostler.messaging.interface.wire_types import type_name, unencodable_reason
from ostler.redaction import Value
from ostler.spelling import suggest
from ostler.types import option_hint

_MISSING = inspect.Parameter.empty
_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_MAX_LISTED = 10
_MAX_SHOWN_LENGTH = 60
"""So many names, and so many characters of a text that a caller sent, are repeated in an error."""


class Argument(msgspec.Struct, frozen=True):
    """One argument: name, type, and default (`inspect.Parameter.empty` for a required one)."""

    name: str
    type: Any
    default: Any
    kind: Any

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is _MISSING


class MethodSignature:
    """What a method takes and returns, and how arguments are decoded for it.

    Args:
        method: The bound method; its first parameter is the `Context`.
        full_name: `topic.method`, for messages.
        secrets: Names of arguments whose values are never shown; those with a `SecretText` in their type come by
            themselves.
        trusted: Leave out what the tests of a manager of our own have looked at already.

    `result` is the type of the result; of a method that yields (`is_streaming`) that of an item.

    Raises:
        ContractError: Something of it cannot be encoded, or cannot be given by name.
    """

    def __init__(
        self, method: Callable[..., Any], where: str, secrets: Collection[str] = (), *, trusted: bool = False
    ) -> None:
        self.full_name = where
        self.is_streaming = inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method)
        if trusted:
            self._deferred = method, tuple(secrets)
        else:
            self._build(method, secrets)
            self._check_defaults()

    arguments: list[Argument]
    result: Any
    secrets: frozenset[str]
    _struct: Any
    _decoder: Decoder[Any]
    _all_positional: bool

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Work out a trusted signature with its first use: of the daemon's own methods a start uses hardly any."""
            later = self.__dict__.get("_deferred")
            if later is None or name.startswith("__"):
                raise AttributeError(name)
            # Two threads may do this at once: they come to the same, and what is missing here comes last.
            self._build(*later, trusted=True)
            return self.__dict__[name]

    def _build(self, method: Callable[..., Any], secrets: Collection[str], *, trusted: bool = False) -> None:
        where = self.full_name
        self.arguments, self.result = _read_arguments(method, where)
        if self.is_streaming:
            self.result = _stream_item_type(self.result, where)
        if not trusted:
            self._check_wire_types()  # before msgspec makes anything of it
        self.secrets = _secret_names(self.arguments, secrets, where)
        fields = [_make_field(argument) for argument in self.arguments]
        try:
            self._struct = msgspec.defstruct(
                "Arguments", fields, forbid_unknown_fields=True, kw_only=True, module=__name__
            )
            self._decoder = Decoder(self._struct)
        except (TypeError, ValueError) as error:
            raise ContractError(f"the arguments of {where} cannot be encoded: {error}", method=where) from error
        self._all_positional = all(argument.kind is _POSITIONAL for argument in self.arguments)

    @classmethod
    def checked(cls, method: MethodType, where: str, secrets: Collection[str] = ()) -> MethodSignature:
        """Return the signature of a method, everything checked; worked out once for each function and place.

        A start needs it twice: when the configuration is validated, and when the service is built.

        Raises:
            ContractError: See the class.
        """
        try:
            known = _SIGNATURE_CACHE.setdefault(method.__func__, {})
        except TypeError:  # a callable of another kind, that cannot be referred to weakly
            return cls(method, where, secrets)
        key = where, frozenset(secrets)
        if key not in known:
            known[key] = cls(method, where, secrets)
        return known[key]

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
            return msgspec.structs.astuple(found), _NO_ARGUMENTS
        return (), {argument.name: getattr(found, argument.name) for argument in self.arguments}

    def extract_secrets(self, values: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Value, ...]:
        """Return the secret values among arguments as `decode` returns them; see `messaging.access.secret_arguments`.

        Raises:
            InvalidArguments: One is nested too deeply to be looked through.
        """
        # Up to 7 ms: few methods have secret arguments.
        from ostler.messaging.access.secret_arguments import collect_all, has_secret, make_finder, searchable_values

        found: list[Any] = []
        given = named or dict(zip((argument.name for argument in self.arguments), values, strict=True))
        for argument in self.arguments:
            if argument.name in self.secrets:
                find = make_finder(argument.type) if has_secret(argument.type) else collect_all
                try:
                    find(given[argument.name], found)
                except RecursionError:  # since Python 3.12 one may be decoded that Python itself cannot follow
                    text = f"argument {argument.name!r} of {self.full_name} is nested too deeply"
                    raise InvalidArguments(text, method=self.full_name, argument=argument.name) from None
        return searchable_values(found)

    def schema(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the JSON Schemas of the arguments and of the result (of an item, when it streams)."""
        arguments, result = _json_schema(self._struct), _json_schema(self.result)
        arguments["title"] = self.full_name
        return arguments, result

    def _check_wire_types(self) -> None:
        for argument in self.arguments:
            if wrong := unencodable_reason(argument.type):
                raise ContractError(
                    f"argument {argument.name!r} of {self.full_name} cannot be encoded: {wrong}",
                    hint="use plain types, msgspec structs, dataclasses, enums or datetimes",
                    method=self.full_name,
                    argument=argument.name,
                )
        if wrong := unencodable_reason(self.result):
            raise ContractError(
                f"the result of {self.full_name} cannot be encoded: {wrong}",
                hint="use plain types, msgspec structs, dataclasses, enums or datetimes",
                method=self.full_name,
            )

    def _check_defaults(self) -> None:
        for argument in self.arguments:
            default = argument.default
            if argument.is_required or (default is None and argument.type is None) or default is msgspec.UNSET:
                continue
            advice = f"annotate it as `{type_name(argument.type)} | None`" if default is None else "fix one of them"
            try:
                msgspec.msgpack.decode(msgspec.msgpack.encode(default), type=argument.type)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise ContractError(
                    f"the default of argument {argument.name!r} of {self.full_name} does not fit its type "
                    f"{type_name(argument.type)}: {error}",
                    hint=advice,
                    method=self.full_name,
                    argument=argument.name,
                ) from error

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
            raise MalformedMessage(
                f"the arguments of {self.full_name} are not valid msgpack", reason="arguments"
            ) from None
        if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
            raise InvalidArguments(
                f"the arguments of {self.full_name} are not a map of names to values",
                method=self.full_name,
                got=_value_kind(given),
            )
        return given

    def _check_names(self, given: Mapping[str, Any]) -> None:
        known = [argument.name for argument in self.arguments]
        unknown = [name for name in given if name not in known]
        missing = [argument.name for argument in self.arguments if argument.is_required and argument.name not in given]
        if unknown:
            raise InvalidArguments(
                f"{self.full_name} takes no argument {_list_names(unknown)}",
                hint=option_hint(unknown) or suggest(_shorten_name(unknown[0]), known) or "it takes none",
                method=self.full_name, argument=_shorten_name(unknown[0]), expected=known, got=_first_names(given),
            )  # fmt: skip
        if missing:
            raise InvalidArguments(
                f"{self.full_name} needs the argument {join_words(repr(name) for name in missing)}",
                hint=f"it takes: {self.to_text()}",
                method=self.full_name, argument=missing[0], expected=missing, got=_first_names(given),
            )  # fmt: skip

    def _convert(self, argument: Argument, value: Any, lenient: bool) -> Any:
        try:
            found = msgspec.convert(value, argument.type, strict=not lenient, builtin_types=_NATIVE)
            return self._check_size(argument, found) if lenient else found
        except (msgspec.ValidationError, RecursionError) as error:
            text = str(error)
        if lenient and isinstance(value, str):
            try:
                return self._check_size(argument, msgspec.json.decode(value, type=argument.type, strict=False))
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                pass  # the first complaint is about what was typed
        expected, got, place = _parse_msgspec_error(text, argument, value, secret=argument.name in self.secrets)
        raise InvalidArguments(
            f"argument {place!r} of {self.full_name} must be {expected}, not {got}",
            hint=f"it takes: {self.to_text()}",
            method=self.full_name, argument=argument.name, expected=expected, got=got,
        )  # fmt: skip

    def _check_size(self, argument: Argument, value: Any) -> Any:
        """Return a value that was read from text: texts can say whole numbers that no message carries."""
        try:
            msgspec.msgpack.encode(value)
        except OverflowError:
            raise InvalidArguments(
                f"argument {argument.name!r} of {self.full_name} has a whole number of more than 64 bits",
                hint=f"it takes: {self.to_text()}",
                method=self.full_name, argument=argument.name,
            ) from None  # fmt: skip
        except (TypeError, ValueError, RecursionError):
            pass  # of a type that only comes in
        return value

    def to_text(self) -> str:
        """Return the arguments on one line: `name: str, size: int = 10`."""
        parts = []
        for argument in self.arguments:
            shown = '"***"' if argument.name in self.secrets and argument.default else as_json(argument.default)
            default = "" if argument.is_required else f" = {shown}"
            parts.append(f"{argument.name}: {type_name(argument.type)}{default}")
        return ", ".join(parts) or "nothing"


_SIGNATURE_CACHE: WeakKeyDictionary[Callable[..., Any], dict[tuple[str, frozenset[str]], MethodSignature]] = (
    WeakKeyDictionary()
)
_NO_ARGUMENTS: dict[str, Any] = {}
_NATIVE = (bytes, bytearray, memoryview)
_MSGSPEC_ERROR = re.compile(
    r"^Expected (?P<expected>.*?)(?:, got (?P<got>.*?))?(?: - at `\$(?P<path>.*)`)?$", re.DOTALL
)


def _parse_msgspec_error(text: str, argument: Argument, value: Any, *, secret: bool) -> tuple[str, str, str]:
    """Return what was expected, what came, and where, from the sentence of msgspec."""
    match = _MSGSPEC_ERROR.match(text)
    if match is None:
        # An enum's or a datetime's own complaint: "Invalid enum value 'x' - at `$`". It repeats what came, perhaps a
        # secret or a megabyte of it.
        complaint, _, place = text.partition(" - at `$")
        kind = complaint.partition(" '")[0].partition(" value ")[0].lower()
        where = f"{argument.name}{place.removesuffix('`')}"
        return f"{type_name(argument.type)} ({kind})", _show_value(value, argument, secret), where
    path = match["path"] or ""
    got = match["got"] or _show_value(value, argument, secret)
    return match["expected"].replace("`", ""), got.replace("`", ""), f"{argument.name}{path}"


def _show_value(value: Any, argument: Argument, secret: bool) -> str:
    # A text may be a password; that of an enum is one of a few words.
    harmless = isinstance(value, int | float) or (isinstance(argument.type, type) and issubclass(argument.type, Enum))
    text = repr(value) if harmless and not secret and not _is_long(value) else ""
    return text if text and len(text) <= _MAX_SHOWN_LENGTH else f"this {_value_kind(value)}"


def _is_long(value: Any) -> bool:
    return isinstance(value, str | bytes | list | dict) and len(value) > _MAX_SHOWN_LENGTH


def _shorten_name(name: str) -> str:
    return name if len(name) <= _MAX_SHOWN_LENGTH else f"{name[:_MAX_SHOWN_LENGTH]}…"


def _list_names(names: list[str]) -> str:
    shown = [repr(_shorten_name(name)) for name in names[:_MAX_LISTED]]
    return join_words([*shown, f"{len(names) - _MAX_LISTED} more"] if len(names) > _MAX_LISTED else shown)


def _first_names(given: Mapping[str, Any]) -> list[str]:
    return [_shorten_name(name) for name in sorted(given)[:_MAX_LISTED]]


def _value_kind(value: Any) -> str:
    return type(value).__name__


def _read_arguments(method: Callable[..., Any], where: str) -> tuple[list[Argument], Any]:
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
    return [_make_argument(parameter, hints, where) for parameter in parameters[1:]], hints.get("return", Any)


def _make_argument(parameter: inspect.Parameter, hints: Mapping[str, Any], where: str) -> Argument:
    name = parameter.name
    if parameter.kind not in (_POSITIONAL, _KEYWORD):
        raise ContractError(
            f"argument {name!r} of {where} cannot be given by name", hint="name each argument", method=where
        )
    if name not in hints:
        facts = {"method": where, "argument": name}
        raise ContractError(f"argument {name!r} of {where} has no type annotation", hint="annotate it", **facts)
    return Argument(name, hints[name], parameter.default, parameter.kind)


def _secret_names(arguments: list[Argument], declared: Collection[str], where: str) -> frozenset[str]:
    names = [argument.name for argument in arguments]
    for name in declared:
        if name not in names:
            raise ContractError(
                f"{where} marks the argument {name!r} as secret, but has no such argument",
                hint=suggest(name, names) or "remove it from `secret` of `@exposed`",
                method=where,
                argument=name,
            )
    asked = [argument for argument in arguments if argument.type not in _SAFE_TYPES]
    if not asked:
        return frozenset(declared)
    from ostler.messaging.access.secret_arguments import has_secret  # up to 7 ms: most arguments are plain

    return frozenset({*declared, *(argument.name for argument in asked if has_secret(argument.type))})


_SAFE_TYPES: tuple[Any, ...] = (str, int, float, bool, bytes, list[str], int | str, str | None)
"""What most arguments are: there is no need to look into it."""


def _make_field(argument: Argument) -> Any:
    if argument.is_required:
        return (argument.name, argument.type)
    default = argument.default
    if _is_mutable(default):
        # Each call has its own: a method may append to what it was given.
        return (argument.name, argument.type, msgspec.field(default_factory=lambda: deepcopy(default)))
    return (argument.name, argument.type, default)


def _is_mutable(value: Any) -> bool:
    return type(value).__hash__ is None or not _is_frozen(value)


def _is_frozen(value: Any) -> bool:
    if isinstance(value, msgspec.Struct):
        return bool(value.__struct_config__.frozen)
    settings = getattr(value, "__dataclass_params__", None)
    return settings is None or bool(settings.frozen)


_STREAM_TYPES = (AsyncGenerator, AsyncIterator, AsyncIterable, Generator, Iterator, Iterable)


def _stream_item_type(kind: Any, where: str) -> Any:
    """Return the type of the items of a stream, from the annotation of the method that yields them."""
    if kind is Any:
        return Any
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) not in _STREAM_TYPES or not arguments:
        raise ContractError(
            f"{where} yields, but its annotation does not say what",
            hint="annotate it as `Iterator[Item]`, or `AsyncIterator[Item]` for an `async def`",
            method=where,
        )
    return arguments[0]


def _json_schema(kind: Any) -> dict[str, Any]:
    try:
        return msgspec.json.schema(kind)
    except (TypeError, ValueError, RecursionError) as error:  # what fits messages and not JSON: keys of a map, bytes
        return {"description": f"{type_name(kind)} has no JSON Schema: {error}"}


def as_json(value: Any) -> str:
    """Return a default as JSON text, or as Python writes it."""
    try:
        return msgspec.json.encode(value).decode()
    except Exception:  # noqa: BLE001 - a default of a plugin's class, which may raise whatever is asked of it
        return safe_repr(value)
