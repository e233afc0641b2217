"""Where a message goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ostler.types import CALL_OPTIONS


class Target(NamedTuple):
    """A service, or all on a topic: topic, host (empty for the one here), fanout, RPC version spoken."""

    topic: str
    host: str = ""
    fanout: bool = False
    version: str = ""

    def __str__(self) -> str:
        where = f"{self.topic} on {self.host}" if self.host else self.topic
        return f"all of {where}" if self.fanout else where


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


def option_hint(names: Iterable[str]) -> str:
    """Return a hint for who gave options of a call as arguments of the method; empty when there is none among them."""
    found = [name for name in names if name in CALL_OPTIONS]
    if not found:
        return ""
    typed = [f"--{name}" for name in found if name in ("host", "timeout")]
    also = f", on a command line with {' and '.join(typed)}" if typed else ""
    return f"options of a call are set with client.on({', '.join(f'{name}=…' for name in found)}){also}"


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
