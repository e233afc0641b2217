"""How much a server keeps for requests that come again."""

from __future__ import annotations

import msgspec


class Keeping(msgspec.Struct, frozen=True):
    """Number and bytes of answers, seconds for which a request is known, and the grace time of work.

    `grace` is for how many seconds work goes on whose caller has gone, and may come back.
    """

    answers: int = 1000
    size: int = 16 * 1024 * 1024
    age: float = 600.0
    grace: float = 5.0
