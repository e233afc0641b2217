"""Arguments and results of driver methods as bytes, by what the method declares."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from msgspec import Raw
from msgspec.inspect import CustomType, type_info
from msgspec.msgpack import Decoder, Encoder, Ext
from pydantic import BaseModel, SecretStr

from ostler.driver.driver import FEATURE_ATTRIBUTE
from ostler.errors import EncodeError
from ostler.messaging.interface.wire_types import find_crashing_union, type_name
from ostler.messaging.wire.request_context import Context

_PLAIN_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_SENDABLE_TYPES = (PurePath, SecretStr, BaseModel, Context)
_MAX_DEPTH = 64
_CODEC_ERRORS = (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError)  # of msgspec and its hooks


def encode_hook(value: Any) -> Any:
    """Encode what msgspec does not know: paths and pydantic models, with their secrets."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    raise NotImplementedError(f"a value of type {type(value).__name__} cannot be sent between processes")


def _decode_hook(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, PurePath | SecretStr):
        return kind(value)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_validate(value)
    raise NotImplementedError(f"a value of type {type_name(kind)} cannot be sent between processes")


_encoder = Encoder(enc_hook=encode_hook)
CONTEXT_MARKER = _encoder.encode(Ext(1, b""))
"""Stands for the context of the call among its arguments."""


class ValueType:
    """Encodes and decodes values of a declared type; of an undeclared one only plain values, which do not change.

    Args:
        kind: The type, `Any` for an undeclared one.
        what: The subject of errors: `the argument size of create of driver local of volume`.
    """

    def __init__(self, kind: Any, what: str) -> None:
        self._kind = Any if kind is object or find_crashing_union(kind) is not None else kind
        self._what = what
        self._decoder: Decoder[Any] | None = None

    def encode(self, value: Any) -> Raw:
        """Return the value encoded.

        Raises:
            EncodeError: It is not plain and its type not declared, or cannot be encoded.
        """
        if self._kind is Any and (odd := _first_odd_part(value, _MAX_DEPTH)):
            raise EncodeError(
                f"{self._what} is or contains {odd}, and its type is not declared",
                hint="the driver runs in a process of its own: annotate its methods, or use numbers, text, bytes, "
                "lists and dictionaries",
            )
        try:
            return Raw(_encoder.encode(value))
        except _CODEC_ERRORS as error:
            raise self._error(error) from None

    def decode(self, raw: Raw) -> Any:
        """Return the value.

        Raises:
            EncodeError: It does not fit the declared type.
        """
        try:
            if self._decoder is None:
                self._decoder = Decoder(self._kind, dec_hook=_decode_hook)
            return self._decoder.decode(raw)
        except _CODEC_ERRORS as error:
            raise self._error(error) from None

    @property
    def is_sendable(self) -> bool:
        """Whether values of the declared type can be sent: it is not a class of objects that hold something, say."""
        try:
            found = type_info(self._kind)
        except (TypeError, ValueError, NameError, AttributeError, RecursionError):  # the first value says it better
            return True
        return not isinstance(found, CustomType) or issubclass(found.cls, _SENDABLE_TYPES)

    def require_sendable(self) -> None:
        """Raise an error if no value of the declared type can be sent.

        Raises:
            EncodeError: See `is_sendable`.
        """
        if not self.is_sendable:
            raise self._error(TypeError(f"a {type_name(self._kind)} is not data"))

    def _error(self, error: Exception) -> EncodeError:
        return EncodeError(
            f"{self._what} cannot be sent between processes: {error}",
            hint="the driver runs in a process of its own (`isolation`): what its methods take and return must be of "
            "the types that they declare, and of types that messages support",
        )


class MethodTypes:
    """The types of a driver's method.

    Args:
        cls: The driver's class; where it does not declare a type, the classes that it derives from are asked.
        name: The method's name.
        label: The subject of errors: `create of driver local of volume`.
    """

    def __init__(self, cls: type, name: str, label: str) -> None:
        hints: dict[str, Any] = {}
        for kind in reversed(cls.__mro__):
            if name in vars(kind):
                hints |= _declared_types(vars(kind)[name])
        self._label = label
        parameters = _parameters(inspect.getattr_static(cls, name, None))
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._by_name = {p.name: self._argument(p.name, hints.get(p.name, Any)) for p in parameters}
        self._by_position = [self._by_name[p.name] for p in parameters if p.kind in positional]
        self._rest = self._variable(parameters, inspect.Parameter.VAR_POSITIONAL)
        self._named_rest = self._variable(parameters, inspect.Parameter.VAR_KEYWORD)
        self.result = ValueType(hints.get("return", Any), f"the result of {label}")

    def _argument(self, name: str, kind: Any) -> ValueType:
        return ValueType(kind, f"the argument {name} of {self._label}")

    def _variable(self, parameters: list[inspect.Parameter], kind: Any) -> ValueType:
        return next((self._by_name[p.name] for p in parameters if p.kind is kind), self._argument("", Any))

    @property
    def is_sendable(self) -> bool:
        """Whether values of all the declared types can be sent."""
        return self.result.is_sendable and all(kind.is_sendable for kind in self._by_name.values())

    def require_sendable_result(self) -> None:
        """Refuse a method before it has any effect if no result of its type could be sent.

        Raises:
            EncodeError: The declared result is an object that is not data.
        """
        self.result.require_sendable()

    def encode(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[list[Raw], dict[str, Raw]]:
        """Return the arguments of a call, each encoded on its own.

        Raises:
            EncodeError: One of them cannot be sent; it says which.
        """
        return (
            [_encode_argument(self._at(index), value) for index, value in enumerate(arguments)],
            {name: _encode_argument(self._named(name), value) for name, value in named.items()},
        )

    def decode(
        self, arguments: list[Raw], named: dict[str, Raw], context: Context | None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call.

        Raises:
            EncodeError: One of them is not of its declared type; it says which.
        """
        return (
            [_decode_argument(self._at(index), raw, context) for index, raw in enumerate(arguments)],
            {name: _decode_argument(self._named(name), raw, context) for name, raw in named.items()},
        )

    def _at(self, index: int) -> ValueType:
        return self._by_position[index] if index < len(self._by_position) else self._rest

    def _named(self, name: str) -> ValueType:
        return self._by_name.get(name, self._named_rest)


def sendable_features(cls: type) -> frozenset[str]:
    """Return the optional features that a driver has in a process of its own: those whose methods can all be called."""
    features: frozenset[str] = getattr(cls, "features", frozenset())
    if not features:
        return features
    members = [member for kind in cls.__mro__ for member in vars(kind).items()]
    marks = {name: mark for name, value in members if (mark := getattr(value, FEATURE_ATTRIBUTE, ""))}
    return features - {mark for name, mark in marks.items() if not MethodTypes(cls, name, name).is_sendable}


def plain_attributes(values: dict[str, Any]) -> dict[str, Any]:
    """Return those that can be read from outside of the driver: public, and plain data that nobody can change."""
    return {
        name: value
        for name, value in values.items()
        if not name.startswith("_") and isinstance(value, tuple(_PLAIN_SCALARS))
    }


def _encode_argument(kind: ValueType, value: Any) -> Raw:
    return Raw(CONTEXT_MARKER) if isinstance(value, Context) else kind.encode(value)


def _decode_argument(kind: ValueType, raw: Raw, context: Context | None) -> Any:
    return context if memoryview(raw) == CONTEXT_MARKER else kind.decode(raw)


def _parameters(method: Any) -> list[inspect.Parameter]:
    function = getattr(method, "__func__", method)
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    return found if isinstance(method, staticmethod) else found[1:]


def _declared_types(method: Any) -> dict[str, Any]:
    function: Callable[..., Any] = getattr(method, "__func__", method)
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001 - a name that only a type checker sees: the others may be known
        return _known_types(function)


def _known_types(function: Any) -> dict[str, Any]:
    found = {}
    names = getattr(function, "__globals__", {})
    for name, kind in getattr(function, "__annotations__", {}).items():
        try:
            found[name] = eval(kind, names) if isinstance(kind, str) else kind  # noqa: S307 - the driver's own code
        except Exception:  # noqa: BLE001, S112 - see above
            continue
    return found


def _first_odd_part(value: Any, depth: int) -> str:
    """Return a description of what would not arrive as it was, empty if there is nothing."""
    kind = type(value)
    if kind in _PLAIN_SCALARS:
        return ""
    if kind not in (list, dict) or depth == 0:
        return f"a value of type {kind.__name__}" if depth else "too many levels"
    parts = value if kind is list else [*value.keys(), *value.values()]
    return next((odd for part in parts if (odd := _first_odd_part(part, depth - 1))), "")
