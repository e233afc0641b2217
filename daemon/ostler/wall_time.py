"""The type of wall times in structs; for their notation see `time_text`."""

from __future__ import annotations

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
