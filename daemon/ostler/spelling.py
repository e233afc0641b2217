"""Suggests known words for one that is not known."""

from __future__ import annotations

from collections.abc import Iterable

_MIN_SIMILARITY = 0.6
"""How alike two words are at least, of 1."""
_MAX_LISTED_WORDS = 20
"""So many known words are listed where none is near."""


def nearest(word: str, known: Iterable[str], similarity: float = _MIN_SIMILARITY) -> str:
    """Return the known word that is most like `word`, whatever its case; empty when none is near. Any thread.

    Args:
        word: The word that is not known.
        known: Those that are.
        similarity: How alike the two are at least, of 1.
    """
    from difflib import get_close_matches  # only needed when something is wrong

    words = sorted(known)
    for each in (word, word.lower()):
        if near := get_close_matches(each, words, n=1, cutoff=similarity):
            return near[0]
    return ""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known word, or all of them when none is near and there are few."""
    words = sorted(known)
    if near := nearest(word, words):
        return f"did you mean {near!r}?"
    return f"available: {', '.join(words)}" if words and len(words) <= _MAX_LISTED_WORDS else ""
