"""What a manager offers over RPC as plain data: written to a file with each release, and compared with the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ostler.errors import InvalidInput
from ostler.files import read_bounded
from ostler.messaging.rpc.shapes import Shapes
from ostler.messaging.rpc.surface import Offer, survey

FORMAT = 1
"""The version of these files."""
_LARGEST = 16 * 1024 * 1024
"""Bytes of one of these files."""


def interface_of(name: str, manager: type) -> dict[str, Any]:
    """Return the RPC interface of a manager class. Nothing of the class is run.

    Args:
        name: The name under which the manager is registered.
        manager: The class.

    Raises:
        ContractError: Something of it cannot be offered.
    """
    shapes = Shapes()
    spaces: dict[str, Any] = {"": _space(manager)}
    for namespace, cls in getattr(manager, "namespaces", {}).items():
        spaces[namespace] = _space(cls)
    for offer in survey(name, manager):
        spaces[offer.namespace]["methods"][offer.name.rpartition(".")[2]] = _method(offer, shapes)
    return {"format": FORMAT, "manager": name, "namespaces": spaces, "types": shapes.types}


def as_text(interface: dict[str, Any]) -> str:
    """Return an interface as it is kept: JSON with sorted keys, so that a change is a change of few lines."""
    packed = msgspec.json.encode(interface, order="sorted")
    return msgspec.json.format(packed, indent=2).decode() + "\n"


def read_interface(file: Path) -> dict[str, Any]:
    """Return the interface that a file holds.

    Raises:
        InvalidInput: It cannot be read, or is no such file.
    """
    try:
        found = msgspec.json.decode(read_bounded(file, _LARGEST), type=dict[str, Any])
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be read: {error.strerror}", hint="write it with `ostler plugin api NAME --output FILE`"
        ) from None
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{file} is no interface of a manager: {error}") from None
    if found.get("format") != FORMAT or "namespaces" not in found:
        raise InvalidInput(
            f"{file} is no interface of a manager, or of another version", hint="write it anew with `ostler plugin api`"
        )
    return found


def _plain(value: Any) -> Any:
    """Return a default as it will be read from the file."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError):  # what messages know and JSON does not
        return repr(value)


def _space(cls: type) -> dict[str, Any]:
    return {"rpc_version": str(getattr(cls, "rpc_version", "1.0")), "methods": {}}


def _method(offer: Offer, shapes: Shapes) -> dict[str, Any]:
    signature, arguments = offer.signature, {}
    for argument in signature.arguments:
        found: dict[str, Any] = {"type": shapes.of(argument.type), "required": argument.required}
        if argument.name in signature.secrets:
            found["secret"] = True
        elif not argument.required and argument.default is not msgspec.UNSET:
            found["default"] = _plain(argument.default)
        arguments[argument.name] = found
    return {
        "version": offer.exposure.version,
        "role": str(offer.exposure.role),
        "changes": offer.exposure.changes,
        "streams": signature.streams,
        "arguments": arguments,
        "result": shapes.of(signature.result),
    }
