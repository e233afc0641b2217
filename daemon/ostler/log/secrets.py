"""Keeping secrets out of the log, whoever tries to write them there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ostler.redaction import MASK

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


def mask_values(text: str, secrets: Sequence[str]) -> str:
    """Return a text in which nothing of `secrets` stands any more, whatever stands around it.

    Args:
        text: What is to be written.
        secrets: Texts that may not, in each spelling; longer ones first, or the rest of one would be left.
    """
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def mask_deep(value: object, secrets: Sequence[str]) -> object:
    """Return a value in which no text, at any depth and keys included, holds anything of `secrets`."""
    if isinstance(value, Mapping):
        return {mask_values(str(key), secrets): mask_deep(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [mask_deep(item, secrets) for item in value]
    if value is None or isinstance(value, bool):
        return value
    text = str(value)
    safe = mask_values(text, secrets)
    return value if safe == text and not isinstance(value, str) else safe


__all__ = ["MASK", "is_secret", "mask_deep", "mask_text", "mask_values", "masked"]
