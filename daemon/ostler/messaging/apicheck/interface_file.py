"""What a manager offers over RPC as plain data: written to a file with each release, and compared with the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ostler.errors import InvalidInput
from ostler.files import read_bounded
from ostler.messaging.apicheck.type_schema import TypeSchema
from ostler.messaging.interface.introspection import ExposedMethod, list_exposed

FORMAT_VERSION = 1
"""The version of these files."""
_MAX_FILE_SIZE = 16 * 1024 * 1024
"""Bytes of one of these files."""


def build_interface(name: str, manager: type) -> dict[str, Any]:
    """Return the RPC interface of a manager class. Nothing of the class is run.

    Args:
        name: The name under which the manager is registered.
        manager: The class.

    Raises:
        ContractError: Something of it cannot be offered.
    """
    shapes = TypeSchema()
    spaces: dict[str, Any] = {"": _empty_namespace(manager)}
    for namespace, cls in getattr(manager, "namespaces", {}).items():
        spaces[namespace] = _empty_namespace(cls)
    for offer in list_exposed(name, manager):
        spaces[offer.namespace]["methods"][offer.name.rpartition(".")[2]] = _method_entry(offer, shapes)
    return {"format": FORMAT_VERSION, "manager": name, "namespaces": spaces, "types": shapes.types}


def format_interface(interface: dict[str, Any]) -> str:
    """Return an interface as it is kept: JSON with sorted keys, so that a change is a change of few lines."""
    packed = msgspec.json.encode(interface, order="sorted")
    return msgspec.json.format(packed, indent=2).decode() + "\n"


def read_interface(file: Path) -> dict[str, Any]:
    """Return the interface that a file holds.

    Raises:
        InvalidInput: It cannot be read, or is no such file.
    """
    try:
        found = msgspec.json.decode(read_bounded(file, _MAX_FILE_SIZE), type=dict[str, Any])
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be read: {error.strerror}", hint="write it with `ostler plugin api NAME --output FILE`"
        ) from None
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{file} is not a valid manager interface: {error}") from None
    if found.get("format") != FORMAT_VERSION or "namespaces" not in found:
        raise InvalidInput(
            f"{file} is not a manager interface, or has another version", hint="write it again with `ostler plugin api`"
        )
    return found


def _as_file_value(value: Any) -> Any:
    """Return a default as it will be read from the file."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError):  # what messages know and JSON does not
        return repr(value)


def _empty_namespace(cls: type) -> dict[str, Any]:
    return {"rpc_version": str(getattr(cls, "rpc_version", "1.0")), "methods": {}}


def _method_entry(offer: ExposedMethod, shapes: TypeSchema) -> dict[str, Any]:
    signature, arguments = offer.signature, {}
    for argument in signature.arguments:
        found: dict[str, Any] = {"type": shapes.schema_of(argument.type), "required": argument.is_required}
        if argument.name in signature.secrets:
            found["secret"] = True
        elif not argument.is_required and argument.default is not msgspec.UNSET:
            found["default"] = _as_file_value(argument.default)
        arguments[argument.name] = found
    return {
        "version": offer.exposure.version,
        "role": str(offer.exposure.role),
        "changes": offer.exposure.changes,
        "streams": signature.is_streaming,
        "arguments": arguments,
        "result": shapes.schema_of(signature.result),
    }
