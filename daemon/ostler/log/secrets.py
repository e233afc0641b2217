"""Keeping secrets out of the log, whoever tries to write them there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ostler.redaction import MASK, SECRETS, Value

_WORDS = r"password|passwd|passphrase|secret|token|credential|private_?key|api_?key|authorization|cookie"
_NAME = re.compile(_WORDS, re.IGNORECASE)
# `password=x`, `"api_key": "x"`, `?token=x`: the name as the end of a word, then the value up to where it may end.
_PAIR = re.compile(
    rf"""((?:{_WORDS})s?["']?\s*(?:=|(?<=["'])\s*:)\s*)(?!{re.escape(MASK)})("[^"]*"|'[^']*'|[^\s,;&)\]}}]+)""",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Return whether a field of this name holds a secret."""
    return _NAME.search(name) is not None


def masked(name: str, value: object) -> object:
    """Return the value of a field as it may be written: `***` for a secret one, also deep inside dictionaries."""
    if is_secret(name):
        return MASK
    if isinstance(value, Mapping):
        return {str(key): masked(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked("", item) for item in value]
    return value


def mask_text(text: str) -> str:
    """Return a text with the values of pairs like `password=…` replaced."""
    if _NAME.search(text) is None:
        return text
    return _PAIR.sub(rf"\1{MASK}", text)


def mask_values(text: str, secrets: Sequence[Value]) -> str:
    """Return a text without these values and those of the process, in any of their spellings.

    Args:
        text: What is to be written.
        secrets: Values that must not stand in it: the secret arguments of its request.
    """
    return SECRETS.redact(text, arguments=False, also=secrets)


def mask_deep(value: object, secrets: Sequence[Value]) -> object:
    """Return a value in which no text, at any depth and keys included, holds any of `secrets`, or of the process's."""
    return SECRETS.redact_deep(value, also=secrets)


__all__ = ["MASK", "is_secret", "mask_deep", "mask_text", "mask_values", "masked"]
