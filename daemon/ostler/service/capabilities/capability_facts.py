"""Converts what managers and drivers report of their backends to plain values; an invalid value hides one backend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ostler.bounds import NAME_LIMIT, safe_repr, truncate
from ostler.errors import EncodeError, error_line
from ostler.messaging.wire.envelope import encode_value
from ostler.redaction import SECRETS
from ostler.types import Json

MAX_BACKEND_FACTS_SIZE = 64 * 1024
"""Characters of the facts of one backend, as JSON."""


def to_plain_facts(backend: Any, facts: Any) -> dict[str, Json]:
    """Return facts as plain values that can be stored and sent, without secrets.

    Raises:
        EncodeError: They are not valid; the message names the backend.
    """
    name = truncate(backend, 80) if isinstance(backend, str) else safe_repr(backend, 80)
    what = f"the capabilities of backend {name}"
    if not isinstance(facts, Mapping):
        raise EncodeError(f"{what} are not a valid table of facts: {safe_repr(facts, 80)}", backend=name)
    if not isinstance(backend, str) or not 0 < len(backend) <= NAME_LIMIT:
        raise EncodeError(f"{what}: its name must be a string of 1 to {NAME_LIMIT} characters")
    try:
        plain = SECRETS.redact_deep(dict(facts))
        _check_key_types(plain)
        text = json.dumps(plain, allow_nan=False)
        found: dict[str, Json] = json.loads(text)
        encode_value(found, what)  # valid in JSON but not in messages: numbers above 64 bits, lone surrogates
    except EncodeError:
        raise
    except Exception as error:  # the values are a plugin's, and so are their methods
        raise EncodeError(
            f"{what} are not plain JSON: {error_line(error)}",
            hint="use finite numbers, strings, lists, and dictionaries with string keys",
            backend=name,
        ) from error
    if len(text) > MAX_BACKEND_FACTS_SIZE:
        raise EncodeError(f"{what} have {len(text)} characters, the limit is {MAX_BACKEND_FACTS_SIZE}", backend=name)
    return found


def _check_key_types(value: Any) -> None:
    """Refuse keys that are not strings: JSON would convert them silently."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is not a string")
            _check_key_types(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_key_types(inner)
