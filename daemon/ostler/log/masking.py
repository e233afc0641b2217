"""Keeps secrets out of the log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ostler.redaction import MASK, SECRETS, Value

_SECRET_WORDS = r"password|passwd|passphrase|secret|token|credential|private_?key|api_?key|authorization|cookie"  # noqa: S105 - no password
_SECRET_NAME = re.compile(_SECRET_WORDS, re.IGNORECASE)
# `password=x`, `"api_key": "x"`, `?token=x`: the name as the end of a word, then the value up to where it may end.
_SECRET_PAIR = re.compile(
    rf"""((?:{_SECRET_WORDS})s?["']?\s*(?:=|(?<=["'])\s*:)\s*)(?!{re.escape(MASK)})("[^"]*"|'[^']*'|[^\s,;&)\]}}]+)""",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Return whether a field of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def mask_field(name: str, value: object) -> object:
    """Return the value of a field as it may be written: `***` for a secret one, also deep inside dictionaries."""
    if is_secret_name(name):
        return MASK
    if isinstance(value, Mapping):
        return {str(key): mask_field(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask_field("", item) for item in value]
    return value


def mask_text(text: str) -> str:
    """Return a text with the values of pairs like `password=…` replaced."""
    if _SECRET_NAME.search(text) is None:
        return text
    return _SECRET_PAIR.sub(rf"\1{MASK}", text)


def mask_values(text: str, secrets: Sequence[Value]) -> str:
    """Return a text without these values and those of the process, in any of their spellings.

    Args:
        text: What is to be written.
        secrets: Values that must not stand in it: the secret arguments of its request.
    """
    return SECRETS.redact(text, arguments=False, extra_values=secrets)


def mask_deep(value: object, secrets: Sequence[Value]) -> object:
    """Return a value in which no text, at any depth and keys included, holds any of `secrets`, or of the process's."""
    return SECRETS.redact_deep(value, extra_values=secrets)


__all__ = ["MASK", "is_secret_name", "mask_deep", "mask_field", "mask_text", "mask_values"]
