"""Texts about topics, and which version of a topic is spoken."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known word, or all of them when none is near and there are few."""
    from difflib import get_close_matches

    words = sorted(known)
    near = get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not words:
        return ""
    return f"there is: {', '.join(words)}" if len(words) <= 20 else ""


def speaks(offered: str, asked: str) -> bool:
    """Return whether a service of version `offered` (`major.minor`) can answer one who speaks `asked`."""
    if not asked or asked == offered:
        return True
    try:
        have_major, have_minor = (int(part) for part in offered.split("."))
        want_major, want_minor = (int(part) for part in asked.split("."))
    except ValueError:
        return False
    return have_major == want_major and want_minor <= have_minor
