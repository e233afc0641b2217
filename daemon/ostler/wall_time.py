"""Wall times: their type in structs, and their one notation for people and for programs."""

from __future__ import annotations

import time
from typing import Annotated, TypeAlias

import msgspec

WALL_TIME_MARK = "wall_time"
"""The key in `msgspec.Meta.extra` by which a field is known to be a wall time."""

WallTime: TypeAlias = Annotated[
    float,
    msgspec.Meta(
        extra={WALL_TIME_MARK: True},
        extra_json_schema={"format": "date-time"},
    ),
]
"""A wall time in seconds since 1970, 0 for never: the type of a field of a struct.

In messages it is a number. Commands show it with `-o json` as RFC 3339 in UTC, `2027-01-15T08:00:00.000Z`, and as null
for never.
"""

_MAX_SECONDS = 253_402_300_800.0
"""The first second of the year 10000, which RFC 3339 cannot write."""


def to_rfc3339(moment: float) -> str | None:
    """Return a wall time as RFC 3339 in UTC with milliseconds, None for 0 (never) and what is not a valid time."""
    if not moment or not 0 < moment < _MAX_SECONDS:
        return None
    seconds, milliseconds = divmod(int(moment * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"
