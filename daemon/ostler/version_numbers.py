"""Versions of interfaces, `major.minor`: the one place that reads and compares them."""

from __future__ import annotations

import re

_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")


def parse_version(text: object) -> tuple[int, int] | None:
    """Return a version as numbers that can be compared, None for what is no version. Any thread."""
    match = _VERSION.fullmatch(text) if isinstance(text, str) else None
    return (int(match[1]), int(match[2])) if match is not None else None


def is_compatible(offered: str, asked: str) -> bool:
    """Return whether what offers one version can answer who asks for another. Any thread.

    Args:
        offered: The version that is there.
        asked: The version that is wanted; empty for any.
    """
    if not asked or asked == offered:
        return True
    have, want = parse_version(offered), parse_version(asked)
    return have is not None and want is not None and have[0] == want[0] and want[1] <= have[1]
