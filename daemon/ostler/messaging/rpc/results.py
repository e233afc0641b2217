"""Results as the type that a caller asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from ostler.errors import BadEnvelope


def decode_result(result: msgspec.Raw | bytes, kind: Any, where: str) -> Any:
    """Return the result as `kind`.

    Raises:
        BadEnvelope: It is of another type.
    """
    try:
        if kind is None:
            return msgspec.msgpack.decode(result)
        return msgspec.msgpack.decode(result, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise BadEnvelope(
            f"the result of {where} is not what this client expects: {error}",
            hint="client and service may be of different versions",
            reason="result",
            method=where,
        ) from error
