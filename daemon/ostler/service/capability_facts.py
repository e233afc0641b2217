"""What managers and drivers say of their backends, brought to plain values: one odd value hides one backend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ostler.bounds import NAME_LIMIT, cut, shown
from ostler.errors import EncodeFailed, describe
from ostler.messaging.envelope import encode_value
from ostler.redaction import SECRETS
from ostler.types import Json

FACTS_LIMIT = 64 * 1024
"""Characters of the facts of one backend, as JSON."""


def plain_facts(backend: Any, facts: Any) -> dict[str, Json]:
    """Return facts as plain values that can be kept and sent, without secrets.

    Raises:
        EncodeFailed: They cannot, and why; the sentence names the backend.
    """
    name = cut(backend, 80) if isinstance(backend, str) else shown(backend, 80)
    what = f"the capabilities of backend {name}"
    if not isinstance(facts, Mapping):
        raise EncodeFailed(f"{what} are no table of facts: {shown(facts, 80)}", backend=name)
    if not isinstance(backend, str) or not 0 < len(backend) <= NAME_LIMIT:
        raise EncodeFailed(f"{what}: its name has to be text of 1 to {NAME_LIMIT} characters")
    try:
        plain = SECRETS.redact_deep(dict(facts))
        _check_keys(plain)
        text = json.dumps(plain, allow_nan=False)
        found: dict[str, Json] = json.loads(text)
        encode_value(found, what)  # what JSON can say and messages cannot: numbers above 64 bits, half a character
    except EncodeFailed:
        raise
    except Exception as error:  # the values are a plugin's, and so are their methods
        raise EncodeFailed(
            f"{what} are not plain JSON: {describe(error)}",
            hint="use finite numbers, text, lists and dictionaries with text as keys",
            backend=name,
        ) from error
    if len(text) > FACTS_LIMIT:
        raise EncodeFailed(f"{what} have {len(text)} characters, the limit is {FACTS_LIMIT}", backend=name)
    return found


def _check_keys(value: Any) -> None:
    """Refuse keys that are no text: JSON would make text of them without a word."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key is {key!r} and not text")
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner)
