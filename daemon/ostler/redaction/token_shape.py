"""Tokens of Ostler are known by their shape: they are stored nowhere, so that no list of values could have them."""

from __future__ import annotations

import re

from ostler.redaction.escapes import Span

TOKEN_MARK = "ostk_"  # noqa: S105 - what each begins with, so that scanners of code and logs find them as well
TOKEN_LENGTH = len(TOKEN_MARK) + 43
"""Characters of a token: the mark, and 256 bits as base64url."""
_find = re.compile(rf"{TOKEN_MARK}[A-Za-z0-9_-]{{43}}").finditer


def find_tokens(text: str) -> list[Span]:
    """Return where tokens stand in a text. Any thread."""
    return [match.span() for match in _find(text)] if TOKEN_MARK in text else []
