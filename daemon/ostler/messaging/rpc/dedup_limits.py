"""How much a server stores for requests that may be retried."""

from __future__ import annotations

import msgspec


class DedupLimits(msgspec.Struct, frozen=True):
    """Number and bytes of answers, seconds for which a request is known, and the grace time of work.

    `orphan_grace` is for how many seconds work goes on whose caller has gone, and may come back.
    """

    max_results: int = 1000
    max_bytes: int = 16 * 1024 * 1024
    ttl: float = 600.0
    orphan_grace: float = 5.0
